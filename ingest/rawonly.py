"""Raw-only turns: the upstream's bytes without a reduction, reduced here.

A turn is raw-only when it brings bytes and its reduced response says nothing
(``contracts/wire.md`` §7); ``extra``, ``created_at`` and ``raw_response`` do not count.
"""

import math
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, structs

from capture import jsontext
from capture.turn import Turn
from capture.wire_response import reduced_response
from ingest.envelope import Envelope, MetaFacts, Reduced, read_reduced
from ingest.reduction import Answer, reduce
from ingest.times import TimeError, moment_of, rfc3339

_MAX_ELAPSED_S: Final = 604_800
_NS: Final = 1_000_000_000
_ENCODER: Final = msgspec.json.Encoder()


class Reduction(Struct, frozen=True):
    """The envelope with its reduction, and ``(field, source)`` of the times put in.

    ``unusable``: the members of ``meta`` that were to say a time and do not; they are logged, and no more.
    """

    envelope: Envelope
    stamps: tuple[tuple[str, str], ...] = ()
    unusable: tuple[str, ...] = ()


STAMPS: Final = (
    ("created_at", "captured_at"),
    ("created_at", "ts_request"),
    ("created_at", "fallback"),
    ("duration", "elapsed_seconds"),
    ("duration", "fallback"),
)
"""Every ``(field, source)`` there is."""


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
    times = _times(envelope.facts)
    response = reduced_response(turn, reduced_at=rfc3339(times.created_at or now))
    if times.created_at is not None:
        response["created_at"] = rfc3339(times.created_at)
    if times.elapsed_s is not None:
        usage = response.setdefault("usage", {})
        if isinstance(usage, dict):
            usage["total_duration_ns"] = int(times.elapsed_s * _NS)
    text = _ENCODER.encode(response)
    reduced = structs.replace(envelope, response=text, reduced=read_reduced(text))
    return Reduction(reduced, times.stamps, times.unusable)


def _reduce(envelope: Envelope) -> Turn | None:
    try:
        request = jsontext.decode(envelope.request) if envelope.request else None
    except jsontext.JsonError:
        return None
    facts = envelope.facts
    found = reduce(
        Answer(
            provider=envelope.provider,
            dialect=facts.dialect or "",
            request=request,
            path=facts.path or "",
            model=facts.model or "",
            content_type=facts.content_type or "",
            raw=envelope.raw_response,
            encoding=envelope.raw_response_encoding,
        )
    )
    return found[0] if found is not None else None


class _Times(Struct, frozen=True):
    """What ``meta`` says of when the turn was made; None is nothing usable."""

    created_at: datetime | None
    elapsed_s: float | None
    source: str
    unusable: tuple[str, ...]

    @property
    def stamps(self) -> tuple[tuple[str, str], ...]:
        duration = "fallback" if self.elapsed_s is None else "elapsed_seconds"
        return (("created_at", self.source), ("duration", duration))


def _times(facts: MetaFacts) -> _Times:
    """When the turn was made, and who says so."""
    elapsed_s = _elapsed(facts)
    unusable = ["elapsed_seconds"] if elapsed_s is None and facts.elapsed_seconds is not None else []
    after_s = {"captured_at": 0.0, "ts_request": elapsed_s or 0.0}
    for source, said in (("captured_at", facts.captured_at), ("ts_request", facts.ts_request)):
        if not said:
            continue
        try:
            created_at = moment_of(said) + timedelta(seconds=after_s[source])
        except (TimeError, OverflowError):
            unusable.append(source)
        else:
            return _Times(created_at, elapsed_s, source, tuple(unusable))
    return _Times(None, elapsed_s, "fallback", tuple(unusable))


def _elapsed(facts: MetaFacts) -> float | None:
    """The elapsed time in seconds, when it can be true."""
    elapsed = facts.elapsed_seconds
    usable = elapsed is not None and math.isfinite(elapsed) and 0 < elapsed <= _MAX_ELAPSED_S
    return elapsed if usable else None
