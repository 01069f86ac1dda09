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


class Arrived(Struct, frozen=True):
    """Whole messages: all of a stream's that one read brought, so that they cost little more than one."""

    stream_id: int
    messages: list[bytes]


class PeerEnded(Struct, frozen=True, gc=False):
    """The peer will send no more messages."""

    stream_id: int


class Gone(Struct, frozen=True, gc=False):
    """The RPC is over, and nothing can be said to its peer any more."""

    stream_id: int
    end: StreamEnd


Happening: TypeAlias = Opened | Arrived | PeerEnded | Gone


class Arrivals(dict[int, list[bytes]]):
    """The messages that a read has brought, by stream; the first of a stream is told to ``heard``."""

    def __init__(self, heard: list[Happening]) -> None:
        super().__init__()
        self._heard = heard

    def __missing__(self, stream_id: int) -> list[bytes]:
        """The first message of a stream is about to come."""
        messages = self[stream_id] = []
        self._heard.append(Arrived(stream_id, messages))
        return messages
