"""Fixtures of the end-to-end tests; all logs are shown when a test fails."""

import socket
import tempfile
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from extproc.transport.address import Address
from tests.e2e.harness.envoy import PATIENT, Envoy, Mode, Settings, configuration
from tests.e2e.harness.ledger import Ledger
from tests.e2e.harness.services import Ingest, Sidecar
from tests.e2e.harness.upstream import Upstream

LOGS = pytest.StashKey[list[Path]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of every log of a failed test to its report."""
    report = yield
    if report.failed:
        for log in item.stash.get(LOGS, list[Path]()):
            if log.is_file():
                report.sections.append((str(log), log.read_text(errors="replace")[-20_000:]))
    return report


@pytest.fixture
def logs(request: pytest.FixtureRequest) -> list[Path]:
    """Append the log files of what a test starts."""
    item: pytest.Item = request.node
    return item.stash.setdefault(LOGS, [])


@pytest.fixture
async def provider() -> AsyncGenerator[Upstream]:
    """The stub provider, running."""
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def ledger() -> AsyncGenerator[Ledger]:
    """A receiver of Envoy's access log, running."""
    receiver = Ledger()
    await receiver.start()
    yield receiver
    await receiver.stop()


class StartEnvoy(Protocol):
    """The type of the ``start_envoy`` fixture."""

    async def __call__(
        self,
        mode: Mode | None,
        *,
        sidecar: Sequence[Address] = (),
        ledger: int | None = None,
        settings: Settings = PATIENT,
    ) -> Envoy: ...


@pytest.fixture
async def start_envoy(provider: Upstream, tmp_path: Path, logs: list[Path]) -> AsyncGenerator[StartEnvoy]:
    """A function: start Envoy between its clients and ``provider``. ``mode`` None: without the sidecar."""
    running: list[Envoy] = []

    async def start(
        mode: Mode | None,
        *,
        sidecar: Sequence[Address] = (),
        ledger: int | None = None,
        settings: Settings = PATIENT,
    ) -> Envoy:
        directory = tmp_path / f"envoy{len(running)}"
        directory.mkdir()
        document = configuration(
            mode, provider=provider.port, sidecar=sidecar, ledger=ledger, settings=settings
        )
        envoy = Envoy(directory, document)
        logs.append(envoy.log)
        running.append(envoy)
        await envoy.start()
        return envoy

    yield start
    for envoy in running:
        await envoy.stop()


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    return ports


@pytest.fixture
async def short_tmp() -> AsyncGenerator[Path]:
    """A directory whose path leaves room for socket names (the kernel allows 107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="steno-") as name:
        yield Path(name)


@pytest.fixture
async def ingest(short_tmp: Path, logs: list[Path]) -> AsyncGenerator[Ingest]:
    """A running ingest service."""
    service = Ingest(short_tmp, *free_ports(1))
    logs.append(service.log)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def steno(short_tmp: Path, logs: list[Path], ingest: Ingest) -> AsyncGenerator[Sidecar]:
    """A running sidecar that delivers to ``ingest``."""
    port, admin_port = free_ports(2)
    service = Sidecar(short_tmp, port, admin_port, ingest.url)
    logs.append(service.log)
    await service.start()
    yield service
    await service.stop()
