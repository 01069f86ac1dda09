"""Starting where it cannot be: the sidecar says why and what to do, and leaves."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import free_ports
from tests.e2e.harness.services import Service, Sidecar


async def _refusal(service: Service) -> str:
    """The log of a service that is expected to end by itself with 1."""
    await service.start()
    assert await service.ended() == 1
    return service.log.read_text()


def _second(directory: Path, port: int, admin_port: int) -> Service:
    directory.mkdir()
    return Service(
        "extproc", directory / "log", f"--listen=127.0.0.1:{port}", f"--admin-listen=127.0.0.1:{admin_port}",
        f"--data-dir={directory}",
    )  # fmt: skip


async def test_a_taken_port_is_named_and_refused(steno: Sidecar, short_tmp: Path) -> None:
    """With SO_REUSEPORT a taken port would be no error, and Envoy's streams would be shared out at random."""
    log = await _refusal(_second(short_tmp / "b", steno.port, free_ports(1)[0]))
    assert f"127.0.0.1:{steno.port}" in log
    assert "another program has that port" in log
    assert (await steno.ledger())["imbalance"] == 0


async def test_a_taken_admin_port_is_named_and_refused(steno: Sidecar, short_tmp: Path) -> None:
    admin_port = int(steno.admin.rpartition(":")[2])
    log = await _refusal(_second(short_tmp / "b", free_ports(1)[0], admin_port))
    assert "--admin-listen" in log
    assert "Traceback" not in log


@pytest.mark.timeout(300)
async def test_the_demo_ends_well_only_when_what_was_stored_is_what_was_received() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "steno", "up", "--once", stdout=asyncio.subprocess.PIPE
    )
    shown, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0
    assert shown.decode().count("the same text, to the byte") == 2
