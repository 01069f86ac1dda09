"""T6: full, failing, tearing and read-only disks, at ten points of a spool's work.

The short form (twice each) runs in CI. The full one: ``STENO_T6_REPEATS=50 pytest tests/chaos/test_spool_disk_faults.py``.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from capture.outcomes import State
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Shed
from ingest_client.spool.files import DiskFiles
from ingest_client.spool.instance import make_private
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.spool import Spool
from tests.chaos.disks import Faults, FaultyVfs, ReserveOn
from tests.patience import GrantedTime, eventually
from tests.unit.ingest_client.spool.parts import turn

REPEATS = int(os.environ.get("STENO_T6_REPEATS", "2"))
AT_ONCE = 8
RESUMES_S = 5.0
"""Of the time that the machine leaves to us."""

POINTS = [
    ("wal write", 1),
    ("wal write", 2),
    ("wal write", 17),
    ("wal write", 80),
    ("wal sync", 1),
    ("wal sync", 4),
    ("db write", 1),
    ("db write", 9),
    ("db sync", 1),
    ("any write", 40),
]
SETTINGS = SpoolSettings(wal_soft_bytes=1 << 16, wal_hard_bytes=1 << 17, reserve_bytes=1 << 16)


@dataclass
class Bench:
    """A spool on a disk that fails, and what it promised."""

    spool: Spool
    faults: Faults
    kept: set[str] = field(default_factory=set[str])
    delivered: set[str] = field(default_factory=set[str])
    shed: int = 0
    number: int = 0

    async def keep(self, prefix: str = "t") -> Kept | Shed:
        self.number += 1
        name = f"{prefix}{self.number}"
        self.spool.ledger.observe()
        answer = await self.spool.keep(turn(name, body=os.urandom(3000), at_ns=time.time_ns()))
        if isinstance(answer, Kept):
            self.kept.add(name)
        else:
            assert answer.reason
            self.shed += 1
        return answer

    async def deliver(self) -> None:
        for each in await self.spool.claim(8, 1 << 30, time.time_ns(), per_tenant=8):
            self.delivered.add(each.turn_id)
            await self.spool.acknowledge([each.seq])

    def check(self) -> None:
        """The balance holds, and every loss is named."""
        ledger = self.spool.ledger
        assert ledger.imbalance == 0
        assert ledger.open == 0
        assert ledger.total(State.LOST) == self.shed
        assert ledger.delivered == len(self.delivered)
        assert ledger.spooled == len(self.kept) - len(self.delivered)


@asynccontextmanager
async def bench(folder: Path, faults: Faults) -> AsyncGenerator[Bench]:
    """A running spool over a faulty disk; closed and reopened at the end to see what is really there."""
    vfs = FaultyVfs(faults)
    make_private(folder)
    spool = await start(folder, faults, vfs)
    found = Bench(spool, faults)
    yield found
    faults.clear()
    await found.spool.close(30)
    again = await start(folder, faults, vfs)
    names = {each.turn_id for each in await again.claim(10_000, 1 << 30, time.time_ns(), per_tenant=10_000)}
    assert names == found.kept - found.delivered
    assert again.ledger.imbalance == 0
    assert again.ledger.total(State.LOST) == found.shed
    await again.close(30)
    vfs.unregister()


async def start(folder: Path, faults: Faults, vfs: FaultyVfs) -> Spool:
    files = DiskFiles(
        folder=folder, settings=SETTINGS, generation_id=os.urandom(8).hex(), clock=time.time_ns, vfs=vfs.name
    )
    reserve = ReserveOn(folder / "reserve", faults)
    spool = Spool(files, reserve, SETTINGS, ledger=Ledger(), clock=time.time_ns, lock=None)
    await spool._start()
    return spool


async def one_fault(folder: Path, kind: str, sort: str, nth: int) -> int:
    """Work, fail at the point, see turns shed and counted, mend the disk, see it resume. Returns the faults met."""
    faults = Faults()
    async with bench(folder, faults) as spool:
        for _ in range(10):
            await spool.keep()
        faults.plan(kind, sort, nth)
        async with asyncio.timeout(60):  # or the point is never reached
            while not faults.active:
                await asyncio.gather(*(spool.keep() for _ in range(3)))
                await spool.deliver()
        for _ in range(3):
            await spool.keep()
            await spool.deliver()
            await asyncio.sleep(0.1)
        faults.clear()
        mended = GrantedTime()
        while not isinstance(await spool.keep("after"), Kept):
            await asyncio.sleep(0.05)
            assert mended.passed_s() < RESUMES_S
        while spool.spool.condition.trouble:
            await asyncio.sleep(0.05)
            assert mended.passed_s() < RESUMES_S
        await spool.deliver()
        spool.check()
        return faults.hits


@pytest.mark.timeout(120 + 60 * REPEATS)
@pytest.mark.parametrize("kind", ["enospc", "eio", "short", "readonly"])
async def test_a_failing_disk_sheds_and_counts_and_the_spool_recovers_by_itself(
    tmp_path: Path, kind: str
) -> None:
    """Alive, counted, resumed within five seconds; what was kept is there, what was shed is not."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, sort: str, nth: int) -> None:
        async with room:
            assert await one_fault(tmp_path / str(number), kind, sort, nth) >= 1

    async with asyncio.TaskGroup() as group:
        for number, (sort, nth) in enumerate(POINTS * REPEATS):
            group.create_task(one(number, sort, nth))


async def test_acknowledgements_proceed_on_a_full_disk(tmp_path: Path) -> None:
    """Through the reserve: what ingest has is deleted, so that the disk can become free."""
    faults = Faults()
    async with bench(tmp_path / "spool", faults) as spool:
        for _ in range(20):
            await spool.keep()
        assert (tmp_path / "spool" / "reserve").exists()
        claimed = await spool.spool.claim(20, 1 << 30, time.time_ns(), per_tenant=20)
        faults.plan("enospc", "wal write", 1)
        assert isinstance(await spool.keep(), Shed)
        assert not (tmp_path / "spool" / "reserve").exists()
        faults.active = False  # the space that the reserve gave back
        faults.sort = "none"
        await asyncio.sleep(0.3)
        await spool.spool.acknowledge([each.seq for each in claimed])
        spool.delivered.update(each.turn_id for each in claimed)
        assert isinstance(await spool.keep(), Shed)  # new turns may not have it
        assert spool.spool.ledger.delivered == 20
        faults.clear()
        async with asyncio.timeout(20):  # it looks once a second
            while not isinstance(await spool.keep(), Kept):
                await asyncio.sleep(0.05)
        await eventually((tmp_path / "spool" / "reserve").exists)
        spool.check()


async def test_acknowledgements_on_a_dead_disk_are_owed_and_written_when_it_is_back(tmp_path: Path) -> None:
    """Delivery goes on meanwhile: nothing waits for the disk, nothing is sent twice by this process."""
    faults = Faults()
    async with bench(tmp_path / "spool", faults) as spool:
        for _ in range(5):
            await spool.keep()
        claimed = await spool.spool.claim(5, 1 << 30, time.time_ns(), per_tenant=5)
        faults.plan("eio", "any write", 1)
        # A disk that stays dead would be waited for without end.
        await asyncio.wait_for(spool.spool.acknowledge([each.seq for each in claimed]), 20)
        spool.delivered.update(each.turn_id for each in claimed)
        assert await spool.spool.claim(5, 1 << 30, time.time_ns(), per_tenant=5) == []
        faults.clear()
        await eventually(lambda: spool.spool.ledger.delivered >= 5)
        assert spool.spool.ledger.delivered == 5
        spool.check()


@pytest.mark.parametrize("kind", ["enospc", "eio", "readonly"])
async def test_a_spool_whose_disk_fails_at_the_start_opens_and_recovers(tmp_path: Path, kind: str) -> None:
    """A full disk is no reason for a sidecar not to start."""
    faults = Faults()
    faults.plan(kind, "any write", 1)
    folder = tmp_path / "spool"
    make_private(folder)
    vfs = FaultyVfs(faults)
    spool = await start(folder, faults, vfs)
    spool.ledger.observe()
    assert isinstance(await spool.keep(turn("t1")), Shed)
    faults.clear()
    mended = GrantedTime()
    while True:
        spool.ledger.observe()
        if isinstance(await spool.keep(turn("t2", at_ns=time.time_ns())), Kept):
            break
        await asyncio.sleep(0.05)
        assert mended.passed_s() < RESUMES_S
    assert spool.ledger.imbalance == 0
    await spool.close(30)
    vfs.unregister()
