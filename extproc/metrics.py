"""The worker's metrics, in a registry of its own; every row exists from the start.

Outcomes come from the closed enum and the balance from the ledger, so a metric can
never disagree with either. Labels come from closed sets; what is not in them is
``other``.
"""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from capture.outcomes import Outcome, State
from capture.routes import Provider
from extproc.captured import Captured
from extproc.loop_lag import LoopLag
from extproc.transport.base import TransportCounters
from extproc.transport.reasons import Reason
from ingest_client.ledger import Ledger
from ingest_client.sink import Record

_PROVIDERS: Final = frozenset(provider.value for provider in Provider)
_SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300,
)  # fmt: skip
_BYTES: Final = tuple(256.0 * 2.6**step for step in range(14))


class WorkerMetrics:
    """Metrics of one worker process (an ``Observer`` of the pipeline)."""

    def __init__(self, ledger: Ledger, transport: Callable[[], TransportCounters]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Balance(ledger))
        self.registry.register(_Traffic(transport))
        self._ended = Counter(
            "steno_exchanges_ended",
            "Exchanges that ended without a delivered turn, by outcome.",
            ("provider", "outcome", "state", "owner"),
            registry=self.registry,
        )
        self._kept = Counter("steno_turns_kept", "Turns made durable.", ("provider",), registry=self.registry)
        self._duration = Histogram(
            "steno_turn_duration_seconds",
            "From the request's headers to the end of the response.",
            ("provider",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._body_bytes = Histogram(
            "steno_body_bytes",
            "Bytes received of one body.",
            ("provider", "side"),
            buckets=_BYTES,
            registry=self.registry,
        )
        self.loop_lag = LoopLag(self.registry)
        self._make_every_row()

    def kept(self, captured: Captured, record: Record) -> None:
        """A turn (or a quarantined one) is durable."""
        provider = _provider(captured)
        if record.quarantine is not None:
            self._count(provider, record.quarantine.outcome)
        else:
            self._kept.labels(provider).inc()
        if captured.ended is not None:
            elapsed_ns = captured.ended.monotonic_ns - captured.started.monotonic_ns
            self._duration.labels(provider).observe(elapsed_ns / 1e9)
        self._body_bytes.labels(provider, "request").observe(captured.request.received_bytes)
        self._body_bytes.labels(provider, "response").observe(captured.response_bytes)

    def ended(self, captured: Captured, outcome: Outcome) -> None:
        """An exchange ended without one."""
        self._count(_provider(captured), outcome)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def _count(self, provider: str, outcome: Outcome) -> None:
        self._ended.labels(provider, outcome.value, outcome.state.value, outcome.owner.value).inc()

    def _make_every_row(self) -> None:
        for provider in (*sorted(_PROVIDERS), "other"):
            self._kept.labels(provider)
            for outcome in Outcome:
                self._ended.labels(provider, outcome.value, outcome.state.value, outcome.owner.value)


def _provider(captured: Captured) -> str:
    provider = captured.classification.provider
    return provider if provider in _PROVIDERS else "other"


class _Balance:
    """The ledger's terms, read when scraped."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterable[Metric]:
        """The balance: observed, its terms by state and by outcome, and their difference (0, or a bug)."""
        ledger = self._ledger
        yield CounterMetricFamily(
            "steno_exchanges_observed", "Exchanges seen by this sidecar.", value=ledger.observed
        )
        terms = GaugeMetricFamily(
            "steno_exchanges",
            "Where the observed exchanges are now: the terms of the balance.",
            labels=("state",),
        )
        for state in State:
            terms.add_metric([state.value], ledger.total(state))
        yield terms
        outcomes = GaugeMetricFamily(
            "steno_exchange_outcomes",
            "What the terms of the balance are made of, by outcome: also of earlier processes.",
            labels=("outcome", "state"),
        )
        for outcome in Outcome:
            outcomes.add_metric([outcome.value, outcome.state.value], ledger.ended[outcome])
        yield outcomes
        yield GaugeMetricFamily(
            "steno_ledger_imbalance",
            "Observed minus accounted for. Anything but 0 is a bug.",
            value=ledger.imbalance,
        )


class _Traffic:
    """The transport's counters, read when scraped."""

    def __init__(self, transport: Callable[[], TransportCounters]) -> None:
        self._transport = transport

    def collect(self) -> Iterable[Metric]:
        """Streams, messages, and what went wrong with them."""
        counters = self._transport()
        yield GaugeMetricFamily(
            "steno_extproc_streams_open", "ext_proc streams open now.", value=counters.streams_open
        )
        yield CounterMetricFamily(
            "steno_extproc_messages", "ext_proc messages read.", value=counters.messages
        )
        yield CounterMetricFamily(
            "steno_extproc_message_bytes", "Bytes of ext_proc messages read.", value=counters.message_bytes
        )
        yield CounterMetricFamily(
            "steno_extproc_handler_errors",
            "Faults of our own while handling a message. A bug.",
            value=counters.handler_errors,
        )
        undecodable = CounterMetricFamily(
            "steno_extproc_undecodable", "Messages that could not be read.", labels=("reason",)
        )
        for reason, count in counters.undecodable.items():
            undecodable.add_metric([reason.value], count)
        yield undecodable
        broken = CounterMetricFamily(
            "steno_extproc_connections_broken",
            "Connections that the http2 transport ended with a GOAWAY, by what it said.",
            labels=("reason",),
        )
        for why in Reason:
            broken.add_metric([why.value], counters.broken_connections[why])
        yield broken
