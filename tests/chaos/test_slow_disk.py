"""A disk that hardly answers: reading goes on, memory is bounded, and every exchange is accounted for."""

import asyncio
import time
from pathlib import Path

import apsw
import pytest

from capture.outcomes import Outcome, State
from extproc.captured import Captured, Instant
from extproc.checkpoints import Checkpointer
from extproc.exchange import ExchangeRules
from extproc.pipeline import Pipeline, PipelineLimits
from extproc.policy import OnePolicy
from extproc.recorder import Recorder
from ingest_client.ledger import Ledger
from ingest_client.sink import Record
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.spool import Spool
from tests.patience import GrantedTime
from tests.unit.extproc.playbook import TURN, request, request_headers

SYNC_S = 1.0
TURNS, QUEUE_TURNS, SPOOL_ITEMS, OPEN = 2000, 100, 50, 200


class _SlowFile(apsw.VFSFile):
    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        time.sleep(SYNC_S)
        super().xSync(flags)


class _SlowVfs(apsw.VFS):
    """The real disk, a second late with every sync."""

    def __init__(self) -> None:
        super().__init__("slow", base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _SlowFile("", name, flags)


class _Deaf:
    def kept(self, captured: Captured, record: Record) -> None: ...
    def ended(self, captured: Captured, outcome: Outcome) -> None: ...


def _now() -> Instant:
    return Instant(time.time_ns(), time.monotonic_ns())


async def _worst_lag(until: asyncio.Event) -> float:
    worst = 0.0
    while not until.is_set():
        granted = GrantedTime()
        await asyncio.sleep(0.01)
        worst = max(worst, granted.passed_s() - 0.01)
    return worst


@pytest.mark.timeout(300)
async def test_a_slow_disk_never_stops_reading(tmp_path: Path) -> None:
    """The reader takes message after message; what the budgets have no room for is counted as lost. Times
    are without those in which the machine ran others.
    """
    vfs = _SlowVfs()
    ledger = Ledger()
    settings = SpoolSettings(reserve_bytes=0, queue_items=SPOOL_ITEMS)
    spool = await Spool.open(tmp_path, settings, ledger=ledger, vfs="slow")
    pipeline = Pipeline(
        sink=spool,
        checkpoints=spool,
        ledger=ledger,
        observer=_Deaf(),
        limits=PipelineLimits(max_turns=QUEUE_TURNS, max_bytes=1 << 26),
        wall_ns=time.time_ns,
    )
    checkpointer = Checkpointer(checkpoints=spool, sink=spool, name=pipeline.name, clock=_now)
    recorder = Recorder(
        rules=ExchangeRules(OnePolicy()),
        pipeline=pipeline,
        checkpointer=checkpointer,
        ledger=ledger,
        clock=_now,
    )
    read = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(pipeline.run()), tasks.create_task(checkpointer.run())]
        lag = tasks.create_task(_worst_lag(read))
        waiting = [recorder.open({}) for _ in range(OPEN)]
        for stream in waiting:  # open for long: snapshots compete for the same disk
            stream.receive(request_headers())
            stream.receive(request())
        slowest = 0.0
        for number in range(TURNS):
            stream = recorder.open({})
            granted = GrantedTime()
            for event in TURN:
                stream.receive(event)  # type: ignore[arg-type]  # a playbook's event may be an end
            slowest = max(slowest, granted.passed_s())
            if number % 20 == 0:
                await asyncio.sleep(0.03)
            assert pipeline.waiting_bytes <= 1 << 26
        read.set()
        for stream in waiting:
            for event in TURN[2:]:
                stream.receive(event)  # type: ignore[arg-type]
        await pipeline.drain()
        for task in running:
            task.cancel()
    await spool.close(60)
    vfs.unregister()
    assert slowest < SYNC_S / 4
    assert lag.result() < SYNC_S / 2  # no sync is waited for
    assert ledger.observed == TURNS + OPEN
    assert (ledger.open, ledger.imbalance) == (0, 0)
    assert ledger.total(State.SPOOLED) + ledger.total(State.LOST) == TURNS + OPEN
    assert ledger.total(State.SPOOLED) >= 1
    assert set(ledger.ended) <= {Outcome.SEM_FULL, Outcome.OVER_BUDGET}
