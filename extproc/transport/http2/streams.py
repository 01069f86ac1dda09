"""A stream's state, and how it changes: RFC 9113 §5.1 for a server that never pushes."""

from collections.abc import Mapping
from enum import IntEnum, unique

from extproc.transport.http2.messages import MessageReader


@unique
class State(IntEnum):
    """Who may still send."""

    OPEN = 0
    PEER_ENDED = 1
    WE_ENDED = 2
    CLOSED = 3


@unique
class Change(IntEnum):
    """What ends a stream, or a half of it."""

    PEER_ENDS = 0
    WE_END = 1
    RESET = 2


# A missing row is an error of whoever asks for the change.
TRANSITIONS: Mapping[tuple[State, Change], State] = {
    (State.OPEN, Change.PEER_ENDS): State.PEER_ENDED,
    (State.OPEN, Change.WE_END): State.WE_ENDED,
    (State.OPEN, Change.RESET): State.CLOSED,
    (State.PEER_ENDED, Change.WE_END): State.CLOSED,
    (State.PEER_ENDED, Change.RESET): State.CLOSED,
    (State.WE_ENDED, Change.PEER_ENDS): State.CLOSED,
    (State.WE_ENDED, Change.RESET): State.CLOSED,
}


class StreamRecord:
    """What a connection knows about one stream.

    ``plain``: its next DATA frame, if it is one whole message, needs no thought: the
    stream is open, had a message before, is within no message and promised no length.
    """

    __slots__ = (
        "answered",
        "expected_bytes",
        "id",
        "outbox",
        "plain",
        "reader",
        "receive_window",
        "send_window",
        "state",
        "status",
        "used",
    )

    def __init__(self, stream_id: int, receive_window: int, send_window: int) -> None:
        self.id = stream_id
        self.state = State.OPEN
        self.plain = False
        self.receive_window = receive_window
        self.send_window = send_window
        self.used = False  # whether any whole message has come
        self.answered = False  # whether our header frame was sent
        self.expected_bytes: int | None = None  # what content-length leaves to come
        self.reader: MessageReader | None = None
        self.outbox: bytearray | None = None
        self.status: bytes | None = None  # the trailers that follow the outbox

    @property
    def ours(self) -> bool:
        """Whether our side has yet to end. Of an RPC that we have finished nothing more is told."""
        return self.status is None and self.state is not State.WE_ENDED

    def move(self, change: Change) -> State:
        """Change the state as the table says; returns the new one."""
        self.plain = False
        self.state = TRANSITIONS[self.state, change]
        return self.state
