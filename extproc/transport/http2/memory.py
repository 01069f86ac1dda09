"""What the connections of one server may hold in memory together.

A window is memory promised: a peer may send that much before we have said anything more.
What arrives is consumed at once, so a promise is not often called in; parts of messages
and answers that a peer does not take are held in fact. Both come out of one budget.

* Half of it is for windows. A new connection is promised an eighth of what is left of
  that half, at most ``Limits.connection_window``, and never less than HTTP/2's first
  65,535 bytes, which every connection has from its beginning.
* A connection may always hold as much as it was promised. What it holds beyond that comes
  out of what is not promised; what does not fit costs the stream, or the connection, that
  wanted it, and nobody else.
"""

from extproc.transport.http2.frames import DEFAULT_WINDOW

_SHARE_OF_THE_REST = 8


class Memory:
    """The budget, in bytes, and what of it is promised and held; ``beyond_bytes``: over the promises."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.promised_bytes = 0
        self.held_bytes = 0
        self.beyond_bytes = 0

    def share(self, most: int) -> "Share":
        """The share of a new connection, with a window of ``most`` bytes or less."""
        left = self.total_bytes // 2 - self.promised_bytes
        return Share(self, max(DEFAULT_WINDOW, min(most, left // _SHARE_OF_THE_REST)))


class Share:
    """One connection's part of the budget. ``window``: what it was promised."""

    __slots__ = ("_memory", "answers", "parts", "unsent", "window")

    def __init__(self, memory: Memory, window: int) -> None:
        self._memory = memory
        self.window = window
        self.parts = 0  # of messages that are not whole
        self.answers = 0  # that the peer's windows hold back
        self.unsent = 0  # bytes that its socket does not take
        memory.promised_bytes += window

    def hold(
        self, *, parts: int | None = None, answers: int | None = None, unsent: int | None = None
    ) -> bool:
        """Say how much is held now; False when that is more than this connection may hold."""
        before = self.parts + self.answers + self.unsent
        self.parts = self.parts if parts is None else parts
        self.answers = self.answers if answers is None else answers
        self.unsent = self.unsent if unsent is None else unsent
        held, memory = self.parts + self.answers + self.unsent, self._memory
        memory.held_bytes += held - before
        memory.beyond_bytes += max(0, held - self.window) - max(0, before - self.window)
        return held <= self.window or memory.promised_bytes + memory.beyond_bytes <= memory.total_bytes

    def give_back(self) -> None:
        """The connection is over. May be called again."""
        self.hold(parts=0, answers=0, unsent=0)
        self._memory.promised_bytes -= self.window
        self.window = 0
