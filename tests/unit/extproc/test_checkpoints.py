"""When open exchanges are written down, as what, and who finishes those of dead processes."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from capture.outcomes import Outcome
from extproc.assemble import MAX_SNAPSHOT_BYTES
from extproc.captured import Captured, Instant
from extproc.checkpoints import BATCH_ITEMS, INTERVALS_S, CheckpointCounters, Checkpointer
from extproc.events import Event, Headers, Side, StreamEnd
from extproc.exchange import ExchangeRules
from extproc.pipeline import Pipeline, PipelineLimits
from extproc.policy import OnePolicy
from extproc.recorder import RecordedStream, Recorder
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record, Shed
from ingest_client.spool import Spool, SpoolSettings
from ingest_client.spool.api import Checkpoint
from tests.unit.extproc.playbook import (
    REQUEST,
    SSE,
    START,
    TURN,
    request,
    request_headers,
    response,
    response_headers,
)

HALF = SSE[: SSE.index(b"world")]


@dataclass
class Store:
    """A spool in memory: snapshots, what was kept, and what to answer."""

    ledger: Ledger
    snapshots: dict[str, Checkpoint] = field(default_factory=dict[str, Checkpoint])
    history: list[Checkpoint] = field(default_factory=list[Checkpoint])
    kept: list[Record] = field(default_factory=list[Record])
    left: list[Checkpoint] = field(default_factory=list[Checkpoint])
    answer: Kept | Shed = field(default_factory=Kept)
    room: bool = True

    async def keep(self, record: Record) -> Kept | Shed:
        self.kept.append(record)
        if isinstance(self.answer, Kept):
            self.ledger.settle({"spooled": 1})
            self.snapshots.pop(record.turn_id, None)
        else:
            self.ledger.end(self.answer.outcome)
        return self.answer

    async def close(self, grace_s: float) -> None:
        return

    async def checkpoint(self, snapshot: Checkpoint) -> bool:
        self.history.append(snapshot)
        if self.room:
            self.snapshots[snapshot.turn_id] = snapshot
        return self.room

    async def forget(self, turn_id: str) -> None:
        self.snapshots.pop(turn_id, None)

    async def take_interrupted(self, now_ns: int) -> list[Checkpoint]:
        """One at a time: as little as a spool may hand out at once."""
        taken, self.left = self.left[:1], self.left[1:]
        return taken


class Deaf:
    """Hears of every ending and does nothing."""

    def kept(self, captured: Captured, record: Record) -> None: ...
    def ended(self, captured: Captured, outcome: Outcome) -> None: ...


class World:
    """One worker's parts around a spool in memory, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.second = 0.0
        self.ledger = Ledger()
        self.store = Store(self.ledger)
        self.pipeline = Pipeline(
            sink=self.store,
            checkpoints=self.store,
            ledger=self.ledger,
            observer=Deaf(),
            limits=PipelineLimits(max_turns=100, max_bytes=1 << 30),
            wall_ns=lambda: self.now().wall_ns,
        )
        self.checkpointer = Checkpointer(
            checkpoints=self.store, sink=self.store, name=self.pipeline.name, clock=self.now
        )
        self.recorder = Recorder(
            rules=ExchangeRules(OnePolicy()),
            pipeline=self.pipeline,
            checkpointer=self.checkpointer,
            ledger=self.ledger,
            clock=self.now,
        )

    def now(self) -> Instant:
        passed_ns = int(self.second * 1e9)
        return Instant(START.wall_ns + passed_ns, START.monotonic_ns + passed_ns)

    def open(self, *events: Event) -> RecordedStream:
        stream = self.recorder.open({})
        for event in events:
            assert not isinstance(event, StreamEnd)
            stream.receive(event)
        return stream

    async def at(self, second: float) -> None:
        """Let time pass, then write what is due."""
        self.second = second
        await self.checkpointer.write_due()

    async def settle(self) -> None:
        """Let the pipeline finish what was concluded."""
        keeping = asyncio.ensure_future(self.pipeline.run())
        await self.pipeline.drain()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(snapshot.body) for snapshot in self.store.history]


def _left(turn_id: str) -> Checkpoint:
    return Checkpoint(turn_id=turn_id, tenant="acme", started_at_ns=5, heartbeat_at_ns=6, body=b"{}")


OPEN: tuple[Event, ...] = (request_headers(), request(), response_headers(), response(HALF, end=False))


async def test_an_open_exchange_is_written_down_at_growing_intervals() -> None:
    """At 1 s after its headers, then 2, 4, 8, 16, 30, 30 … s later."""
    world = World()
    world.open(*OPEN)
    times: list[float] = []
    for tenth in range(1300):
        before = len(world.store.history)
        await world.at(tenth / 10)
        times += [world.second] * (len(world.store.history) - before)
    assert times == [1, 3, 7, 15, 31, 61, 91, 121]
    assert len({snapshot.turn_id for snapshot in world.store.history}) == 1
    assert [snapshot.heartbeat_at_ns - START.wall_ns for snapshot in world.store.history] == [
        int(second * 1e9) for second in times
    ]
    assert INTERVALS_S == (1, 2, 4, 8, 16, 30)


async def test_a_snapshot_is_the_turn_as_far_as_it_came_marked_interrupted() -> None:
    world = World()
    world.open(*OPEN)
    await world.at(1)
    (payload,) = world.payloads
    assert payload["response"]["message"]["content"] == [{"type": "text", "text": "Hello, "}]
    assert payload["request"] == json.loads(REQUEST)
    assert (payload["meta"]["interrupted"], payload["meta"]["partial"]) == (True, True)
    assert payload["meta"]["request_id"] == world.store.history[0].turn_id
    assert payload["meta"]["elapsed_seconds"] == 1


async def test_a_request_without_an_answer_yet_is_written_down() -> None:
    """A model that thinks for long before its first byte."""
    world = World()
    world.open(request_headers(), request())
    await world.at(1)
    (payload,) = world.payloads
    assert payload["response"]["message"]["content"] == []
    assert "upstream_status" not in payload["meta"]


@pytest.mark.parametrize(
    "events",
    [
        (),
        (request_headers(),),
        (request_headers(), request(REQUEST[:20], end=False)),
        (request_headers(path="/healthz"), request(), response_headers(), response(HALF, end=False)),
        (request_headers(), request(), response_headers("500"), response(b"oh", end=False)),
        (request_headers(("content-encoding", "gzip")), request(b"no gzip"), response_headers()),
        (request_headers(), request(b'{"model": "no JSON'), response_headers(), response(HALF, end=False)),
    ],
    ids=["nothing", "no body", "half a request", "no turn", "an error", "undecodable", "no JSON"],
)
async def test_what_would_be_no_turn_is_not_written_down(events: Sequence[Event]) -> None:
    world = World()
    world.open(*events)
    await world.at(1)
    assert world.store.history == []
    assert world.checkpointer.counters == CheckpointCounters()


async def test_the_end_of_an_exchange_keeps_its_name_and_clears_what_was_written() -> None:
    world = World()
    stream = world.open(*OPEN)
    await world.at(1)
    name = world.store.history[0].turn_id
    stream.receive(response(SSE[len(HALF) :]))
    await world.settle()
    (kept,) = world.store.kept
    payload = json.loads(kept.body)
    assert kept.turn_id == payload["meta"]["request_id"] == name
    assert "interrupted" not in payload["meta"]
    assert world.store.snapshots == {}
    await world.at(100)
    assert len(world.store.history) == 1


async def test_an_end_without_a_turn_forgets_what_was_written() -> None:
    """The request was complete, the upstream never answered."""
    world = World()
    stream = world.open(request_headers(), request())
    await world.at(1)
    assert len(world.store.snapshots) == 1
    stream.ended(StreamEnd.EOF)
    await world.settle()
    assert world.store.snapshots == {}
    assert world.ledger.ended == {Outcome.UPSTREAM_NO_RESPONSE: 1}
    assert world.ledger.imbalance == 0


async def test_a_turn_that_is_shed_leaves_nothing_behind() -> None:
    """It is counted as lost; its snapshot would come back as a second exchange."""
    world = World()
    world.store.answer = Shed(Outcome.OVER_BUDGET, "full")
    stream = world.open(*OPEN)
    await world.at(1)
    stream.receive(response(SSE[len(HALF) :]))
    await world.settle()
    assert world.store.snapshots == {}
    assert world.ledger.ended == {Outcome.OVER_BUDGET: 1}


async def test_an_exchange_that_ends_quickly_is_never_written_down() -> None:
    world = World()
    world.open(*TURN)
    for second in range(100):
        await world.at(second)
    assert world.store.history == []


async def test_a_spool_without_room_is_counted_and_asked_again() -> None:
    world = World()
    world.store.room = False
    world.open(*OPEN)
    await world.at(1)
    await world.at(3)
    assert world.checkpointer.counters.shed == len(world.store.history) == 2


async def test_an_exchange_that_is_too_large_is_counted_and_not_written_down() -> None:
    world = World()
    big = b'{"messages": ["' + b"x" * MAX_SNAPSHOT_BYTES + b'"]}'
    world.open(request_headers(), request(big), response_headers(), response(HALF, end=False))
    await world.at(1)
    assert (world.store.history, world.checkpointer.counters.too_large) == ([], 1)


async def test_a_batch_is_bounded_and_the_rest_is_written_next() -> None:
    """However many exchanges are due, the loop is held for one batch at a time."""
    world = World()
    for _ in range(BATCH_ITEMS + 5):
        world.open(*OPEN)
    await world.at(1)
    assert len(world.store.history) == BATCH_ITEMS
    await world.at(1)
    assert len(world.store.history) == BATCH_ITEMS + 5


async def test_large_exchanges_go_in_smaller_batches() -> None:
    world = World()
    big = b'{"messages": ["' + b"x" * (MAX_SNAPSHOT_BYTES // 2) + b'"]}'
    for _ in range(4):
        world.open(request_headers(), request(big))
    await world.at(1)
    assert len(world.store.history) == 2


async def test_what_a_dead_process_left_is_kept_as_it_was_written() -> None:
    world = World()
    world.store.left = [_left("t-1")]
    await world.checkpointer.sweep()
    assert world.store.kept == [
        Record(turn_id="t-1", tenant="acme", body=b"{}", created_at_ns=5, interrupted=True)
    ]
    assert world.checkpointer.counters.interrupted == 1


async def test_a_sweep_goes_on_until_nothing_is_handed_out_any_more() -> None:
    """The spool hands out a few MiB at a time; the next sweep is a minute away."""
    world = World()
    world.store.left = [_left(f"t-{number}") for number in range(5)]
    await world.checkpointer.sweep()
    assert [record.turn_id for record in world.store.kept] == [f"t-{number}" for number in range(5)]
    assert world.checkpointer.counters.interrupted == 5


async def test_a_sweep_stops_at_a_spool_that_sheds_and_the_next_one_goes_on() -> None:
    """What is shed is handed out again: asking on would be a loop."""
    world = World()
    world.store.left = [_left(f"t-{number}") for number in range(3)]
    world.store.answer = Shed(Outcome.OVER_BUDGET, "full")
    await world.checkpointer.sweep()
    assert [record.turn_id for record in world.store.kept] == ["t-0"]
    assert (world.checkpointer.counters.interrupted, world.checkpointer.counters.interrupted_put_off) == (
        0,
        1,
    )
    world.store.answer = Kept()
    world.store.left.append(_left("t-0"))
    await world.checkpointer.sweep()
    assert [record.turn_id for record in world.store.kept[1:]] == ["t-1", "t-2", "t-0"]


async def test_all_that_a_crash_left_is_kept_once_though_it_is_more_than_may_wait_for_the_disk(
    tmp_path: Path,
) -> None:
    """Large answers were open when the process died: a healthy disk loses none of them, nothing counts twice."""
    settings = SpoolSettings(queue_bytes=1 << 20, zstd_level=0, quota_age_s=0)
    first = await Spool.open(tmp_path, settings, ledger=Ledger())
    for number in range(40):
        first.ledger.observe()
        snapshot = Checkpoint(
            turn_id=f"t{number}", tenant="a", started_at_ns=1, heartbeat_at_ns=1, body=b"x" * 100_000
        )
        assert await first.checkpoint(snapshot)
    await first.close(60)
    for _ in range(2):
        spool = await Spool.open(tmp_path, settings, ledger=Ledger())
        checkpointer = Checkpointer(checkpoints=spool, sink=spool, name=str, clock=World().now)
        await checkpointer.sweep()
        assert spool.ledger == Ledger(observed=40, spooled=40)
        await spool.close(60)


async def test_an_exchange_of_our_own_is_not_finished_by_the_sweep() -> None:
    """Its clock jumped, or its snapshots were shed for long: it still ends by itself."""
    world = World()
    world.open(*OPEN)
    await world.at(1)
    world.store.left = list(world.store.snapshots.values())
    await world.checkpointer.sweep()
    assert world.store.kept == []


async def test_a_fault_of_ours_costs_a_snapshot_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    stream = world.open(*OPEN)

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("extproc.checkpoints.snapshot", broken)
    await world.at(1)
    assert (world.checkpointer.counters.failed, world.store.history) == (1, [])
    assert "could not be written down" in caplog.text
    stream.receive(response(SSE[len(HALF) :]))
    await world.settle()
    assert len(world.store.kept) == 1


def test_a_stream_that_ended_holds_nothing_until_its_time_comes() -> None:
    """The schedule's entry stays for up to thirty seconds; the exchange's bytes do not."""
    world = World()
    stream = world.open(request_headers(), request())
    stream.receive(Headers(Side.RESPONSE, ((":status", "204"),), end_of_stream=True, observe=True))
    stream.ended(StreamEnd.EOF)
    assert stream._watched.exchange is None
