"""The vocabulary between a transport and an Exchange: events in, commands out.

A transport turns what arrives on one ext_proc stream into events and writes the
commands that come back. Nothing here knows gRPC or protobuf (``extproc.wire``
translates), so every transport shares everything above it.

Events and commands are msgspec structs, not dataclasses: one is made for every body
chunk, and a struct costs a tenth of a frozen dataclass.
"""

from enum import StrEnum, unique
from typing import TypeAlias

from msgspec import Struct


@unique
class Side(StrEnum):
    """Which half of the HTTP exchange a message belongs to."""

    REQUEST = "request"
    RESPONSE = "response"


@unique
class BodyMode(StrEnum):
    """Envoy's ``ProcessingMode.BodySendMode``: how it sends a body and what it expects back."""

    NONE = "none"
    STREAMED = "streamed"
    BUFFERED = "buffered"
    BUFFERED_PARTIAL = "buffered_partial"
    FULL_DUPLEX_STREAMED = "full_duplex_streamed"


class BodyModes(Struct, frozen=True, gc=False):
    """The body modes of a stream, from ``protocol_config`` of its first message."""

    request: BodyMode
    response: BodyMode


class Headers(Struct, frozen=True):
    """HTTP headers of one side, in the order received, names in lower case.

    Values are decoded as UTF-8 with surrogateescape, so no byte is lost.
    ``observe``: Envoy is in observability mode and ignores every answer.
    ``modes`` is set on a stream's first message only, and not in observability mode.
    ``attributes`` are Envoy's request attributes, name to text.
    """

    side: Side
    headers: tuple[tuple[str, str], ...]
    end_of_stream: bool
    observe: bool
    modes: BodyModes | None = None
    attributes: dict[str, str] = {}


class Body(Struct, frozen=True, gc=False):
    """The next bytes of one side's body. May be empty; often is, with ``end_of_stream``."""

    side: Side
    data: bytes
    end_of_stream: bool
    observe: bool
    modes: BodyModes | None = None


class Trailers(Struct, frozen=True, gc=False):
    """The trailers of one side: they end it, whatever its last body message said."""

    side: Side
    observe: bool
    modes: BodyModes | None = None


@unique
class StreamEnd(StrEnum):
    """How the ext_proc stream itself ended. Envoy's orderly close arrives as either of
    the first two, at random (``envoy.md`` §1.7).
    """

    EOF = "eof"
    CANCELLED = "cancelled"
    ERROR = "error"


Event: TypeAlias = Headers | Body | Trailers | StreamEnd


class AnswerHeaders(Struct, frozen=True):
    """Let the headers of ``side`` pass, without those named in ``remove`` (as received)."""

    side: Side
    remove: tuple[str, ...] = ()


class AnswerBody(Struct, frozen=True, gc=False):
    """Let the body message of ``side`` pass as it is."""

    side: Side


class EchoBody(Struct, frozen=True, gc=False):
    """FULL_DUPLEX_STREAMED: give the body bytes back; Envoy forwards only these."""

    side: Side
    data: bytes
    end_of_stream: bool


class AnswerTrailers(Struct, frozen=True, gc=False):
    """Let the trailers of ``side`` pass."""

    side: Side


class Finish(Struct, frozen=True, gc=False):
    """End the RPC with OK: otherwise Envoy holds its slot for the deferred-close time."""


Answer: TypeAlias = AnswerHeaders | AnswerBody | EchoBody | AnswerTrailers
