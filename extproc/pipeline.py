"""What happens to an exchange after its stream: assemble, keep, count. Never in the reader.

``conclude`` is called by the reader and returns at once. A bounded number of keepers
take what was captured from a queue that is bounded in turns and in bytes; over either
bound the turn is shed with an outcome, and traffic does not notice.

A large turn is made by an assembler (``extproc.assemblers``), so that nothing here holds
the loop for long; large turns have a queue of their own, and small ones do not wait for them.
What an exchange holds of the budget goes back when its turn is on disk or counted.

An exchange that was written down while it was open (``extproc.checkpoints``) has its turn's name
already. Keeping the turn clears what was written; an end without a turn asks for that.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias, TypeVar

from capture.coding import CodingError, CodingFailure, decode
from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, Unmade, quarantined
from extproc.assemblers import Assembler
from extproc.assembling_process import assembled, facts
from extproc.captured import Captured
from extproc.exchange import Concluded
from extproc.logs import Seldom
from extproc.observe import Observer
from extproc.shelf import Shelf, fetch
from extproc.turn_ids import TurnIds
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record, Shed, Sink
from ingest_client.spool.api import Checkpoints

_log = logging.getLogger(__name__)

KEEPERS: Final = 256
"""Turns being kept at once. They mostly wait for one shared commit, which takes so many: with 32 a disk that
needs a fifth of a second for an fsync was the limit at 160 turns a second."""

KEPT_BYTES: Final = 32 << 20
"""Of turns being kept at once: they are made by then, and what the spool takes on trust is bounded too."""

LARGE_BYTES: Final = 1 << 20
"""A larger exchange goes to an assembler: to decode a megabyte takes ten milliseconds."""

SEARCHED_BYTES: Final = 128 << 10
"""More text goes there to be quarantined: it is searched for credentials, at some ten megabytes a second."""

PACED_BYTES: Final = 64 << 10
"""Of turns that take about a millisecond here: so much of them does not follow each other without a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """How much may wait between the reader and the sink."""

    max_turns: int
    max_bytes: int


class _Waiting(NamedTuple):
    """A turn to be kept. ``weight``: what it held when it came; it may hold less when it leaves.
    ``unmade``: it was tried, and is to be quarantined.
    """

    captured: Captured
    weight: int
    unmade: tuple[TurnIdentity, Unmade] | None = None


_Made: TypeAlias = Record | Outcome | _Waiting | None
"""What became of it. None: it stays open, and its snapshot becomes its turn (:func:`_unread`)."""

_Make: TypeAlias = Callable[[_Waiting], Awaitable[_Made]]
_Result = TypeVar("_Result")


class Pipeline:
    """The way from a concluded exchange to a kept turn."""

    def __init__(
        self,
        *,
        sink: Sink,
        checkpoints: Checkpoints,
        ledger: Ledger,
        observer: Observer,
        limits: PipelineLimits,
        wall_ns: Callable[[], int],
        shelf: Shelf | None = None,
        assembler: Assembler | None = None,
    ) -> None:
        """``shelf`` takes large requests (None: they stay in memory), ``assembler`` large turns."""
        self.shelf = shelf or Shelf(None)
        self.assembler = assembler or Assembler()
        self._sink = sink
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._observer = observer
        self._limits = limits
        self._wall_ns = wall_ns
        self._ids = TurnIds()
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._large: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._forgotten: asyncio.Queue[str] = asyncio.Queue()
        self._one = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._begun_bytes = 0
        self._being_kept_bytes = 0
        self._kept_one = asyncio.Event()
        self._shed: Counter[Outcome] = Counter()
        self._seldom = Seldom()
        self._waiting_turns = 0
        self.waiting_bytes = 0

    def name(self) -> str:
        """The name of a new turn."""
        return self._ids.next(self._wall_ns())

    def conclude(self, concluded: Concluded) -> None:
        """Take a concluded exchange over. Returns at once; exactly one outcome follows."""
        captured = concluded.captured
        if concluded.outcome is not None:
            self._end(captured, concluded.outcome)
            captured.release()
            return
        weight = captured.account.held_bytes
        if self._waiting_turns >= self._limits.max_turns:
            self._shed_unmade(captured, Outcome.SEM_FULL)
        elif self.waiting_bytes + weight > self._limits.max_bytes:
            self._shed_unmade(captured, Outcome.OVER_BUDGET)
        else:
            self._waiting_turns += 1
            self.waiting_bytes += weight
            self._queue.put_nowait(_Waiting(captured, weight))

    def _shed_unmade(self, captured: Captured, outcome: Outcome) -> None:
        """Too many turns, or bytes, wait already: the disk or the processor does not keep up."""
        self._end(captured, outcome)
        captured.release()
        self._shed[outcome] += 1
        if self._seldom.due("shed"):
            _log.error(
                "turns are shed: too much waits for reduction and disk",
                extra={
                    "shed_so_far": {each.value: count for each, count in self._shed.items()},
                    "waiting_turns": self._waiting_turns,
                    "waiting_bytes": self.waiting_bytes,
                },
            )

    async def run(self) -> None:
        """Keep turns until cancelled."""
        async with asyncio.TaskGroup() as keepers:
            for _ in range(KEEPERS):
                keepers.create_task(self._keep_forever(self._queue, self._make))
            keepers.create_task(self._keep_forever(self._large, self._make_large))
            keepers.create_task(self._forget_forever())

    async def drain(self, within_s: float | None = None) -> bool:
        """Wait until everything that was concluded has been kept or counted. False: not in that time."""
        try:
            async with asyncio.timeout(within_s):
                await self._queue.join()
                await self._large.join()
                await self._forgotten.join()  # names that both left
        except TimeoutError:
            _log.error("%d ended exchanges are not kept after %.1f s", self._waiting_turns, within_s)
            return False
        return True

    async def _forget_forever(self) -> None:
        """Clear what was written down of exchanges that became no turn: all of them together, for no turn
        waits for a name, and names may wait for a turn.
        """
        while True:
            names = [await self._forgotten.get()]
            while not self._forgotten.empty():
                names.append(self._forgotten.get_nowait())
            found = await asyncio.gather(*map(self._checkpoints.forget, names), return_exceptions=True)
            for error in found:
                if error is not None:
                    _log.error("a snapshot was not cleared", exc_info=error)
                self._forgotten.task_done()

    async def _keep_forever(self, queue: asyncio.Queue[_Waiting], make: _Make) -> None:
        while True:
            job = await queue.get()
            try:
                await self._keep_waiting(job, make)
            except Exception:  # noqa: BLE001 - a bug behind the sink is told, and other turns are kept all the same
                _log.exception("the end of an exchange was not told to all who hear of it")
            finally:
                queue.task_done()

    async def _keep_waiting(self, waiting: _Waiting, make: _Make) -> None:
        captured = waiting.captured
        made: _Made = None
        weight = min(waiting.weight, KEPT_BYTES // 4)  # or a large one would wait for ever among small ones
        await self._let_others(weight)
        await self._room_for(weight)
        try:
            made = await make(waiting)
            if isinstance(made, _Waiting):
                self._large.put_nowait(made)
                return
            answer = await self._kept(captured, made)
        except Exception:  # noqa: BLE001 - our own bug costs this turn, by name, and nothing else
            _log.exception("a turn was not kept", extra=facts(captured, captured.turn_id))
            answer = Outcome.CRASH
        finally:
            self._being_kept_bytes -= weight
            self._kept_one.set()
            if not isinstance(made, _Waiting):
                self._give_back(waiting)
        self._tell(captured, made, answer)

    async def _room_for(self, weight: int) -> None:
        """Wait until so much more may be kept at once."""
        while self._being_kept_bytes + weight > KEPT_BYTES:
            self._kept_one.clear()
            await self._kept_one.wait()
        self._being_kept_bytes += weight

    def _give_back(self, waiting: _Waiting) -> None:
        self._waiting_turns -= 1
        self.waiting_bytes -= waiting.weight
        waiting.captured.release()

    async def _make(self, waiting: _Waiting) -> _Made:
        """Make a turn of it. A ``_Waiting`` that it returns is too much work for here."""
        captured = waiting.captured
        captured.request.pin()
        if captured.reducer is not None:
            for _ in iter(captured.reducer.work, False):
                await asyncio.sleep(0)
        if _work(captured) > LARGE_BYTES:
            return waiting
        if not await fetch(captured.request):
            return _unread(captured)
        if _grows_large(captured):
            return waiting
        return await self._make_small(waiting, self._identity(captured))

    async def _make_small(self, waiting: _Waiting, identity: TurnIdentity) -> _Made:
        captured = waiting.captured
        made = await self._in_turn(_work(captured), partial(assembled, captured, identity))
        if not isinstance(made, Unmade):
            return made
        if made.searched_bytes(captured) > SEARCHED_BYTES:
            return waiting._replace(unmade=(identity, made))
        return await self._in_turn(PACED_BYTES, partial(quarantined, captured, identity, made))

    async def _make_large(self, waiting: _Waiting) -> _Made:
        """In the assembler. One at a time, until it is on disk: memory is promised for one."""
        captured = waiting.captured
        if not await fetch(captured.request):
            return _unread(captured)
        identity, unmade = waiting.unmade or (self._identity(captured), None)
        made, captured.classification = await self.assembler.assemble(captured, identity, unmade)
        return made

    async def _in_turn(self, size: int, work: Callable[[], _Result]) -> _Result:
        """Do what may take milliseconds, in all keepers together once between two rounds of the loop."""
        if size < PACED_BYTES:
            return work()
        async with self._one:
            result = work()
            await asyncio.sleep(0)
            return result

    async def _let_others(self, weight: int) -> None:
        """Let the loop come round when turns of about a millisecond were begun: hundreds may end at once."""
        self._begun_bytes += weight
        if self._begun_bytes >= PACED_BYTES:
            async with self._beginning:
                self._begun_bytes = 0
                await asyncio.sleep(0)

    def _identity(self, captured: Captured) -> TurnIdentity:
        return TurnIdentity(captured.turn_id or self.name())

    async def _kept(self, captured: Captured, made: Record | Outcome | None) -> Kept | Shed | Outcome | None:
        captured.request.let_go()
        captured.reducer = None  # the disk may let us wait
        if not isinstance(made, Record):
            return made
        self._report_quarantine(captured, made)
        return await self._sink.keep(made)

    def _tell(self, captured: Captured, made: _Made, answer: Kept | Shed | Outcome | None) -> None:
        """Count what the sink does not count, and tell who hears of it."""
        match answer:
            case Kept():
                assert isinstance(made, Record)
                self._observer.kept(captured, made)
            case Shed():
                _log.error(
                    "turn shed",
                    extra=facts(captured, made.turn_id if isinstance(made, Record) else "")
                    | {"outcome": answer.outcome.value, "reason": answer.reason},
                )
                self._observer.ended(captured, answer.outcome)
                self._forget(captured)
            case Outcome():
                self._end(captured, answer)
            case None:
                pass

    def _end(self, captured: Captured, outcome: Outcome) -> None:
        self._ledger.end(outcome)
        self._observer.ended(captured, outcome)
        self._forget(captured)

    def _forget(self, captured: Captured) -> None:
        if captured.turn_id:
            self._forgotten.put_nowait(captured.turn_id)

    def _report_quarantine(self, captured: Captured, record: Record) -> None:
        if record.quarantine is not None:
            _log.error(
                "turn quarantined",
                extra=facts(captured, record.turn_id)
                | {"outcome": record.quarantine.outcome.value, "reason": record.quarantine.reason},
            )


def _unread(captured: Captured) -> Outcome | None:
    """What becomes of an exchange whose request the shelf did not give back. Where it is written down, it
    keeps that: nobody refreshes its heartbeat any more, and the sweep finishes it as interrupted.
    """
    if captured.written_down:
        _log.error("a turn will be its last snapshot", extra=facts(captured, captured.turn_id))
        return None
    return Outcome.OVER_BUDGET


def _work(captured: Captured) -> int:
    """Bytes that have to be decoded, searched or written: of a small answer what came, else what is kept."""
    kept = captured.request.kept_bytes + len(captured.held) + len(captured.error_body)
    reducer = captured.reducer
    if reducer is None:
        return kept
    came = reducer.decoded_bytes + reducer.waiting_bytes
    return kept + (came if came < PACED_BYTES else reducer.held_bytes + reducer.waiting_bytes)


def _grows_large(captured: Captured) -> bool:
    """Whether a compressed request is a large one."""
    coding = captured.head.headers.get("content-encoding", "")
    if not coding:
        return False
    try:
        decode(coding, captured.request.joined(), LARGE_BYTES)
    except CodingError as error:
        return error.reason is CodingFailure.OVERSIZE
    return False
