"""The phases of an exchange, as data.

Theory of operation. Envoy sends two half-exchanges on one ext_proc stream, request
and response, each as headers, any number of body messages, perhaps trailers. A side
*ends* with the message that carries end_of_stream, or with its trailers. The two
interleave: an upstream may answer before the request body is complete. The stream
itself can stop at any point (client gone, upstream reset, deferred close); that is a
normal ending too. So the machine needs to know only which sides have begun and which
have ended::

                    ┌────────── response begins ─────────┐
                    │                                    ▼
    IDLE ──► REQUEST ──► AWAITING ──► RESPONSE ◄── RESPONSE_EARLY
                              request ended               │
                                    │                     │
                                    └──► CLOSED ◄─────────┘   response ended, or the stream did

A message with no row (a body after its side ended, anything after CLOSED) changes
nothing: it is counted, answered where Envoy waits for an answer, and its bytes are
not captured. That is why a second end_of_stream can never post a turn twice.
"""

from enum import StrEnum, unique
from typing import Final

from extproc.events import Event, Side, StreamEnd, Trailers


@unique
class Phase(StrEnum):
    """Where an exchange stands."""

    IDLE = "idle"
    REQUEST = "request"
    AWAITING = "awaiting"
    RESPONSE_EARLY = "response_early"
    RESPONSE = "response"
    CLOSED = "closed"


@unique
class Input(StrEnum):
    """What an event means to the machine."""

    REQUEST_PART = "request_part"
    REQUEST_END = "request_end"
    RESPONSE_PART = "response_part"
    RESPONSE_END = "response_end"
    STREAM_END = "stream_end"


TRANSITIONS: Final[dict[tuple[Phase, Input], Phase]] = {
    (Phase.IDLE, Input.REQUEST_PART): Phase.REQUEST,
    (Phase.IDLE, Input.REQUEST_END): Phase.AWAITING,
    # A filter that answers locally in front of us: a stream that begins with the response.
    (Phase.IDLE, Input.RESPONSE_PART): Phase.RESPONSE_EARLY,
    (Phase.IDLE, Input.RESPONSE_END): Phase.CLOSED,
    (Phase.REQUEST, Input.REQUEST_PART): Phase.REQUEST,
    (Phase.REQUEST, Input.REQUEST_END): Phase.AWAITING,
    (Phase.REQUEST, Input.RESPONSE_PART): Phase.RESPONSE_EARLY,
    (Phase.REQUEST, Input.RESPONSE_END): Phase.CLOSED,
    (Phase.AWAITING, Input.RESPONSE_PART): Phase.RESPONSE,
    (Phase.AWAITING, Input.RESPONSE_END): Phase.CLOSED,
    (Phase.RESPONSE_EARLY, Input.REQUEST_PART): Phase.RESPONSE_EARLY,
    (Phase.RESPONSE_EARLY, Input.REQUEST_END): Phase.RESPONSE,
    (Phase.RESPONSE_EARLY, Input.RESPONSE_PART): Phase.RESPONSE_EARLY,
    (Phase.RESPONSE_EARLY, Input.RESPONSE_END): Phase.CLOSED,
    (Phase.RESPONSE, Input.RESPONSE_PART): Phase.RESPONSE,
    (Phase.RESPONSE, Input.RESPONSE_END): Phase.CLOSED,
    **{(phase, Input.STREAM_END): Phase.CLOSED for phase in Phase if phase is not Phase.CLOSED},
}

REQUEST_ENDED: Final = frozenset({Phase.AWAITING, Phase.RESPONSE})
"""The phases in which the request is complete."""

RESPONSE_BEGUN: Final = frozenset({Phase.RESPONSE_EARLY, Phase.RESPONSE})
"""The phases in which response headers (or body) were seen."""


def input_of(event: Event) -> Input:
    """What the event means to the machine."""
    if isinstance(event, StreamEnd):
        return Input.STREAM_END
    ends = isinstance(event, Trailers) or event.end_of_stream
    if event.side is Side.REQUEST:
        return Input.REQUEST_END if ends else Input.REQUEST_PART
    return Input.RESPONSE_END if ends else Input.RESPONSE_PART
