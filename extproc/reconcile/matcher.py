"""Served requests against exchanges: a pure machine that gives every one of both a verdict.

    entry(served, now)                       Envoy finished a request
    begun / durable / ended / worker_died    what the workers' lines say
    tick(now) → results                      the verdicts that have become certain

Theory of operation. Both sides wait in a group under their request id. Ids repeat (retries,
clients that reuse one), so a pair is not taken when it is first possible: a group is decided when
one of its members has waited for the whole grace, over all of its members together
(``extproc.reconcile.assignment``), and every member that has waited long enough gets its verdict
then. Only where nothing can be mistaken, one entry and one ended exchange that began together, the
pair is taken at once. Each side is used once.

Memory is bounded: over ``max_waiting`` on a side its oldest member is decided early, with a
verdict that says so. What is not known (before this process began, lines that a worker could not
write, members that were dropped) is an interval of time in which nothing is called lost.

Times: ``now_ns`` is monotonic, moments of entries and exchanges are wall clocks of their writers.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, TypeAlias

from extproc.reconcile.assignment import EARLY_NS, LATE_NS, assign
from extproc.reconcile.entry import Served, ServedEnding, ending_of
from extproc.reconcile.summary import Begun, Durable, Ended

OK: Final = 200
_TOGETHER_NS: Final = 50_000_000
"""Moments so close are one request's, where nothing else has its id."""
_INTERVALS: Final = 64


@unique
class Verdict(StrEnum):
    """What became of an entry. The values are metric labels."""

    MATCHED = "matched"
    NOT_CAPTURED = "not_captured"
    """An exchange is there, but its worker saw no turn where Envoy served one whole."""
    NOT_SEEN = "not_seen"
    NOT_FORWARDED = "not_forwarded"
    """Nobody saw it, and no provider did: Envoy answered by itself, or its client left."""
    BEFORE_START = "before_start"
    LINES_MISSING = "lines_missing"
    OVERFLOW = "overflow"


@unique
class Fate(StrEnum):
    """What became of an exchange. The values are metric labels."""

    MATCHED = "matched"
    NO_RECORD = "no_record"
    NOT_A_TURN = "not_a_turn"
    NOT_DURABLE = "not_durable"
    """Its worker died before the exchange was on disk: as if nobody had seen it."""
    OVERFLOW = "overflow"


@dataclass(slots=True, eq=False)
class Exchange:
    """An exchange of a worker. ``outcome`` None: still open; empty: a turn that is kept."""

    source: int
    number: int
    request_id: str
    wall_ns: int
    outcome: str | None = None
    status: int = 0
    response_bytes: int = 0
    turn_id: str = ""
    due_ns: int = 0
    done: bool = False

    def waited(self, now_ns: int) -> bool:
        """Whether it has ended, and waited for its entry for the whole grace."""
        return self.outcome is not None and self.due_ns <= now_ns


@dataclass(slots=True, eq=False)
class _Entry:
    served: Served
    due_ns: int
    done: bool = False


@dataclass(frozen=True, slots=True)
class EntryResult:
    """The verdict on an entry, with the exchange that it was matched with."""

    served: Served
    verdict: Verdict
    exchange: Exchange | None = None

    @property
    def short(self) -> bool:
        """Whether a turn was kept of which the worker saw fewer bytes than Envoy sent."""
        found = self.exchange
        return (
            found is not None
            and found.outcome == ""
            and ending_of(self.served) is ServedEnding.COMPLETE
            and found.response_bytes < self.served.response_bytes
        )


@dataclass(frozen=True, slots=True)
class ExchangeResult:
    """What became of an exchange."""

    exchange: Exchange
    fate: Fate


Result: TypeAlias = EntryResult | ExchangeResult


@dataclass(slots=True)
class _Group:
    entries: list[_Entry] = field(default_factory=list[_Entry])
    exchanges: list[Exchange] = field(default_factory=list[Exchange])


class Matcher:
    """See the module. ``began_ns`` is the wall time before which nothing is known."""

    def __init__(self, *, grace_ns: int, max_waiting: int, began_ns: int) -> None:
        self._grace_ns = grace_ns
        self._max_waiting = max_waiting
        self._groups: dict[str, _Group] = {}
        self._exchanges: OrderedDict[tuple[int, int], Exchange] = OrderedDict()
        self._entries: deque[_Entry] = deque()
        self._ended: deque[Exchange] = deque()
        self._unknown: deque[tuple[int, int, Verdict]] = deque(maxlen=_INTERVALS)
        self._before_ns = began_ns
        self._results: list[Result] = []
        self._durable: dict[int, int] = {}
        self.waiting_entries = 0

    @property
    def waiting_exchanges(self) -> int:
        """Exchanges without a verdict, open ones included."""
        return len(self._exchanges)

    # -- what comes in --------------------------------------------------------

    def entry(self, served: Served, now_ns: int) -> None:
        """Envoy finished a request."""
        entry = _Entry(served, now_ns + self._grace_ns)
        group = self._group(served.request_id)
        group.entries.append(entry)
        self.waiting_entries += 1
        self._take_the_obvious(group)
        if not entry.done:
            self._entries.append(entry)
        self._tidy(served.request_id)
        if self.waiting_entries > self._max_waiting:
            self._hurry_an_entry()

    def begun(self, source: int, line: Begun) -> None:
        """A stream opened. ``source`` names one life of one worker."""
        exchange = Exchange(source, line.number, line.request_id, line.wall_ns)
        self._exchanges[source, line.number] = exchange
        self._group(line.request_id).exchanges.append(exchange)
        if len(self._exchanges) > self._max_waiting:
            self._hurry_an_exchange()

    def ended(self, source: int, line: Ended, now_ns: int) -> None:
        """An exchange has its place in the ledger. One that was decided already changes nothing."""
        exchange = self._exchanges.get((source, line.number))
        if exchange is None:
            return
        exchange.outcome, exchange.status = line.outcome, line.status
        exchange.response_bytes, exchange.turn_id = line.response_bytes, line.turn_id
        if line.turn:
            self._take_the_obvious(self._group(exchange.request_id))
            self._wait_for_entry(exchange, now_ns)
        else:
            self._part_with(exchange, Fate.NOT_A_TURN)
        self._tidy(exchange.request_id)

    def durable(self, source: int, line: Durable) -> None:
        """A worker's exchanges up to a number are on disk."""
        self._durable[source] = line.number

    def worker_died(self, source: int, now_ns: int, *, outcome: str) -> None:
        """No more lines of ``source``. What it had open and on disk ended with ``outcome``."""
        durable = self._durable.pop(source, 0)
        left = [each for each in self._exchanges.values() if each.source == source and each.outcome is None]
        for exchange in left:
            if exchange.number > durable:
                self._part_with(exchange, Fate.NOT_DURABLE)
            else:
                exchange.outcome = outcome
                self._wait_for_entry(exchange, now_ns)
            self._tidy(exchange.request_id)

    def lines_missing(self, from_ns: int, until_ns: int) -> None:
        """A worker could not tell of exchanges that began between these wall times."""
        self._mark_unknown(from_ns, until_ns, Verdict.LINES_MISSING)

    def tick(self, now_ns: int) -> list[Result]:
        """Decide what has waited long enough; the verdicts since the last tick."""
        while self._entries and (self._entries[0].done or self._entries[0].due_ns <= now_ns):
            entry = self._entries.popleft()
            if not entry.done:
                self._decide(entry.served.request_id, now_ns)
        while self._ended and (self._ended[0].done or self._ended[0].due_ns <= now_ns):
            exchange = self._ended.popleft()
            if not exchange.done:
                self._decide(exchange.request_id, now_ns)
        results, self._results = self._results, []
        return results

    def finish(self) -> list[Result]:
        """Decide everything: no more lines will come."""
        return self.tick(_FOREVER)

    # -- deciding -------------------------------------------------------------

    def _take_the_obvious(self, group: _Group) -> None:
        if len(group.entries) != 1 or len(group.exchanges) != 1:
            return
        entry, exchange = group.entries[0], group.exchanges[0]
        if exchange.outcome is not None and (abs(exchange.wall_ns - entry.served.start_ns) <= _TOGETHER_NS):
            self._pair(group, entry, exchange)

    def _decide(self, request_id: str, now_ns: int) -> None:
        """Decide a group: everybody in it who has waited long enough gets a verdict."""
        group = self._groups[request_id]
        group.entries.sort(key=lambda each: each.served.start_ns)
        group.exchanges.sort(key=lambda each: each.wall_ns)
        pairs = assign(
            [each.served.start_ns for each in group.entries], [each.wall_ns for each in group.exchanges]
        )
        entries, exchanges = tuple(group.entries), tuple(group.exchanges)
        for i, entry in enumerate(entries):
            exchange = exchanges[pairs[i]] if i in pairs else None
            if exchange is not None and (entry.due_ns <= now_ns or exchange.waited(now_ns)):
                self._pair(group, entry, exchange)
            elif exchange is None and entry.due_ns <= now_ns:
                self._leave(group, entry, self._unmatched(entry.served))
        paired = set(pairs.values())
        for j, exchange in enumerate(exchanges):
            if j not in paired and exchange.waited(now_ns):
                self._part_with(exchange, Fate.NO_RECORD)
        self._tidy(request_id)

    def _pair(self, group: _Group, entry: _Entry, exchange: Exchange) -> None:
        verdict = Verdict.NOT_CAPTURED if _hollow(entry.served, exchange) else Verdict.MATCHED
        self._leave(group, entry, verdict, exchange)
        self._part_with(exchange, Fate.MATCHED)

    def _unmatched(self, served: Served) -> Verdict:
        if not served.forwarded:
            return Verdict.NOT_FORWARDED
        if served.start_ns < self._before_ns:
            return Verdict.BEFORE_START
        for low, high, verdict in self._unknown:
            if low - LATE_NS <= served.start_ns <= high + EARLY_NS:
                return verdict
        return Verdict.NOT_SEEN

    def _mark_unknown(self, from_ns: int, until_ns: int, verdict: Verdict) -> None:
        """Remember an interval; with the one before it when that is of the same kind."""
        if self._unknown and self._unknown[-1][2] is verdict:
            low, high, _ = self._unknown.pop()
            from_ns, until_ns = min(low, from_ns), max(high, until_ns)
        self._unknown.append((from_ns, until_ns, verdict))

    # -- bookkeeping ----------------------------------------------------------

    def _group(self, request_id: str) -> _Group:
        return self._groups.setdefault(request_id, _Group())

    def _tidy(self, request_id: str) -> None:
        group = self._groups.get(request_id)
        if group is not None and not group.entries and not group.exchanges:
            del self._groups[request_id]

    def _wait_for_entry(self, exchange: Exchange, now_ns: int) -> None:
        exchange.due_ns = now_ns + self._grace_ns
        if not exchange.done:
            self._ended.append(exchange)

    def _leave(
        self, group: _Group, entry: _Entry, verdict: Verdict, exchange: Exchange | None = None
    ) -> None:
        entry.done = True
        group.entries.remove(entry)
        self.waiting_entries -= 1
        self._results.append(EntryResult(entry.served, verdict, exchange))

    def _part_with(self, exchange: Exchange, fate: Fate) -> None:
        exchange.done = True
        self._groups[exchange.request_id].exchanges.remove(exchange)
        del self._exchanges[exchange.source, exchange.number]
        self._results.append(ExchangeResult(exchange, fate))

    def _hurry_an_entry(self) -> None:
        while self._entries[0].done:
            self._entries.popleft()
        entry = self._entries.popleft()
        self._leave(self._groups[entry.served.request_id], entry, Verdict.OVERFLOW)
        self._tidy(entry.served.request_id)

    def _hurry_an_exchange(self) -> None:
        """Drop the oldest; whose entry it was cannot be told any more."""
        _, exchange = next(iter(self._exchanges.items()))
        self._mark_unknown(exchange.wall_ns, exchange.wall_ns, Verdict.OVERFLOW)
        self._part_with(exchange, Fate.OVERFLOW)
        self._tidy(exchange.request_id)


_FOREVER: Final = 1 << 80
_HOLLOW: Final = frozenset({"client_disconnect", "upstream_no_response", "missing_status"})


def _hollow(served: Served, exchange: Exchange) -> bool:
    """Whether the worker tells of an exchange that came to nothing where Envoy served a turn.

    The stream was cut on its way to the worker: what the worker excluded had an answer. Envoy's
    word decides where it served the whole, or where the worker got none of the answer's bytes.
    """
    if served.status != OK or not served.response_bytes or exchange.outcome not in _HOLLOW:
        return False
    return ending_of(served) is ServedEnding.COMPLETE or not exchange.response_bytes
