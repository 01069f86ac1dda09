"""What a worker tells the supervisor to be on disk."""

import asyncio
import os
from pathlib import Path

import apsw
import pytest

from extproc.app import Place, Worker
from extproc.budget import BudgetLimits
from extproc.generation import last_metrics_file
from extproc.settings import SidecarSettings
from extproc.transport.address import UnixAddress
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings
from ingest_client.spool import Spool, SpoolSettings
from ingest_client.spool.store import Store


def worker_in(folder: Path, *, memory_only: bool = False) -> Worker:
    """A worker that has not started, with an ingest that refuses."""
    settings = SidecarSettings(
        listen="unix:worker.sock",
        admin_listen="127.0.0.1:0",
        data_dir=folder,
        workers=1,
        drain_s=1,
        queue_turns=10,
        queue_bytes=1 << 20,
        budget=BudgetLimits(max_bytes=1 << 20, max_exchanges=10, tenant_share=1.0),
        capture_errors=False,
        quarantine_raw=False,
        log_level="info",
        transport="grpcio",
        spool=SpoolSettings(memory_only=memory_only),
        delivery=DeliverySettings(endpoints=(EndpointSettings(url="http://127.0.0.1:1"),)),
    )
    return Worker(settings, Place(0, 1, UnixAddress(str(folder / "worker.sock"))))


async def test_nothing_is_called_durable_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill then would leave an entry of Envoy's log matched with an exchange that no ledger has."""

    def disk_full(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    spool = await Spool.open(tmp_path)
    worker = worker_in(tmp_path)
    worker._spool = spool
    await asyncio.wait_for(worker._commit(), 60)
    with monkeypatch.context() as full:
        full.setattr(Store, "note", disk_full)
        committing = asyncio.ensure_future(worker._commit())
        await asyncio.sleep(0.5)
        assert not committing.done()
    await asyncio.wait_for(committing, 60)
    await spool.close(60)


async def test_the_last_metrics_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Also where an earlier process left a file that was not."""
    worker = worker_in(tmp_path)
    file = last_metrics_file(worker.admin_socket)
    file.touch(0o644)
    before = os.umask(0)
    try:
        worker.leave_metrics()
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes()
