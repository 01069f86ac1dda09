"""The counts of reconciliation, as metrics; every row is there from the start."""

from collections import Counter as Counts
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from extproc.reconcile.entry import ServedEnding, ending_of
from extproc.reconcile.matcher import EntryResult, ExchangeResult, Fate, Verdict

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STATUSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class Tally:
    """Counters of one supervisor, from its start. The ledger's own are durable."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.verdicts: Counts[Verdict] = Counts()
        self.fates: Counts[Fate] = Counts()
        self.endings: Counts[ServedEnding] = Counts()
        self.short = 0
        self._entries = Counter(
            "steno_access_log_entries",
            "Turn requests in Envoy's access log, by what became of them here and how Envoy says they ended.",
            ("verdict", "ending"),
            registry=self.registry,
        )
        self._exchanges = Counter(
            "steno_access_log_exchanges",
            "Exchanges of the workers, by what Envoy's access log made of them.",
            ("fate",),
            registry=self.registry,
        )
        self._status = Counter(
            "steno_access_log_status",
            "Turn requests in Envoy's access log, by the status that their clients got.",
            ("status",),
            registry=self.registry,
        )
        self._bytes = Counter(
            "steno_access_log_body_bytes",
            "Body bytes of turn requests, in Envoy's count.",
            ("side", "ending"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "steno_access_log_duration_seconds",
            "How long turn requests took, in Envoy's count.",
            ("ending",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._short = Counter(
            "steno_access_log_short_turns",
            "Turns that were kept with fewer bytes than Envoy sent to the client.",
            registry=self.registry,
        )
        self.other_requests = Counter(
            "steno_access_log_other_requests",
            "Requests in Envoy's access log that are no turn requests.",
            registry=self.registry,
        )
        self.unreadable = Counter(
            "steno_access_log_unreadable",
            "Messages of the access log, and lines of workers, that could not be read.",
            ("source",),
            registry=self.registry,
        )
        self.lines_missing = Counter(
            "steno_access_log_lines_missing",
            "Lines that workers could not write, because the supervisor did not read them in time.",
            registry=self.registry,
        )
        self.faults = Counter(
            "steno_access_log_faults",
            "Faults of our own in reconciliation. A bug; what it concerned may be missing in these counts.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "steno_access_log_waiting",
            "Entries and exchanges that wait for each other; open exchanges included.",
            ("side",),
            registry=self.registry,
        )
        self.uncounted = Gauge(
            "steno_access_log_uncounted",
            "Turns that were not seen and are not in a worker's ledger yet.",
            registry=self.registry,
        )
        self._make_every_row()

    def entry(self, result: EntryResult) -> None:
        """Count a verdict on an entry."""
        served, ending = result.served, ending_of(result.served)
        self.verdicts[result.verdict] += 1
        self.endings[ending] += 1
        self._entries.labels(result.verdict.value, ending.value).inc()
        self._status.labels(_class(served.status)).inc()
        self._bytes.labels("request", ending.value).inc(served.request_bytes)
        self._bytes.labels("response", ending.value).inc(served.response_bytes)
        self._duration.labels(ending.value).observe(max(0, served.duration_ns) / 1e9)
        if result.short:
            self.short += 1
            self._short.inc()

    def exchange(self, result: ExchangeResult) -> None:
        """Count what became of an exchange."""
        self.fates[result.fate] += 1
        self._exchanges.labels(result.fate.value).inc()

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def state(self) -> dict[str, object]:
        """The counts for the state page."""
        return {
            "entries": {verdict.value: self.verdicts[verdict] for verdict in Verdict},
            "endings": {ending.value: self.endings[ending] for ending in ServedEnding},
            "exchanges": {fate.value: self.fates[fate] for fate in Fate},
            "short_turns": self.short,
        }

    def _make_every_row(self) -> None:
        for ending in ServedEnding:
            for verdict in Verdict:
                self._entries.labels(verdict.value, ending.value)
            for side in ("request", "response"):
                self._bytes.labels(side, ending.value)
            self._duration.labels(ending.value)
        for fate in Fate:
            self._exchanges.labels(fate.value)
        for status in _STATUSES:
            self._status.labels(status)
        for source in ("envoy", "worker"):
            self.unreadable.labels(source)
        for side in ("entries", "exchanges"):
            self.waiting.labels(side)


def _class(status: int) -> str:
    name = f"{status // 100}xx"
    return name if name in _STATUSES else "none"
