"""One request as Envoy's access log tells it, and how Envoy says it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final


@unique
class ServedEnding(StrEnum):
    """How a request ended, in Envoy's eyes. The values are metric labels."""

    COMPLETE = "complete"
    CLIENT_ABORT = "client_abort"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_FAILURE = "upstream_failure"
    TIMEOUT = "timeout"
    LOCAL_REPLY = "local_reply"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request that Envoy has finished.

    ``start_ns`` is Envoy's wall clock. ``status`` is 0 when no answer began. ``forwarded``: an
    upstream had a part in it; without one there can be no turn. ``failed_open`` is the capture
    filter's own word, None when it left none. Byte counts are of bodies, as its client saw them.
    """

    request_id: str
    start_ns: int
    duration_ns: int
    method: str
    host: str
    path: str
    status: int
    details: str
    flags: tuple[str, ...]
    request_bytes: int
    response_bytes: int
    forwarded: bool
    failed_open: bool | None
    capture_bytes: int | None


# The first row that has one of the entry's flags decides. The client's part comes first: when it
# leaves, Envoy resets the upstream too.
_BY_FLAG: Final[tuple[tuple[frozenset[str], ServedEnding], ...]] = (
    (
        frozenset({"downstream_connection_termination", "downstream_remote_reset"}),
        ServedEnding.CLIENT_ABORT,
    ),
    (
        frozenset(
            {
                "upstream_request_timeout",
                "stream_idle_timeout",
                "duration_timeout",
                "upstream_max_stream_duration_reached",
            }
        ),
        ServedEnding.TIMEOUT,
    ),
    (
        frozenset(
            {"upstream_remote_reset", "upstream_connection_termination", "upstream_protocol_error"},
        ),
        ServedEnding.UPSTREAM_RESET,
    ),
    (
        frozenset(
            {
                "failed_local_healthcheck",
                "no_healthy_upstream",
                "upstream_connection_failure",
                "upstream_overflow",
                "upstream_retry_limit_exceeded",
                "no_cluster_found",
                "dns_resolution_failure",
            }
        ),
        ServedEnding.UPSTREAM_FAILURE,
    ),
)

# Response code details where the flags say nothing: Envoy's own documented words.
_BY_DETAILS: Final[Mapping[str, ServedEnding]] = {
    "via_upstream": ServedEnding.COMPLETE,
    "downstream_": ServedEnding.CLIENT_ABORT,
    "upstream_reset": ServedEnding.UPSTREAM_RESET,
    "upstream_response_timeout": ServedEnding.TIMEOUT,
    "upstream_": ServedEnding.UPSTREAM_FAILURE,
}


def ending_of(served: Served) -> ServedEnding:
    """How the request ended."""
    for flags, ending in _BY_FLAG:
        if not flags.isdisjoint(served.flags):
            return ending
    for prefix, ending in _BY_DETAILS.items():
        if served.details.startswith(prefix):
            return ending
    return ServedEnding.OTHER if served.forwarded else ServedEnding.LOCAL_REPLY
