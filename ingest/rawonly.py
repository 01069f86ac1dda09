"""Raw-only turns: the upstream's bytes without a reduction, reduced here.

A turn is raw-only when it brings bytes and its reduced response says nothing
(``contracts/wire.md`` §7); ``extra``, ``created_at`` and ``raw_response`` do not count.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, structs

from capture import jsontext
from capture.dialects.catalog import CATALOG
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.requests.catalog import dialect_of
from capture.turn import Ending, Turn
from capture.wire_response import reduced_response
from ingest.envelope import Envelope, MetaFacts, Reduced, read_reduced

_MAX_ELAPSED_S: Final = 604_800
_NS: Final = 1_000_000_000
_ENCODER: Final = msgspec.json.Encoder()


class Reduction(Struct, frozen=True):
    """The envelope with its reduction, and ``(field, source)`` of the times put in."""

    envelope: Envelope
    stamps: tuple[tuple[str, str], ...] = ()


def is_raw_only(envelope: Envelope) -> bool:
    """Whether there are bytes, and a response that says nothing."""
    reduced: Reduced = envelope.reduced
    message = reduced.message
    said = (
        reduced.model,
        message and message.role,
        message and message.content,
        reduced.done,
        reduced.stop_reason,
    )
    return bool(envelope.raw_response) and not any(said) and reduced.usage is None


def with_reduction(envelope: Envelope, now: datetime) -> Reduction:
    """The envelope with the reduction of its raw bytes, or as it was where there is none."""
    if not is_raw_only(envelope):
        return Reduction(envelope)
    turn = _reduce(envelope)
    if turn is None:
        return Reduction(envelope)
    facts = envelope.facts
    created_at, source = _created_at(facts)
    response = reduced_response(turn, reduced_at=rfc3339(created_at or now))
    if created_at is not None:
        response["created_at"] = rfc3339(created_at)
    stamps = [("created_at", source)]
    elapsed = _elapsed(facts)
    if elapsed is not None:
        usage = response.setdefault("usage", {})
        if isinstance(usage, dict):
            usage["total_duration_ns"] = int(elapsed * _NS)
        stamps.append(("duration", "elapsed_seconds"))
    text = _ENCODER.encode(response)
    reduced = structs.replace(envelope, response=text, reduced=read_reduced(text))
    return Reduction(reduced, tuple(stamps))


def _reduce(envelope: Envelope) -> Turn | None:
    try:
        request = jsontext.decode(envelope.request) if envelope.request else None
    except jsontext.JsonError:
        return None
    dialect = dialect_of(envelope.provider, envelope.facts.dialect or "", request)
    if dialect not in CATALOG:
        return None
    facts = envelope.facts
    reducer = ResponseReducer(
        dialect,
        RequestFacts(path=facts.path or "", model=facts.model or ""),
        ResponseFacts(content_type=facts.content_type or "", content_encoding=envelope.raw_response_encoding),
    )
    reducer.feed(envelope.raw_response)
    turn = reducer.finish(Ending.COMPLETE)
    return turn if isinstance(turn, Turn) else None


def _elapsed(facts: MetaFacts) -> float | None:
    """The elapsed time in seconds, when it can be true."""
    elapsed = facts.elapsed_seconds
    usable = elapsed is not None and math.isfinite(elapsed) and 0 < elapsed <= _MAX_ELAPSED_S
    return elapsed if usable else None


def _created_at(facts: MetaFacts) -> tuple[datetime | None, str]:
    """When the turn was made, and who says so."""
    captured = _time(facts.captured_at)
    if captured is not None:
        return captured, "captured_at"
    began = _time(facts.ts_request)
    if began is not None:
        return began + timedelta(seconds=_elapsed(facts) or 0), "ts_request"
    return None, "fallback"


def _time(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for what is none."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def rfc3339(moment: datetime) -> str:
    """The time in UTC, without trailing zeros."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"
