"""The pipeline: bounded, never in the reader's way, and exactly one count for each exchange."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from capture.outcomes import Outcome, State
from extproc.assemble import TurnIdentity, Unmade
from extproc.assemblers import Assembler
from extproc.assembling_process import Made
from extproc.budget import Budget
from extproc.captured import Captured
from extproc.events import Event
from extproc.exchange import Concluded
from extproc.logs import Seldom
from extproc.pipeline import KEEPERS, LARGE_BYTES, Pipeline, PipelineLimits
from extproc.request_body import RequestBody
from extproc.shelf import Shelf
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record, Shed
from ingest_client.spool.api import Checkpoint
from tests.patience import eventually
from tests.unit.extproc.playbook import (
    TURN,
    concluded,
    play,
    request,
    request_headers,
    response,
    response_headers,
)


@dataclass
class CountingSink:
    """A sink that counts as the spool does; ``gate`` holds it up, ``full`` makes it shed."""

    ledger: Ledger
    full: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    records: list[Record] = field(default_factory=list[Record])

    async def keep(self, record: Record) -> Kept | Shed:
        await self.gate.wait()
        if self.full:
            self.ledger.end(Outcome.OVER_BUDGET)
            return Shed(Outcome.OVER_BUDGET, "no room")
        self.records.append(record)
        if record.quarantine is not None:
            self.ledger.end(record.quarantine.outcome)
        else:
            self.ledger.settle({"spooled": 1})
        return Kept()

    async def close(self, grace_s: float) -> None:
        del grace_s

    async def checkpoint(self, snapshot: Checkpoint) -> bool:
        del snapshot
        return True

    async def forget(self, turn_id: str) -> None:
        del turn_id

    async def take_interrupted(self, now_ns: int) -> list[Checkpoint]:
        del now_ns
        return []


class Heard:
    """What the metrics would hear."""

    def __init__(self) -> None:
        self.kept_turns = 0
        self.outcomes: list[Outcome] = []

    def kept(self, captured: Captured, record: Record) -> None:
        self.kept_turns += record.quarantine is None

    def ended(self, captured: Captured, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Rig:
    """A pipeline with everything around it."""

    def __init__(self, limits: PipelineLimits) -> None:
        self.ledger = Ledger()
        self.sink = CountingSink(self.ledger)
        self.heard = Heard()
        self.pipeline = Pipeline(
            sink=self.sink,
            checkpoints=self.sink,
            ledger=self.ledger,
            observer=self.heard,
            limits=limits,
            wall_ns=lambda: 1_000_000,
        )

    def conclude(self, *events: Event) -> None:
        """An exchange that went so was observed and has ended."""
        self.ledger.observe()
        self.pipeline.conclude(concluded(play(*events)))

    async def finish(self, within_s: float = 60.0) -> None:
        """Run until everything is kept or counted."""
        self.sink.gate.set()
        running = asyncio.ensure_future(self.pipeline.run())
        await asyncio.wait_for(self.pipeline.drain(), within_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert self.ledger.imbalance == 0
        assert self.ledger.open == 0
        assert self.pipeline.waiting_bytes == 0


ROOMY = PipelineLimits(max_turns=100, max_bytes=1 << 30)


async def test_turns_are_kept_and_excluded_exchanges_counted() -> None:
    rig = Rig(ROOMY)
    rig.conclude(*TURN)
    rig.conclude(request_headers(path="/v1/models"), *TURN[1:])
    rig.conclude(request_headers(), request(), response_headers("500"), response(b"no"))
    await rig.finish()
    assert (rig.ledger.spooled, rig.heard.kept_turns) == (1, 1)
    assert rig.heard.outcomes == [Outcome.UPSTREAM_STATUS, Outcome.NON_TURN_REQUEST]


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        (PipelineLimits(max_turns=2, max_bytes=1 << 30), Outcome.SEM_FULL),
        (PipelineLimits(max_turns=100, max_bytes=60_000), Outcome.OVER_BUDGET),
    ],
)
async def test_over_a_bound_capture_is_shed_with_its_outcome(
    limits: PipelineLimits, outcome: Outcome
) -> None:
    """Nothing is kept while the disk hangs, and the reader's call returns at once all the same."""
    rig = Rig(limits)
    for _ in range(5):
        rig.conclude(*TURN)
    await rig.finish()
    assert rig.ledger.ended[outcome] == 5 - rig.ledger.spooled
    assert 0 < rig.ledger.spooled < 5


async def test_no_turn_waits_for_names_to_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanges that were written down end without a turn, as many as there are keepers and more."""
    rig, forgotten = Rig(ROOMY), asyncio.Event()

    async def waits(_: str) -> None:
        await forgotten.wait()

    monkeypatch.setattr(rig.sink, "forget", waits)
    for number in range(2 * KEEPERS):
        ended = concluded(play(request_headers(), request(), response_headers("500"), response(b"no")))
        ended.captured.turn_id = f"turn-{number}"
        rig.ledger.observe()
        rig.pipeline.conclude(ended)
    rig.conclude(*TURN)
    rig.sink.gate.set()
    running = asyncio.ensure_future(rig.pipeline.run())
    await eventually(lambda: rig.ledger.spooled == 1)
    assert not await rig.pipeline.drain(0.05)
    forgotten.set()
    assert await rig.pipeline.drain(60)
    running.cancel()


async def test_as_many_turns_wait_for_one_commit_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a disk with a slow fsync would be the limit long before it need be."""
    rig, asked = Rig(PipelineLimits(max_turns=1000, max_bytes=1 << 30)), 0

    async def waits(_: Record) -> Kept | Shed:
        nonlocal asked
        asked += 1
        return await asyncio.Future()

    monkeypatch.setattr(rig.sink, "keep", waits)
    for _ in range(KEEPERS):
        rig.conclude(*TURN)
    running = asyncio.ensure_future(rig.pipeline.run())
    await eventually(lambda: asked == KEEPERS)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_turns_that_are_shed_unmade_have_one_log_line_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(PipelineLimits(max_turns=2, max_bytes=1 << 30))
    rig.pipeline._seldom = Seldom(lambda: 1000.0)  # a clock that stands still: the machine may take a second
    for _ in range(50):
        rig.conclude(*TURN)
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (line.waiting_turns, line.shed_so_far) == (2, {"sem_full": 1})  # type: ignore[attr-defined]
    await rig.finish()


async def test_what_the_sink_sheds_is_heard_under_its_outcome() -> None:
    rig = Rig(ROOMY)
    rig.sink.full = True
    rig.conclude(*TURN)
    await rig.finish()
    assert rig.heard.outcomes == [Outcome.OVER_BUDGET]
    assert rig.ledger.total(State.LOST) == 1


async def test_a_marshal_error_is_kept_and_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(ROOMY)
    rig.conclude(request_headers(), request(b"not json"), *TURN[2:])
    await rig.finish()
    assert rig.ledger.ended[Outcome.MARSHAL_ERROR] == 1
    (record,) = rig.sink.records
    assert record.quarantine is not None
    (line,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert vars(line)["outcome"] == "marshal_error"
    assert vars(line)["reason"] == record.quarantine.reason


async def test_a_bug_of_ours_costs_no_turn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is kept for a person, counted, and the log says where it happened."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("extproc.assembling_process.attempt", broken)
    rig = Rig(ROOMY)
    rig.conclude(*TURN)
    await rig.finish()
    (record,) = rig.sink.records
    assert record.quarantine is not None
    assert "RuntimeError" in record.quarantine.reason
    assert "a bug" not in record.quarantine.reason, "an exception's text can hold contents"
    assert any(each.exc_info for each in caplog.records)


async def test_what_leaves_memory_while_it_waits_is_not_counted_for_ever(tmp_path: Path) -> None:
    """The shelf may take a request between the end of its exchange and the keeper that makes the turn."""
    rig = Rig(ROOMY)
    shelf, budget = Shelf(tmp_path), Budget()
    captured = concluded(play(*TURN)).captured
    captured.account = budget.open("a")
    captured.request = RequestBody(1 << 20, captured.account)
    captured.request.append(b'{"model": "m", "messages": ["' + b"x" * 100_000 + b'"]}')
    captured.request.ended()
    rig.ledger.observe()
    shelf.put(captured.request)
    rig.pipeline.conclude(Concluded(captured, None))
    assert rig.pipeline.waiting_bytes > 100_000
    async with asyncio.timeout(60):
        while not shelf.counters.shelved:
            await asyncio.sleep(0.005)
    await rig.finish()
    assert (rig.pipeline.waiting_bytes, budget.used.bytes) == (0, 0)
    shelf.close()


class StuckAssembler(Assembler):
    """One that never answers."""

    async def assemble(
        self, captured: Captured, identity: TurnIdentity, unmade: Unmade | None = None
    ) -> Made:
        await asyncio.Event().wait()
        raise AssertionError


async def test_small_turns_do_not_wait_for_large_ones() -> None:
    """However many: more large ones than there are keepers."""
    rig = Rig(PipelineLimits(max_turns=2 * KEEPERS, max_bytes=1 << 40))
    rig.pipeline.assembler = StuckAssembler()
    rig.sink.gate.set()
    large = concluded(play(request_headers(), request(b"x" * (LARGE_BYTES + 1)), *TURN[2:]))
    for _ in range(KEEPERS + 8):
        rig.ledger.observe()
        rig.pipeline.conclude(Concluded(replace(large.captured), None))
    rig.conclude(*TURN)
    running = asyncio.ensure_future(rig.pipeline.run())
    async with asyncio.timeout(60):
        while not rig.sink.records:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rig.ledger.open == KEEPERS + 8


@pytest.mark.parametrize("behind", ["sink", "assembler"])
async def test_an_error_of_ours_behind_the_reader_has_an_outcome(
    behind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and what was held is given back."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    rig = Rig(ROOMY)
    if behind == "sink":
        monkeypatch.setattr(rig.sink, "keep", broken)
        rig.conclude(*TURN)
    else:
        monkeypatch.setattr(rig.pipeline.assembler, "assemble", broken)
        rig.conclude(request_headers(), request(b"x" * (LARGE_BYTES + 1)), *TURN[2:])
    await rig.finish()
    assert rig.ledger.ended == {Outcome.CRASH: 1}
    assert rig.heard.outcomes == [Outcome.CRASH]
    assert any(each.exc_info for each in caplog.records)


async def test_an_error_of_those_who_hear_of_it_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    rig = Rig(ROOMY)
    monkeypatch.setattr(rig.heard, "kept", broken)
    rig.conclude(*TURN)
    await rig.finish()
    assert (rig.ledger.spooled, dict(rig.ledger.ended)) == (1, {})
