"""What an answer means: accepted, refused for good, hold the endpoint, or try again.

The table is the rule of the wire contract (``wire.md`` §7) made total: every status has
a fate, and a status that nobody foresaw never loses a turn and never counts as success.
An acceptance is a *complete* answer: a 202 status line whose headers or body never end
proves nothing.

``Scope`` says whom it concerns. 403 and 429 concern one tenant at one endpoint (a
writer's key may cover some tenants only, and quotas are per tenant), so they never hold
up the others there.
"""

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final


@unique
class Fate(StrEnum):
    """What becomes of the turn now."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """It concerns the turn, and will not get better: dead letter."""
    HOLD = "hold"
    """It concerns the endpoint: stop sending there, tell people, look again later."""
    RETRY = "retry"


@unique
class Scope(StrEnum):
    """Whom the answer concerns."""

    TURN = "turn"
    TENANT = "tenant"
    ENDPOINT = "endpoint"


@unique
class Reason(StrEnum):
    """Why, in the words of counters, attempts and log lines."""

    ACCEPTED = "accepted"
    # Refused: the turn.
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNPROCESSABLE = "unprocessable"
    # Hold: the endpoint, or our credentials there.
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REDIRECTED = "redirected"
    UNEXPECTED_STATUS = "unexpected_status"
    TLS_FAILED = "tls_failed"
    CREDENTIALS_UNREADABLE = "credentials_unreadable"
    # Retry: the world.
    REQUEST_TIMEOUT = "request_timeout"
    TOO_EARLY = "too_early"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    CONNECTION_LOST = "connection_lost"
    TIMED_OUT = "timed_out"
    ANSWER_TOO_LARGE = "answer_too_large"
    ANSWER_MALFORMED = "answer_malformed"
    # Retry: between us and the endpoint, about the form of the request.
    CODING_REFUSED = "coding_refused"
    BATCH_UNSUPPORTED = "batch_unsupported"
    BATCH_TOO_LARGE = "batch_too_large"
    BATCH_UNDECIDED = "batch_undecided"
    SHUTDOWN = "shutdown"
    OUR_FAULT = "our_fault"
    """A defect of delivery itself: logged with its trace, the turn is tried again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about one turn or one request. ``retry_after_s`` is what the answer asked for."""

    fate: Fate
    reason: Reason
    scope: Scope
    status: int | None = None
    text: str = ""
    retry_after_s: float | None = None


_Row = tuple[Fate, Reason, Scope]

_BY_STATUS: Final[dict[int, _Row]] = {
    200: (Fate.ACCEPTED, Reason.ACCEPTED, Scope.TURN),
    202: (Fate.ACCEPTED, Reason.ACCEPTED, Scope.TURN),
    400: (Fate.REFUSED, Reason.INVALID, Scope.TURN),
    401: (Fate.HOLD, Reason.UNAUTHORIZED, Scope.ENDPOINT),
    403: (Fate.HOLD, Reason.FORBIDDEN, Scope.TENANT),
    404: (Fate.HOLD, Reason.NOT_FOUND, Scope.ENDPOINT),
    405: (Fate.HOLD, Reason.METHOD_NOT_ALLOWED, Scope.ENDPOINT),
    408: (Fate.RETRY, Reason.REQUEST_TIMEOUT, Scope.ENDPOINT),
    413: (Fate.REFUSED, Reason.TOO_LARGE, Scope.TURN),
    422: (Fate.REFUSED, Reason.UNPROCESSABLE, Scope.TURN),
    425: (Fate.RETRY, Reason.TOO_EARLY, Scope.ENDPOINT),
    429: (Fate.RETRY, Reason.THROTTLED, Scope.TENANT),
}

_BY_CLASS: Final[dict[int, _Row]] = {
    3: (Fate.HOLD, Reason.REDIRECTED, Scope.ENDPOINT),
    5: (Fate.RETRY, Reason.SERVER_ERROR, Scope.ENDPOINT),
}

_OTHERWISE: Final[_Row] = (Fate.HOLD, Reason.UNEXPECTED_STATUS, Scope.ENDPOINT)

SUSPICIOUS: Final = frozenset(
    {
        Reason.TIMED_OUT,
        Reason.CONNECTION_LOST,
        Reason.SERVER_ERROR,
        Reason.ANSWER_MALFORMED,
        Reason.ANSWER_TOO_LARGE,
    }
)
"""What one turn may do to an ingest that cannot cope with it, and to all that travel with it."""

HOLDING_FAILURES: Final = frozenset({Reason.TLS_FAILED, Reason.CREDENTIALS_UNREADABLE})
"""Failures before any status that a person has to mend."""


def classify_status(
    status: int,
    *,
    text: str = "",
    retry_after_s: float | None = None,
    shortfall: Reason | None = None,
) -> Verdict:
    """The verdict on an answer with this status.

    ``shortfall`` is why the answer is not complete, None for a complete one. An
    incomplete acceptance is no acceptance; any other status stands as it is, for the
    answer's body only explains it.
    """
    fate, reason, scope = _BY_STATUS.get(status) or _BY_CLASS.get(status // 100) or _OTHERWISE
    if fate is Fate.ACCEPTED and shortfall is not None:
        return Verdict(Fate.RETRY, shortfall, Scope.ENDPOINT, status, text)
    return Verdict(fate, reason, scope, status, text, retry_after_s)


def classify_failure(reason: Reason, text: str) -> Verdict:
    """The verdict where no status arrived: the connection, the clock or TLS decided."""
    fate = Fate.HOLD if reason in HOLDING_FAILURES else Fate.RETRY
    return Verdict(fate, reason, Scope.ENDPOINT, None, text)
