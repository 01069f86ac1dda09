"""Served requests and lines of workers for the matcher's tests; moments in seconds."""

from extproc.reconcile.entry import Served
from extproc.reconcile.matcher import EntryResult, ExchangeResult, Matcher, Result
from extproc.reconcile.summary import Begun, Ended

S = 1_000_000_000
BEGAN_S = 1000
GRACE_S = 30


def ns(seconds: float) -> int:
    """Seconds as nanoseconds."""
    return round(seconds * S)


def matcher(*, max_waiting: int = 1000) -> Matcher:
    """A matcher that began at second 1000 of the wall clock."""
    return Matcher(grace_ns=GRACE_S * S, max_waiting=max_waiting, began_ns=BEGAN_S * S)


def served(
    request_id: str = "r",
    start_s: float = 1001.0,
    *,
    status: int = 200,
    details: str = "via_upstream",
    flags: tuple[str, ...] = (),
    response_bytes: int = 100,
    forwarded: bool = True,
    path: str = "/v1/messages",
    method: str = "POST",
) -> Served:
    """A request that Envoy finished."""
    return Served(
        request_id=request_id,
        start_ns=ns(start_s),
        duration_ns=S,
        method=method,
        host="api.test",
        path=path,
        status=status,
        details=details,
        flags=flags,
        request_bytes=10,
        response_bytes=response_bytes,
        forwarded=forwarded,
        failed_open=False,
        capture_bytes=100,
    )


def begun(number: int, request_id: str = "r", start_s: float = 1001.0) -> Begun:
    """A stream opened."""
    return Begun(number, request_id, ns(start_s))


def ended(number: int, outcome: str = "", *, turn: bool = True, response_bytes: int = 100) -> Ended:
    """An exchange has its place in the ledger: a kept turn unless told otherwise."""
    return Ended(number, outcome, turn, 200, response_bytes)


def captured(
    machine: Matcher, number: int, request_id: str = "r", start_s: float = 1001.0, *, source: int = 1
) -> None:
    """An exchange from beginning to end."""
    machine.begun(source, begun(number, request_id, start_s))
    machine.ended(source, ended(number), ns(start_s))


def verdicts(results: list[Result]) -> list[tuple[float, str]]:
    """Start (s) and verdict of the entries, in order of their starts."""
    entries = [each for each in results if isinstance(each, EntryResult)]
    return sorted((each.served.start_ns / S, each.verdict.value) for each in entries)


def fates(results: list[Result]) -> list[tuple[int, str]]:
    """Number and fate of the exchanges, in order of their numbers."""
    return sorted(
        (each.exchange.number, each.fate.value) for each in results if isinstance(each, ExchangeResult)
    )
