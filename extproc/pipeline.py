"""What happens to an exchange after its stream: assemble, keep, count. Never in the reader.

``conclude`` is called by the reader and returns at once. A bounded number of keepers
take what was captured from a queue that is bounded in turns and in bytes; over either
bound the turn is shed with an outcome, and traffic does not notice.

An exchange that was written down while it was open (``extproc.checkpoints``) has its turn's name
already. Keeping the turn clears what was written; an end without a turn asks for that.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, assemble, quarantined
from extproc.exchange import Captured, Concluded
from extproc.observe import Observer
from extproc.turn_ids import TurnIds
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record, Shed, Sink
from ingest_client.spool.api import Checkpoints

_log = logging.getLogger(__name__)

KEEPERS: Final = 32
"""Turns being kept at once. They mostly wait for one shared commit."""

LARGE_BYTES: Final = 1 << 20
"""A larger exchange is assembled in a thread, one at a time: should it end in quarantine, its text
is searched for credentials, at some ten megabytes a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLimits:
    """How much may wait between the reader and the sink."""

    max_turns: int
    max_bytes: int


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
    ) -> None:
        self._sink = sink
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._observer = observer
        self._limits = limits
        self._wall_ns = wall_ns
        self._ids = TurnIds()
        # A name alone: the end of an exchange that was written down and became no turn.
        self._queue: asyncio.Queue[Captured | str] = asyncio.Queue()
        self._one_large = asyncio.Semaphore(1)
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
            return
        weight = _weight(captured)
        if self._waiting_turns >= self._limits.max_turns:
            self._end(captured, Outcome.SEM_FULL)
        elif self.waiting_bytes + weight > self._limits.max_bytes:
            self._end(captured, Outcome.OVER_BUDGET)
        else:
            self._waiting_turns += 1
            self.waiting_bytes += weight
            self._queue.put_nowait(captured)

    async def run(self) -> None:
        """Keep turns until cancelled."""
        async with asyncio.TaskGroup() as keepers:
            for _ in range(KEEPERS):
                keepers.create_task(self._keep_forever())

    async def drain(self) -> None:
        """Wait until everything that was concluded has been kept or counted."""
        await self._queue.join()

    async def _keep_forever(self) -> None:
        while True:
            job = await self._queue.get()
            try:
                if isinstance(job, str):
                    await self._checkpoints.forget(job)
                else:
                    await self._keep_waiting(job)
            except Exception:  # noqa: BLE001 - a bug behind the sink is told, and other turns are kept all the same
                _log.exception("a turn was not kept")
            finally:
                self._queue.task_done()

    async def _keep_waiting(self, captured: Captured) -> None:
        weight = _weight(captured)
        try:
            await self._keep(captured)
        finally:
            self._waiting_turns -= 1
            self.waiting_bytes -= weight

    async def _keep(self, captured: Captured) -> None:
        identity = TurnIdentity(captured.turn_id or self.name())
        if _weight(captured) > LARGE_BYTES:
            async with self._one_large:
                made = await asyncio.to_thread(_assembled, captured, identity)
        else:
            made = _assembled(captured, identity)
        if isinstance(made, Outcome):
            self._end(captured, made)
            return
        self._report_quarantine(captured, made)
        answer = await self._sink.keep(made)
        match answer:
            case Kept():
                self._observer.kept(captured, made)
            case Shed():
                _log.error(
                    "turn shed",
                    extra=_facts(captured, made.turn_id)
                    | {"outcome": answer.outcome.value, "reason": answer.reason},
                )
                self._observer.ended(captured, answer.outcome)
                self._forget(captured)

    def _end(self, captured: Captured, outcome: Outcome) -> None:
        self._ledger.end(outcome)
        self._observer.ended(captured, outcome)
        self._forget(captured)

    def _forget(self, captured: Captured) -> None:
        if captured.turn_id:
            self._queue.put_nowait(captured.turn_id)

    def _report_quarantine(self, captured: Captured, record: Record) -> None:
        if record.quarantine is not None:
            _log.error(
                "turn quarantined",
                extra=_facts(captured, record.turn_id)
                | {"outcome": record.quarantine.outcome.value, "reason": record.quarantine.reason},
            )


def _assembled(captured: Captured, identity: TurnIdentity) -> Record | Outcome:
    try:
        return assemble(captured, identity)
    except Exception as error:  # noqa: BLE001 - our own bug must not cost the turn: it is kept and reported
        _log.exception("turn could not be assembled", extra=_facts(captured, identity.turn_id))
        return quarantined(
            captured, identity, Outcome.REDUCER_ERROR, f"internal error: {type(error).__name__}: see the log"
        )


def _weight(captured: Captured) -> int:
    return captured.request.kept_bytes + captured.response_bytes


def _facts(captured: Captured, turn_id: str) -> dict[str, object]:
    """What a log line says of an exchange: names, never contents."""
    return {
        "turn_id": turn_id,
        "tenant": captured.policy.tenant,
        "provider": captured.classification.provider,
        "endpoint": captured.classification.endpoint,
        "client_request_id": captured.envelope.request_id[:128],
        "status": captured.status,
        "response_bytes": captured.response_bytes,
    }
