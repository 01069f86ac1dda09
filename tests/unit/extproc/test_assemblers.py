"""The assembler: the same turn as here, and no turn lost when it dies."""

import asyncio
import gc
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from unittest.mock import ANY

import pytest

from capture.outcomes import Outcome
from extproc import quarantine
from extproc.assemble import TurnIdentity, assemble
from extproc.assemblers import HERE_BYTES, Assembler
from extproc.captured import Captured
from extproc.events import Event
from extproc.pipeline import KEEPERS, LARGE_BYTES, PipelineLimits
from ingest_client.sink import Record
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
from tests.unit.extproc.test_pipeline import Rig

_log = logging.getLogger(__name__)

IDENTITY: Final = TurnIdentity("turn-1")
LARGE: Final = b'{"model": "m", "messages": ["' + b"x" * 2 * LARGE_BYTES + b'"]}'
MIDDLE_S: Final = 1.0
"""CPU seconds after which an assembler has begun with its work, which takes longer."""

SCHEDULED: Final = Path("/proc/thread-self/schedstat")
HOSTILE: Final = b"{" + b"no json, and long to search. " * 500_000


@pytest.fixture
async def assembler() -> AsyncIterator[Assembler]:
    made = Assembler()
    yield made
    await asyncio.to_thread(made.stop)


def captured(*events: Event) -> Captured:
    return concluded(play(*events)).captured


async def test_an_assembler_makes_the_turn_that_would_be_made_here(assembler: Assembler) -> None:
    """A stream, whose fold travels, and a document."""
    document = json.dumps({"content": [{"type": "text", "text": "y" * 100}], "model": "m"}).encode()
    for events in (
        (request_headers(), request(LARGE), *TURN[2:]),
        (*TURN[:2], response_headers("200", content_type="application/json"), response(document)),
        (*TURN[:2], response_headers("200", ("content-encoding", "zstd")), response(b"broken")),
    ):
        made, found = await assembler.assemble(captured(*events), IDENTITY)
        here = captured(*events)
        assert made == assemble(here, IDENTITY)
        assert found == here.classification
    assert (assembler.counters.started, assembler.counters.jobs, assembler.counters.deaths) == (1, 3, 0)


def _cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _killed_in_the_middle(assembler: Assembler, times: int) -> Record | Outcome:
    """The job of a hostile body, whose assembler is killed so many times while it works."""
    job = asyncio.ensure_future(
        assembler.assemble(captured(request_headers(), request(HOSTILE), *TURN[2:]), IDENTITY)
    )
    for death in range(times):
        async with asyncio.timeout(200):
            while (
                assembler.counters.started == death
                or assembler.pid is None
                or _cpu_s(assembler.pid) < MIDDLE_S
            ):
                await asyncio.sleep(0.01)
        os.kill(assembler.pid, signal.SIGKILL)
        async with asyncio.timeout(200):
            while assembler.counters.deaths == death:
                await asyncio.sleep(0.01)
    made, _ = await job
    return made


@pytest.mark.timeout(300)
async def test_an_assembler_that_is_killed_is_replaced_and_the_turn_comes_all_the_same(
    assembler: Assembler,
) -> None:
    made = await _killed_in_the_middle(assembler, 1)
    assert isinstance(made, Record)
    assert made.quarantine is not None
    assert made.quarantine.outcome is Outcome.MARSHAL_ERROR, (
        "what the body deserves, and not what the assembler met"
    )
    assert (assembler.counters.started, assembler.counters.deaths, assembler.counters.given_up) == (2, 1, 0)


@pytest.mark.timeout(300)
async def test_a_turn_that_assemblers_die_of_is_quarantined(assembler: Assembler) -> None:
    made = await _killed_in_the_middle(assembler, 2)
    assert isinstance(made, Record)
    assert made.quarantine is not None
    assert made.quarantine.outcome is Outcome.REDUCER_ERROR
    assert "assembler" in made.quarantine.reason
    kept = quarantine.read(made.body)
    assert kept.request == quarantine.Part(withheld_bytes=len(HOSTILE)), (
        "the worker does not do what killed them"
    )
    assert (assembler.counters.deaths, assembler.counters.given_up) == (2, 1)
    again, _ = await assembler.assemble(captured(*TURN), IDENTITY)
    assert isinstance(again, Record), "the next one has an assembler again"


async def test_a_job_that_cannot_be_written_leaves_no_pipe_out_of_step(assembler: Assembler) -> None:
    """Half of it may be in the pipe already: the next job has another process."""

    class Odd(str):
        """Pickle refuses what is defined here."""

        __slots__ = ()

    job = captured(request_headers(), request(LARGE), *TURN[2:])
    job.head = replace(job.head, headers={"x-odd": Odd("x")})
    made, _ = await assembler.assemble(job, IDENTITY)
    assert isinstance(made, Record)
    assert made.quarantine is not None
    assert made.quarantine.outcome is Outcome.REDUCER_ERROR
    assert await assembler.assemble(captured(*TURN), IDENTITY) == (assemble(captured(*TURN), IDENTITY), ANY)
    assert (assembler.counters.deaths, assembler.counters.jobs) == (2, 1)


@pytest.mark.parametrize(
    ("size", "outcome"), [(2 * LARGE_BYTES, None), (HERE_BYTES + 1, Outcome.REDUCER_ERROR)]
)
async def test_an_assembler_of_another_version_gets_no_job(
    size: int, outcome: Outcome | None, assembler: Assembler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package was replaced under the worker. A turn is made there, as far as that does not hold it long."""
    monkeypatch.setattr("extproc.assemblers.GREETING", b"steno 0.0.1 1".ljust(64))
    body = b'{"model": "m", "messages": ["' + b"x" * size + b'"]}'
    made, _ = await assembler.assemble(captured(request_headers(), request(body), *TURN[2:]), IDENTITY)
    assert isinstance(made, Record)
    assert (made.quarantine and made.quarantine.outcome) is outcome
    assert (assembler.counters.other_version, assembler.counters.jobs, assembler.pid) == (1, 0, None)


async def test_an_assembler_ends_with_its_worker(assembler: Assembler) -> None:
    """Its stdin ends; nobody has to tell it more."""
    await assembler.assemble(captured(*TURN), IDENTITY)
    pid = assembler.pid
    assert pid is not None
    await asyncio.to_thread(assembler.stop)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_drain_ends_in_time_and_the_assembler_with_it_in_the_middle_of_a_job() -> None:
    """The turn that is not kept stays open in the books, for the next process to finish.

    The job cannot end by itself: its assembler stands still.
    """
    rig = Rig(PipelineLimits(max_turns=100, max_bytes=1 << 30))
    rig.conclude(request_headers(), request(HOSTILE), *TURN[2:])
    running = asyncio.ensure_future(rig.pipeline.run())
    await eventually(lambda: rig.pipeline.assembler.pid is not None)
    assert rig.pipeline.assembler.pid is not None
    os.kill(rig.pipeline.assembler.pid, signal.SIGSTOP)
    assert not await rig.pipeline.drain(0.2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    began_s = time.monotonic()
    async with asyncio.timeout(10):
        await asyncio.to_thread(rig.pipeline.assembler.stop)
        await asyncio.get_running_loop().shutdown_default_executor()
    assert time.monotonic() - began_s < 5
    assert rig.pipeline.assembler.pid is None
    assert rig.pipeline.assembler.counters.started == 1
    assert (rig.ledger.open, rig.ledger.imbalance) == (1, 0)


def _not_served_s() -> float:
    """How long this thread could have run, but had no processor. Zero where the system does not say."""
    if not SCHEDULED.exists():
        return 0.0
    return int(SCHEDULED.read_text().split()[1]) / 1e9


async def _held_s(until: asyncio.Event) -> float:
    """The longest work of this process between two times that the loop came round, in CPU seconds: a machine
    that others use too makes the time of day say more. While the loop waits for a processor, other threads of
    the process do not hold it.
    """
    longest = 0.0
    while not until.is_set():
        worked, passed, waited = time.process_time(), time.monotonic(), _not_served_s()
        await asyncio.sleep(0.001)
        worked, passed = time.process_time() - worked, time.monotonic() - passed
        longest = max(longest, min(worked, passed - (_not_served_s() - waited)))
    return longest


@pytest.fixture
def own_heap() -> Iterator[None]:
    """What the tests before this one left is no work of ours: a collection does not walk through it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def _held_until_finished_s(rig: Rig, within_s: float = 100.0) -> float:
    """The same while a rig works off everything."""
    done = asyncio.Event()
    held = asyncio.ensure_future(_held_s(done))
    await rig.finish(within_s)
    done.set()
    return await held


@pytest.mark.usefixtures("own_heap")
async def test_text_that_is_long_to_search_is_not_searched_here() -> None:
    """Bodies just under the size of a large turn that are no JSON, all ended together."""
    rig = Rig(PipelineLimits(max_turns=100, max_bytes=1 << 30))
    for _ in range(4):
        rig.conclude(request_headers(), request(b'{"messages": "' + b"lorem ipsum " * 75_000), *TURN[2:])
    held_s = await _held_until_finished_s(rig)
    await asyncio.to_thread(rig.pipeline.assembler.stop)
    assert rig.ledger.ended[Outcome.MARSHAL_ERROR] == 4
    assert rig.pipeline.assembler.counters.jobs == 4
    assert held_s < LONGEST_S


@pytest.mark.usefixtures("own_heap")
async def test_the_loop_comes_round_between_turns_that_take_milliseconds() -> None:
    """Each is small enough to be made here, but not all of them at once."""
    rig = Rig(PipelineLimits(max_turns=100, max_bytes=1 << 30))
    for _ in range(24):
        rig.conclude(request_headers(), request(b'{"messages": "' + b"lorem ipsum " * 10_000), *TURN[2:])
    held_s = await _held_until_finished_s(rig)
    assert (rig.ledger.ended[Outcome.MARSHAL_ERROR], rig.pipeline.assembler.counters.jobs) == (24, 0)
    assert held_s < LONGEST_S


@pytest.mark.usefixtures("own_heap")
async def test_the_loop_comes_round_between_many_small_turns_that_end_together() -> None:
    """As many as are kept at once: one by one each takes no millisecond, all of them a tenth of a second."""
    rig = Rig(PipelineLimits(max_turns=1000, max_bytes=1 << 30))
    body = b'{"model": "m", "messages": [' + b",".join([b'{"role": "user"}'] * 3_500) + b"]}"
    ended = [concluded(play(request_headers(), request(body), *TURN[2:])) for _ in range(2 * KEEPERS)]
    running = asyncio.ensure_future(rig.pipeline.run())
    rig.sink.gate.set()
    await asyncio.sleep(0.01)
    done = asyncio.Event()
    held = asyncio.ensure_future(_held_s(done))
    for each in ended:
        rig.ledger.observe()
        rig.pipeline.conclude(each)
    assert await rig.pipeline.drain(100.0)
    done.set()
    running.cancel()
    assert rig.ledger.spooled == 2 * KEEPERS
    held_s = await held
    _log.info("held the loop for %.0f ms of CPU at most", held_s * 1000)
    assert held_s < LONGEST_S


LONGEST_S: Final = 0.1
DENSE: Final = b"[" + b"[]," * 5_000_000 + b"[]]"


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((request_headers(), request(b"{" + b"x y " * 6_000_000), *TURN[2:]), id="no json"),
        pytest.param((request_headers(), request(b'{"messages": ' + DENSE + b"}"), *TURN[2:]), id="dense"),
        pytest.param(
            (
                *TURN[:2],
                response_headers("200", content_type="application/json"),
                response(b'{"content": [{"type": "text", "text": "' + b"z" * 32_000_000 + b'"}]}'),
            ),
            id="answer",
        ),
    ],
)
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("own_heap")
async def test_large_bodies_do_not_hold_the_loop(events: tuple[Event, ...]) -> None:
    """Of 15 to 32 MB: the turn is kept, and the loop is never held for more than a tenth of a second."""
    rig = Rig(PipelineLimits(max_turns=100, max_bytes=1 << 30))
    rig.conclude(*events)
    held_s = await _held_until_finished_s(rig, within_s=250.0)
    await asyncio.to_thread(rig.pipeline.assembler.stop)
    assert len(rig.sink.records) == 1
    assert rig.pipeline.assembler.counters.jobs == 1
    _log.info("held the loop for %.0f ms of CPU at most", held_s * 1000)
    assert held_s < LONGEST_S
