"""How an exchange can end: one closed enum, each member with its state and its owner.

The names of the wire contract (``behaviour.md`` §4) are kept; the ones beyond it
name endings that the contract leaves unsaid. The balance that always holds is

    observed = open + spooled + delivered + dead_lettered + quarantined + lost + excluded

so every exchange has exactly one outcome, or is still open or on its way
(``spooled``, ``delivered``).
"""

from enum import StrEnum, unique
from typing import Final


@unique
class State(StrEnum):
    """The terms of the balance."""

    OPEN = "open"
    SPOOLED = "spooled"
    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"
    QUARANTINED = "quarantined"
    LOST = "lost"
    EXCLUDED = "excluded"


@unique
class Owner(StrEnum):
    """Who decides: the shared policy of capture, or our own plumbing."""

    POLICY = "policy"
    PLUMBING = "plumbing"


@unique
class Outcome(StrEnum):
    """Why an exchange did not become a delivered turn."""

    # Excluded: there is no turn here, or nobody wants it.
    UPSTREAM_STATUS = "upstream_status"
    NON_TURN_REQUEST = "non_turn_request"
    UNKNOWN_PROVIDER = "unknown_provider"
    EMPTY_RESPONSE = "empty_response"
    MISSING_STATUS = "missing_status"
    UPSTREAM_NO_RESPONSE = "upstream_no_response"
    CLIENT_DISCONNECT = "client_disconnect"
    WEBSOCKET = "websocket"
    SINK_UNSUPPORTED = "sink_unsupported"
    POLICY = "policy"
    # Quarantined: kept for a person to look at, because we could not read or write it.
    REQUEST_DECODE = "request_decode"
    RESPONSE_DECODE = "response_decode"
    REDUCER_ERROR = "reducer_error"
    MARSHAL_ERROR = "marshal_error"
    # Dead-lettered: ingest refused it for good.
    INGEST_REJECT = "ingest_reject"
    # Lost, and counted.
    REQUEST_OVER_BUDGET = "request_over_budget"
    SEM_FULL = "sem_full"
    OVER_BUDGET = "over_budget"
    INGEST_TIMEOUT = "ingest_timeout"
    CRASH = "crash"
    VOLUME_DISCARDED = "volume_discarded"
    NOT_SEEN = "not_seen"

    @property
    def state(self) -> State:
        """The term of the balance that counts this outcome."""
        return _STATES[self]

    @property
    def owner(self) -> Owner:
        """Who decided it (``behaviour.md`` §4 names the class of the contract's fifteen)."""
        return Owner.POLICY if self in _POLICY else Owner.PLUMBING


_STATES: Final = {
    **dict.fromkeys(
        (
            Outcome.UPSTREAM_STATUS,
            Outcome.NON_TURN_REQUEST,
            Outcome.UNKNOWN_PROVIDER,
            Outcome.EMPTY_RESPONSE,
            Outcome.MISSING_STATUS,
            Outcome.UPSTREAM_NO_RESPONSE,
            Outcome.CLIENT_DISCONNECT,
            Outcome.WEBSOCKET,
            Outcome.SINK_UNSUPPORTED,
            Outcome.POLICY,
        ),
        State.EXCLUDED,
    ),
    **dict.fromkeys(
        (
            Outcome.REQUEST_DECODE,
            Outcome.RESPONSE_DECODE,
            Outcome.REDUCER_ERROR,
            Outcome.MARSHAL_ERROR,
        ),
        State.QUARANTINED,
    ),
    Outcome.INGEST_REJECT: State.DEAD_LETTERED,
    **dict.fromkeys(
        (
            Outcome.REQUEST_OVER_BUDGET,
            Outcome.SEM_FULL,
            Outcome.OVER_BUDGET,
            Outcome.INGEST_TIMEOUT,
            Outcome.CRASH,
            Outcome.VOLUME_DISCARDED,
            Outcome.NOT_SEEN,
        ),
        State.LOST,
    ),
}

_POLICY: Final = frozenset(
    {
        Outcome.UPSTREAM_STATUS,
        Outcome.NON_TURN_REQUEST,
        Outcome.UNKNOWN_PROVIDER,
        Outcome.EMPTY_RESPONSE,
        Outcome.REQUEST_DECODE,
        Outcome.RESPONSE_DECODE,
        Outcome.REDUCER_ERROR,
        Outcome.WEBSOCKET,
        Outcome.SINK_UNSUPPORTED,
        Outcome.POLICY,
    }
)
