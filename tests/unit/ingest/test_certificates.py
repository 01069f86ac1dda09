"""A client certificate stands for a key: real TLS over loopback, and what the keys file says of it."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest import app
from ingest.access import Access, KeysError, UnauthenticatedError, read_keys
from ingest.app import StartError, build
from ingest.certificates import names_of
from ingest.settings import IngestSettings
from tests.patience import becomes
from tests.unit.ingest.running import turn
from tests.unit.ingest.test_access import bearer, key
from tests.unit.ingest.test_tls import serving, trusting
from tests.unit.ingest_client.delivery.certificates import Authority, Pair, needs_openssl

SPIFFE = "URI:spiffe://cluster/ns/a/sa/envoy"


def certified(name: str, tenants: list[str], *roles: str) -> dict[str, Any]:
    return {"name": name, "certificate": name, "tenants": tenants, "roles": roles or ["write", "read"]}


def write_keys(path: Path, *keys: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    os.utime(path)
    return path


class Front:
    """One client of a service with TLS: what it shows, and what it is answered."""

    def __init__(self, url: str, authority: Authority, shown: Pair | None) -> None:
        self._client = httpx.AsyncClient(base_url=url, verify=trusting(authority, shown), timeout=30)

    async def post(self, tenant: str = "", **headers: str) -> httpx.Response:
        body = turn(meta={"tenant": tenant} if tenant else {})
        return await self._client.post("/v1/ingest", json=body, headers=headers)

    async def posted(self, tenant: str = "") -> int:
        """The status of a post; 0 where it was not trusted enough to be answered."""
        try:
            return (await self.post(tenant)).status_code
        except httpx.TransportError:
            return 0

    async def get(self, path: str) -> httpx.Response:
        return await self._client.get(path)

    async def close(self) -> None:
        await self._client.aclose()


def tls(directory: Path, authority: Authority, keys: Path, **more: Any) -> Any:
    pair = authority.issue()
    settings = {"tls_certificate": pair.cert, "tls_key": pair.key, "tls_client_ca": authority.cert}
    return serving(directory, keys_file=keys, **settings, **more)


@needs_openssl
@pytest.mark.parametrize("name", [SPIFFE, "DNS:envoy.example", "CN:leaf2"])
async def test_a_certificate_that_a_key_names_needs_no_token(tmp_path: Path, name: str) -> None:
    """By its URI, its DNS name or its common name: inside its tenants and roles, and no further."""
    ours = Authority(tmp_path, "ours")
    keys = write_keys(tmp_path / "keys.json", certified(name, ["a"], "write"))
    async with tls(tmp_path, ours, keys) as url:
        front = Front(url, ours, ours.issue(f"{SPIFFE},DNS:Envoy.example"))
        assert (await front.post()).status_code == 202
        assert (await front.post("a")).status_code == 202
        assert (await front.post("b")).status_code == 403
        assert (await front.get("/v1/turns")).status_code == 403, "it may write only"
        await front.close()


@needs_openssl
async def test_a_certificate_that_no_key_names_is_401_and_told_what_it_is(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    keys = write_keys(tmp_path / "keys.json", certified(SPIFFE, ["a"]), key("token", ["b"]))
    async with tls(tmp_path, ours, keys) as url:
        front = Front(url, ours, ours.issue("URI:spiffe://cluster/ns/a/sa/other"))
        answer = await front.post()
        assert answer.status_code == 401
        assert "CN:leaf2, URI:spiffe://cluster/ns/a/sa/other" in answer.json()["error"]
        assert "certificate that a key names" in answer.json()["action"]
        assert (await front.post("b", **bearer("token"))).status_code == 202, "a key still counts"
        assert (await front.post("b", **bearer("wrong"))).status_code == 401
        await front.close()
        known = Front(url, ours, ours.issue(SPIFFE))
        assert (await known.post(**bearer("wrong"))).status_code == 401, "a wrong key is not overlooked"
        assert (await known.post("b", **bearer("token"))).status_code == 202, "the key that is sent counts"
        await known.close()


@needs_openssl
async def test_new_keys_count_on_connections_that_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_RELOAD_S", 0.05)
    ours = Authority(tmp_path, "ours")
    keys = write_keys(tmp_path / "keys.json", certified(SPIFFE, ["a"]))
    async with tls(tmp_path, ours, keys) as url:
        front = Front(url, ours, ours.issue(SPIFFE))
        assert (await front.post("a")).status_code == 202
        write_keys(keys, certified(SPIFFE, ["b"]))
        await becomes(lambda: front.posted("a"), 403)
        assert (await front.post("b")).status_code == 202
        write_keys(keys)
        await becomes(lambda: front.posted("b"), 401)
        await front.close()


@needs_openssl
async def test_a_new_authority_is_trusted_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_RELOAD_S", 0.05)
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(old.cert.read_bytes())
    keys = write_keys(tmp_path / "keys.json", certified(SPIFFE, ["a"]))
    pair = old.issue()
    files = {"tls_certificate": pair.cert, "tls_key": pair.key, "tls_client_ca": trusted}
    async with serving(tmp_path, keys_file=keys, **files) as url:
        shown = new.issue(SPIFFE)
        front = Front(url, old, shown)
        with pytest.raises(httpx.TransportError):
            await front.post()
        await front.close()
        trusted.write_bytes(new.cert.read_bytes())
        front = Front(url, old, shown)
        await becomes(front.posted, 202)
        await front.close()


@needs_openssl
async def test_probes_come_without_a_certificate_where_it_is_optional(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    keys = write_keys(tmp_path / "keys.json", certified(SPIFFE, ["a"]), key("token", ["b"]))
    async with tls(tmp_path, ours, keys, tls_client_optional=True) as url:
        bare, known = Front(url, ours, None), Front(url, ours, ours.issue(SPIFFE))
        assert (await bare.get("/readyz")).status_code == 200
        assert (await bare.post()).status_code == 401
        assert (await bare.post(**bearer("token"))).status_code == 202
        assert (await known.post()).status_code == 202
        stranger = Front(url, ours, theirs.issue(SPIFFE))
        with pytest.raises(httpx.TransportError):
            await stranger.post()
        for front in (bare, known, stranger):
            await front.close()


def shown(*names: tuple[str, str], common: str = "leaf") -> dict[str, object]:
    """A certificate as Python's TLS tells it."""
    return {"subject": ((("commonName", common),),), "subjectAltName": names}


def test_the_kind_is_part_of_a_name(tmp_path: Path) -> None:
    """A common name that looks like somebody's URI, or a URI that looks like a host, passes for nobody."""
    access = Access(write_keys(tmp_path / "k", certified("DNS:admin", ["*"]), certified(SPIFFE, ["*"])))
    assert access.principal("", names_of(shown(("DNS", "ADMIN")))).name == "DNS:admin"
    for certificate in (
        shown(common="admin"),
        shown(common=SPIFFE),
        shown(common=SPIFFE.removeprefix("URI:")),
        shown(("URI", "admin"), ("email", "admin")),
        shown(("DNS", "admin.example"), ("DNS", "x,DNS:admin")),
        shown(("URI", SPIFFE.removeprefix("URI:").upper())),
    ):
        with pytest.raises(UnauthenticatedError):
            access.principal("", names_of(certificate))


def test_a_certificate_of_two_keys_is_nobody(tmp_path: Path) -> None:
    access = Access(write_keys(tmp_path / "k", certified("DNS:a", ["a"]), certified("DNS:b", ["b"])))
    with pytest.raises(UnauthenticatedError, match="several keys"):
        access.principal("", names_of(shown(("DNS", "a"), ("DNS", "b"))))


def test_a_key_may_have_several_names(tmp_path: Path) -> None:
    one = certified("DNS:a", ["a"])
    access = Access(write_keys(tmp_path / "k", one, one | {"certificate": "CN:leaf"}))
    assert access.principal("", names_of(shown(("DNS", "a")))).tenants == {"a"}


def test_no_certificate_has_no_names() -> None:
    assert names_of(None) == names_of({}) == frozenset()


@pytest.mark.parametrize(
    "bad",
    [
        [certified("envoy", ["a"])],
        [certified("URI:", ["a"])],
        [certified("email:a@b", ["a"])],
        [certified("CN:x", ["a"]) | {"sha256": "0" * 64}],
        [{"name": "neither", "tenants": ["a"], "roles": []}],
        [certified("DNS:a", ["a"]), certified("DNS:A", ["b"])],
        [key("t", ["a"]), key("t", ["b"])],
    ],
)
def test_a_keys_file_that_says_nonsense_of_credentials_is_refused(bad: list[dict[str, Any]]) -> None:
    with pytest.raises(KeysError):
        read_keys(json.dumps({"keys": bad}).encode())


def test_keys_that_nobody_could_use_stop_the_start(tmp_path: Path) -> None:
    """Without an authority for clients no certificate is ever asked for."""
    keys = write_keys(tmp_path / "keys.json", certified(SPIFFE, ["a"]))
    with pytest.raises(StartError, match="tls_client_ca"):
        build(IngestSettings(database_url=f"sqlite:///{tmp_path}/x.db", keys_file=keys))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tls_key": Path("k")}, "tls_key needs tls_certificate"),
        ({"tls_client_ca": Path("ca")}, "tls_client_ca needs tls_certificate"),
        ({"tls_client_optional": True}, "tls_client_optional needs tls_client_ca"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings: dict[str, Any], problem: str) -> None:
    """Plain HTTP where somebody asked for certificates would be noticed too late."""
    with pytest.raises(ValueError, match=problem):
        IngestSettings(**settings)
