"""A request that the shelf does not give back at the end of its exchange: what was written down is the turn."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from capture.outcomes import Outcome
from extproc.captured import Instant
from extproc.checkpoints import Checkpointer
from extproc.events import Body, Headers
from extproc.exchange import ExchangeRules
from extproc.pipeline import Pipeline, PipelineLimits
from extproc.policy import OnePolicy
from extproc.recorder import Recorder
from extproc.shelf import Shelf
from ingest_client.ledger import Ledger
from ingest_client.spool import Spool, SpoolSettings
from tests.unit.extproc.playbook import SSE, START, TURN, request, request_headers, response, response_headers
from tests.unit.extproc.test_pipeline import Heard

LARGE = b'{"model": "m", "messages": ["' + os.urandom(50_000).hex().encode() + b'"]}'


class Rig:
    """A worker's parts with a real spool and shelf, and a clock that is set by hand."""

    def __init__(self, spool: Spool, shelf: Shelf, ledger: Ledger) -> None:
        self.second = 0
        self.spool = spool
        self.shelf = shelf
        self.ledger = ledger
        self.pipeline = Pipeline(
            sink=spool,
            checkpoints=spool,
            ledger=ledger,
            observer=Heard(),
            limits=PipelineLimits(max_turns=100, max_bytes=1 << 30),
            wall_ns=lambda: self.now().wall_ns,
            shelf=shelf,
        )
        self.checkpointer = Checkpointer(
            checkpoints=spool, sink=spool, name=self.pipeline.name, clock=self.now
        )
        self.recorder = Recorder(
            rules=ExchangeRules(OnePolicy()),
            pipeline=self.pipeline,
            checkpointer=self.checkpointer,
            ledger=ledger,
            clock=self.now,
        )

    def now(self) -> Instant:
        passed_ns = self.second * 10**9
        return Instant(START.wall_ns + passed_ns, START.monotonic_ns + passed_ns)

    async def ends_unread(self, *, written_down: bool) -> None:
        """A turn whose request is on the shelf when that fails; the rest of its answer comes all the same."""
        stream = self.recorder.open({})
        for event in (
            request_headers(),
            request(LARGE),
            response_headers("200"),
            response(SSE[:-90], end=False),
        ):
            assert isinstance(event, Headers | Body)
            stream.receive(event)
        async with asyncio.timeout(60):
            while not self.shelf.counters.shelved:
                await asyncio.sleep(0.005)
        if written_down:
            self.second = 2
            await self.checkpointer.write_due()
            assert self.checkpointer.counters.written == 1
        self.shelf.close()
        end = TURN[-1]
        assert isinstance(end, Body)
        stream.receive(end)
        running = asyncio.ensure_future(self.pipeline.run())
        assert await self.pipeline.drain(60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert self.shelf.counters.lost == 1


@pytest.mark.parametrize("written_down", [True, False])
async def test_what_was_written_down_becomes_the_turn(written_down: bool, tmp_path: Path) -> None:
    """By the sweep, as interrupted; without a snapshot the exchange is lost by name."""
    ledger = Ledger()
    spool = await Spool.open(tmp_path / "spool", SpoolSettings(reserve_bytes=0), ledger=ledger)
    (tmp_path / "shelf").mkdir()
    rig = Rig(spool, Shelf(tmp_path / "shelf"), ledger)
    await rig.ends_unread(written_down=written_down)
    assert dict(ledger.ended) == ({} if written_down else {Outcome.OVER_BUDGET: 1})
    assert ledger.open == written_down
    rig.second = 3600
    await rig.checkpointer.write_due()
    await rig.checkpointer.sweep()
    assert (ledger.spooled, ledger.open, ledger.imbalance) == (written_down, 0, 0)
    assert rig.checkpointer.counters.interrupted == written_down
    if written_down:
        (kept,) = await spool.claim(1, 1 << 30, rig.now().wall_ns, per_tenant=1)
        meta = json.loads(kept.body)["meta"]
        assert (meta["interrupted"], meta["partial"]) == (True, True)
    await spool.close(60)
