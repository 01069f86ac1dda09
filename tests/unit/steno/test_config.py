"""``steno config envoy``: the shipped configuration with the sidecar's own addresses, and no drift."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from steno.cli import main
from steno.envoy_config import Part
from tests.paths import PROJECT

SHIPPED = PROJECT / "deploy" / "envoy.yaml"
LOG = "--access-log-listen=127.0.0.1:50052"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    assert main(["config", "envoy", *arguments]) == 0
    return capsys.readouterr().out


def members(text: str) -> dict[str, Any]:
    """Text that must be YAML, as its members."""
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def cluster(text: str, name: str = "steno") -> dict[str, Any]:
    """One of the printed clusters."""
    (found,) = (each for each in members(text)["clusters"] if each["name"] == name)
    return dict(found)


def endpoints(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The addresses of a cluster."""
    (locality,) = found["load_assignment"]["endpoints"]
    return [each["endpoint"]["address"] for each in locality["lb_endpoints"]]


def tcp(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def test_with_the_default_settings_the_whole_is_what_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """To the letter, comments included: there is one text."""
    assert printed(capsys, "--part=whole", LOG) == SHIPPED.read_text()


@pytest.mark.parametrize("part", [part for part in Part if part is not Part.WHOLE])
def test_each_part_is_found_unchanged_in_the_whole(capsys: pytest.CaptureFixture[str], part: Part) -> None:
    arguments = (LOG, "--workers=3", "--listen=unix:/run/steno/s")
    ((name, items),) = members(printed(capsys, f"--part={part}", *arguments)).items()
    resources = members(printed(capsys, "--part=whole", *arguments))["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    whole = {"clusters": resources["clusters"]} | manager
    assert items
    assert all(item in whole[name] for item in items)


def test_there_are_as_many_endpoints_as_workers(capsys: pytest.CaptureFixture[str]) -> None:
    """Each where its worker listens."""
    ports = cluster(printed(capsys, "--workers=3", "--listen=127.0.0.1:6000"))
    assert endpoints(ports) == [tcp("127.0.0.1", port) for port in (6000, 6001, 6002)]
    sockets = cluster(printed(capsys, "--workers=2", "--listen=unix:/run/odd name: {s"))
    assert [each["pipe"]["path"] for each in endpoints(sockets)] == [
        "/run/odd name: {s",
        "/run/odd name: {s.1",
    ]


@pytest.mark.parametrize(
    ("arguments", "host", "kind"),
    [
        (("--listen=0.0.0.0:50051",), "127.0.0.1", "STATIC"),
        (("--listen=[::]:50051",), "127.0.0.1", "STATIC"),
        (("--listen=[::1]:50051",), "::1", "STATIC"),
        (("--listen=0.0.0.0:50051", "--host=steno.capture.svc"), "steno.capture.svc", "STRICT_DNS"),
    ],
)
def test_envoy_is_told_where_the_sidecar_can_be_reached(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], host: str, kind: str
) -> None:
    found = cluster(printed(capsys, *arguments))
    assert (endpoints(found), found["type"]) == ([tcp(host, 50051)], kind)


def test_without_the_access_log_nothing_speaks_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["name"] for each in members(printed(capsys))["clusters"]] == ["steno"]
    whole = printed(capsys, "--part=whole")
    assert "steno-ledger" not in whole
    assert "access_log" not in whole
    members(whole)


def test_the_access_log_goes_to_the_supervisor(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--access-log-listen=unix:/run/steno/log")
    assert endpoints(cluster(text, "steno-ledger")) == [{"pipe": {"path": "/run/steno/log"}}]


@pytest.fixture
def listener_files(tmp_path: Path) -> list[str]:
    """The flags of a sidecar whose listener has TLS, and asks for Envoy's certificate."""
    for name in ("cert", "key", "ca"):
        (tmp_path / name).touch()
    return [
        f"--tls-cert-file={tmp_path}/cert", f"--tls-key-file={tmp_path}/key",
        f"--tls-client-ca-file={tmp_path}/ca",
    ]  # fmt: skip


def test_tls_of_the_listener_is_tls_of_the_cluster(
    capsys: pytest.CaptureFixture[str], listener_files: list[str]
) -> None:
    found = cluster(
        printed(
            capsys, *listener_files, "--envoy-ca-file=/c/ca.pem", "--envoy-cert-file=/c/envoy.pem",
            "--envoy-key-file=/c/envoy.key", "--server-name=sidecar.test",
        )
    )  # fmt: skip
    context = found["transport_socket"]["typed_config"]
    common = context["common_tls_context"]
    assert context["sni"] == "sidecar.test"
    assert common["alpn_protocols"] == ["h2"]
    assert common["validation_context"] == {
        "trusted_ca": {"filename": "/c/ca.pem"},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "sidecar.test"}}],
    }
    assert common["tls_certificates"] == [
        {"certificate_chain": {"filename": "/c/envoy.pem"}, "private_key": {"filename": "/c/envoy.key"}}
    ]


@pytest.mark.parametrize(
    ("flags", "missing"),
    [((), "--envoy-ca-file"), (("--envoy-ca-file=/c/ca.pem",), "--envoy-cert-file and --envoy-key-file")],
)
def test_files_that_only_envoy_has_must_be_named(
    capsys: pytest.CaptureFixture[str], listener_files: list[str], flags: tuple[str, ...], missing: str
) -> None:
    assert main(["config", "envoy", *listener_files, *flags]) == 1
    assert missing in capsys.readouterr().err


def test_an_access_log_that_is_not_read_cannot_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "envoy", "--part=access-log"]) == 1
    assert "--access-log-listen" in capsys.readouterr().err


def test_workers_beyond_the_last_port_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "envoy", "--listen=127.0.0.1:65535", "--workers=2"]) == 1
    assert "no port for worker 1" in capsys.readouterr().err
