"""The supervisor's side: entries from Envoy and lines from workers into the matcher, verdicts out.

A verdict is counted (``tally``) and shown for a while with Envoy's own details and the turn's id;
what is not a plain match is logged with them, and what was not seen is told to a worker, whose
ledger counts it (``debts``).
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import msgspec

from capture.classify import Classifier, RequestHead, classify
from capture.routes import Kind
from extproc.reconcile.debts import Debts
from extproc.reconcile.entry import Served, ending_of
from extproc.reconcile.matcher import EntryResult, Matcher, Result, Verdict
from extproc.reconcile.summary import Begun, Counted, Durable, Ended, Gap, decode_line, encode
from extproc.reconcile.tally import Tally
from extproc.transport.address import Address

_log = logging.getLogger(__name__)

TICK_S: Final = 0.5
MAX_WAITING: Final = 100_000
"""On each side; about 100 MiB when both are full. A grace of 30 s has room for 3,300 requests a second."""
LINES_A_TICK: Final = 20
"""So many verdicts are logged in one tick; the others are counted in one line."""
RECENT: Final = 50
"""Requests that the state page has with everything that Envoy says of them."""
_LAST_LINES_S: Final = 3.0


class WorkerLife:
    """One life of one worker: the lines it writes, and the way to send it some."""

    def __init__(self, source: int, send: Callable[[bytes], None]) -> None:
        self.source = source
        self.send = send


class Reconciler:
    """See the module. One for each supervisor that reads Envoy's access log."""

    def __init__(self, address: Address, *, data_dir: Path, classifier: Classifier, grace_s: float) -> None:
        from extproc.reconcile.als import AccessLogServer  # noqa: PLC0415 - gRPC: see extproc.app

        self._server = AccessLogServer(address, self._receive)
        self._classifier = classifier
        self._matcher = Matcher(
            grace_ns=round(grace_s * 1e9),
            max_waiting=MAX_WAITING,
            began_ns=time.time_ns(),
        )
        self._debts = Debts(data_dir / "access-log-uncounted.json")
        self._tally = Tally()
        self._recent: deque[EntryResult] = deque(maxlen=RECENT)
        self._lives: dict[int, WorkerLife] = {}
        self._sources = 0
        self._silent = asyncio.Event()
        self._silent.set()

    @property
    def address(self) -> Address:
        """Where Envoy's access log arrives."""
        return self._server.address

    async def start(self) -> None:
        """Serve. Raises ``AddressError`` when the address cannot be had."""
        await self._server.start()
        self._debts.load()

    def classify_by(self, classifier: Classifier) -> None:
        """The settings have changed: other requests may be turns from now on."""
        self._classifier = classifier

    async def run(self) -> None:
        """Decide and report until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            with self._fault_stays_here():
                self.tick()

    async def stop(self) -> None:
        """Once all workers are gone: read their last lines, decide what waits, keep what is owed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._silent.wait(), _LAST_LINES_S)
        await self._server.stop()
        with self._fault_stays_here():
            self._report(self._matcher.finish())
        self._debts.save()

    def tick(self) -> None:
        """Decide what has waited long enough, and have a worker count what was not seen."""
        self._report(self._matcher.tick(time.monotonic_ns()))
        for life in self._lives.values():
            for missed in self._debts.tell(life.source):
                life.send(encode(missed))

    # -- workers --------------------------------------------------------------

    async def follow(self, lines: asyncio.StreamReader, send: Callable[[bytes], None]) -> None:
        """Read one life of a worker to its end. ``send`` writes to it; it must not raise."""
        self._sources += 1
        life = WorkerLife(self._sources, send)
        self._lives[life.source] = life
        self._silent.clear()
        try:
            while line := await _next_line(lines):
                with self._fault_stays_here():
                    self._take(life.source, line)
        finally:
            del self._lives[life.source]
            if not self._lives:
                self._silent.set()
            self._debts.died(life.source)
            with self._fault_stays_here():
                # Its spool finishes what it had on disk: as interrupted turns, or as lost in the crash.
                self._matcher.worker_died(life.source, time.monotonic_ns(), outcome="crash")

    @contextlib.contextmanager
    def _fault_stays_here(self) -> Generator[None]:
        """A bug in the accounting must not take down the workers' supervisor: it is counted and logged."""
        try:
            yield
        except Exception:  # noqa: BLE001 - whatever breaks here, turns must still be captured
            self._tally.faults.inc()
            _log.exception("reconciliation failed; capture goes on")

    def _take(self, source: int, text: bytes) -> None:
        try:
            line = decode_line(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._tally.unreadable.labels("worker").inc()
            _log.warning("a worker's line cannot be read", extra={"reason": str(error)})
            return
        match line:
            case Begun():
                self._matcher.begun(source, line)
            case Ended():
                self._matcher.ended(source, line, time.monotonic_ns())
            case Durable():
                self._matcher.durable(source, line)
            case Counted():
                self._debts.counted(source, line)
            case Gap():
                self._tally.lines_missing.inc(line.lines)
                self._matcher.lines_missing(line.from_ns, line.until_ns)
                _log.error("a worker could not tell of its exchanges", extra={"lines": line.lines})

    # -- Envoy ----------------------------------------------------------------

    def _receive(self, entries: list[Served] | None) -> None:
        if entries is None:
            self._tally.unreadable.labels("envoy").inc()
            _log.error("a message of the access log cannot be read")
            return
        now_ns = time.monotonic_ns()
        for served in entries:
            with self._fault_stays_here():
                self._sort_in(served, now_ns)

    def _sort_in(self, served: Served, now_ns: int) -> None:
        head = RequestHead(served.method, served.host, served.path)
        if classify(head, self._classifier).kind is Kind.NON_TURN:
            self._tally.other_requests.inc()
        else:
            self._matcher.entry(served, now_ns)

    # -- verdicts -------------------------------------------------------------

    def _report(self, results: list[Result]) -> None:
        told = 0
        for result in results:
            if not isinstance(result, EntryResult):
                self._tally.exchange(result)
                continue
            self._tally.entry(result)
            self._recent.appendleft(result)
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("what Envoy says of a turn request", extra=_facts(result))
            self._owe(result)
            if result.verdict not in _PLAIN or result.short:
                told += 1
                if told <= LINES_A_TICK:
                    _log.log(
                        _LEVELS.get(result.verdict, logging.WARNING),
                        _TEXTS[result.verdict],
                        extra=_facts(result),
                    )
        if told > LINES_A_TICK:
            _log.error("more turn requests were not matched", extra={"requests": told - LINES_A_TICK})

    def _owe(self, result: EntryResult) -> None:
        if result.verdict is Verdict.NOT_SEEN:
            self._debts.add()
        elif result.verdict is Verdict.NOT_CAPTURED and result.exchange is not None:
            self._debts.add(result.exchange.outcome or "")

    # -- pages ----------------------------------------------------------------

    def metrics(self) -> bytes:
        """The exposition text."""
        self._tally.waiting.labels("entries").set(self._matcher.waiting_entries)
        self._tally.waiting.labels("exchanges").set(self._matcher.waiting_exchanges)
        self._tally.uncounted.set(self._debts.total)
        return self._tally.render()

    def state(self) -> dict[str, object]:
        """The section of the state page."""
        return {
            "listen": str(self.address),
            **self._tally.state(),
            "waiting_entries": self._matcher.waiting_entries,
            "waiting_exchanges": self._matcher.waiting_exchanges,
            "uncounted": self._debts.total,
            "recent": [_facts(result) for result in self._recent],
        }


_PLAIN: Final = frozenset({Verdict.MATCHED, Verdict.NOT_FORWARDED})
_LEVELS: Final = {Verdict.NOT_SEEN: logging.ERROR, Verdict.NOT_CAPTURED: logging.ERROR}
_TEXTS: Final = {
    Verdict.MATCHED: "a turn was kept with fewer bytes than its client got",
    Verdict.NOT_CAPTURED: "a turn was served, but only its stream was seen",
    Verdict.NOT_SEEN: "a turn was served, but not seen",
    Verdict.NOT_FORWARDED: "a request was answered by Envoy itself",
    Verdict.BEFORE_START: "a turn was served that began before this process: an earlier one may have seen it",
    Verdict.LINES_MISSING: "a turn was served while a worker could not tell of its exchanges",
    Verdict.OVERFLOW: "a turn was served while too many waited: it may have been seen",
}


def _facts(result: EntryResult) -> dict[str, object]:
    """What log and state page say of a request: Envoy's words, never contents (a query may hold a key)."""
    served, found = result.served, result.exchange
    return {
        "verdict": result.verdict.value,
        "outcome": "not_seen"
        if result.verdict in _LEVELS
        else (found.outcome if found is not None else None),
        "ending": ending_of(served).value,
        "client_request_id": served.request_id,
        "turn_id": found.turn_id if found is not None else "",
        "started_ns": served.start_ns,
        "duration_s": served.duration_ns / 1e9,
        "host": served.host[:128],
        "path": served.path.partition("?")[0][:256],
        "status": served.status,
        "details": served.details[:256],
        "flags": served.flags,
        "request_bytes": served.request_bytes,
        "response_bytes": served.response_bytes,
        "seen_bytes": found.response_bytes if found is not None else 0,
        "failed_open": served.failed_open,
        "capture_bytes_sent": served.capture_bytes,
    }


async def _next_line(lines: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end. A line without end is what a dying worker left."""
    try:
        return await lines.readline()
    except ValueError:  # longer than any line of ours: skipped by the reader, and unreadable
        return b"\n"
