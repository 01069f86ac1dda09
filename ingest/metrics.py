"""The metrics: the contract's own names always (``contracts/behaviour.md`` §9), ours beside them.

One registry, made by the application. Labels come from closed sets: a provider that is
none of ours is ``other``, an empty one ``unknown`` (the reference folds nothing).
"""

from enum import StrEnum, unique
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.judgement import PROVIDERS
from ingest.limits import Excess
from ingest.rawonly import STAMPS

_SIZES: Final = tuple(256.0 * 2.6085**step for step in range(14))


@unique
class WriteStatus(StrEnum):
    """What became of a posted turn, in the contract's words."""

    ACCEPTED = "accepted"
    REJECT_ENVELOPE = "reject_envelope"
    REJECT_PARSE = "reject_parse"
    UNKNOWN_PROVIDER = "unknown_provider"
    DOWNSTREAM_ERROR = "downstream_error"
    QUEUE_BYTE_BUDGET = "queue_byte_budget"
    QUEUE_FULL = "queue_full"
    REJECT_OVERSIZE = "reject_oversize"
    REJECT_ACCESS = "reject_access"
    REJECT_QUOTA = "reject_quota"
    INTERNAL_ERROR = "internal_error"


@unique
class ChannelFailure(StrEnum):
    """What went wrong between instances that tell each other of events."""

    PAYLOAD = "payload"
    """Something was told that is no list of events; what follows is heard."""
    CHANNEL = "channel"
    """Listening failed, and began again after a moment."""


@unique
class Closed(StrEnum):
    """Why a connection was closed before it asked for anything."""

    NO_HEAD = "no_head"
    """No whole head of a request came in time."""
    CROWDED = "crowded"
    """As many were open as there are files for."""


def provider_label(provider: str) -> str:
    """The provider, folded into a closed set."""
    if not provider:
        return "unknown"
    return provider if provider in PROVIDERS else "other"


class Metrics:
    """Every series of the service; all rows with closed labels exist from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.writes = Counter(
            "tapes_ingest_writes_total",
            "Turns posted, by what became of them.",
            ("provider", "status"),
            registry=registry,
        )
        self.dag_write = Histogram(
            "tapes_ingest_dag_write_seconds",
            "Time from a judged turn to its durable commit.",
            ("provider",),
            registry=registry,
        )
        self.queue_depth = Gauge(
            "tapes_ingest_worker_queue_depth", "Writes that are not durable yet.", registry=registry
        )
        self.body_bytes = Histogram(
            "tapes_ingest_body_bytes",
            "Bytes of accepted bodies.",
            ("provider",),
            buckets=_SIZES,
            registry=registry,
        )
        self.stamps = Counter(
            "tapes_ingest_rawonly_stamp_total",
            "Raw-only turns, by where their times came from.",
            ("provider", "field", "source"),
            registry=registry,
        )
        self.duplicates = Counter(
            "steno_ingest_duplicates_total", "Turns that were stored already.", registry=registry
        )
        self.reused_ids = Counter(
            "steno_ingest_reused_request_ids_total",
            "New turns under a request id that had another body before.",
            registry=registry,
        )
        self.throttled = Counter(
            "steno_ingest_throttled_turns_total",
            "Turns answered 429, by the limit their tenant was over.",
            ("limit",),
            registry=registry,
        )
        self.channel_failures = Counter(
            "steno_ingest_event_channel_failures_total",
            "Failures of the channel on which instances tell each other of events: listeners missed some.",
            ("kind",),
            registry=registry,
        )
        self.closed = Counter(
            "steno_ingest_connections_closed_total",
            "Connections closed while no request of theirs was at work, by why.",
            ("reason",),
            registry=registry,
        )
        self.derived = Counter(
            "steno_ingest_derived_turns_total", "Turns derived.", ("result",), registry=registry
        )
        self.derive_lag = Gauge(
            "steno_ingest_derive_lag_turns", "Stored turns that are not derived yet.", registry=registry
        )
        self.derive_lag_seconds = Gauge(
            "steno_ingest_derive_lag_seconds", "Age of the oldest turn not derived yet.", registry=registry
        )
        for provider in (*PROVIDERS, "unknown", "other"):
            for status in WriteStatus:
                self.writes.labels(provider, status)
            self.dag_write.labels(provider)
            self.body_bytes.labels(provider)
            for field, source in STAMPS:
                self.stamps.labels(provider, field, source)
        for kind in ChannelFailure:
            self.channel_failures.labels(kind)
        for reason in Closed:
            self.closed.labels(reason)
        for excess in Excess:
            self.throttled.labels(excess)
        for result in ("ok", "failed"):
            self.derived.labels(result)
