"""What a connection tells: events of its streams, in the order in which the bytes came."""

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from extproc.events import StreamEnd


class Opened(Struct, frozen=True):
    """An RPC has begun. ``timeout_s``: the peer gives it no longer than that."""

    stream_id: int
    path: str
    metadata: Mapping[str, str]
    timeout_s: float | None


class Arrived(Struct, frozen=True, gc=False):
    """One whole message. Made for every chunk: it must cost next to nothing."""

    stream_id: int
    message: bytes


class PeerEnded(Struct, frozen=True, gc=False):
    """The peer will send no more messages."""

    stream_id: int


class Gone(Struct, frozen=True, gc=False):
    """The RPC is over, and nothing can be said to its peer any more."""

    stream_id: int
    end: StreamEnd


Happening: TypeAlias = Opened | Arrived | PeerEnded | Gone
