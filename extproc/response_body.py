"""The bytes of an answer: reduced as they arrive, as far as the exchange's account has room.

What was cut stays cut: a hole in the middle would make another answer of it.
"""

from typing import Final

from capture.routes import Kind
from extproc.budget import ShedPart
from extproc.captured import OK, Captured

_ERROR_BODY_BYTES: Final = 64 * 1024
_HELD_BYTES: Final = 16 * 1024 * 1024
"""Of an answer whose dialect the request must tell first."""
_READ_AHEAD_BYTES: Final = 48 * 1024
_FIRST_READ_BYTES: Final = 16 * 1024
_CODED_READ_BYTES: Final = 2 * 1024
"""Bytes of an answer that are read until its account is asked again: longer later, as the answer grows by
halves; short where a byte may stand for a thousand."""
_PENDING_BYTES: Final = 2 * 1024
"""What the reducer has not parsed yet: half a batch on average."""
_LOOKED_AT_FROM_BYTES: Final = 64 * 1024
_USUAL_SHARE: Final = 4
"""Of a short stream a quarter is taken to be kept (a token's frame is 20 to 50 times the token); a longer one
is looked at, which takes some 50 µs."""


class ResponseBody:
    """Takes the answer of one exchange down."""

    __slots__ = ("_captured", "_drawn", "_read_to")

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self._drawn = 0
        self._read_to = 0

    def append(self, data: bytes) -> None:
        """Append a chunk."""
        captured = self._captured
        captured.response_bytes += len(data)
        if captured.response_bytes > self._read_to and not self._may_read(len(data)):
            return
        if captured.reducer is not None:
            captured.reducer.feed(data)
        else:
            self._append_unreduced(data)

    def lose(self) -> None:
        """Not even the request, or a beginning of the answer, fits: keep nothing, read on."""
        self._captured.lost = True
        self._captured.request.drop()
        self.drop()

    def drop(self) -> None:
        """Keep nothing of the answer."""
        captured = self._captured
        captured.reducer = None
        captured.held.clear()
        captured.error_body.clear()
        captured.account.take(-self._drawn)
        self._drawn = self._read_to = 0

    def _append_unreduced(self, data: bytes) -> None:
        """Hold what cannot be reduced yet, or the start of an error."""
        captured = self._captured
        if captured.classification.kind is Kind.AMBIGUOUS and captured.status == OK:
            captured.truncated = captured.truncated or len(captured.held) + len(data) > _HELD_BYTES
            if not captured.truncated:
                captured.held += data
        elif captured.policy.errors and captured.status != OK:
            captured.error_body += data[: max(0, _ERROR_BODY_BYTES - len(captured.error_body))]

    def _may_read(self, size: int) -> bool:
        """Whether the next bytes can be kept; asked now and then, not for every chunk."""
        captured = self._captured
        if captured.truncated or captured.account.refused or captured.lost or captured.request.over_budget:
            return False
        before = captured.response_bytes - size
        held = _held(captured, before)
        coming = captured.reducer.waiting_bytes if captured.reducer is not None else 0
        budget, limit = captured.policy.answer_budget_bytes, captured.policy.response_budget_bytes
        # Not so far that what comes, were all of it kept, could pass the budget by much.
        ahead = min(_ahead(captured, before), max(_READ_AHEAD_BYTES, budget - held - coming))
        useful = captured.response_bytes <= limit and held + coming <= budget
        if not useful or not self._draw(_wanted(captured, held, before, size + ahead)):
            self._cut()
            return False
        self._read_to = min(captured.response_bytes + ahead, limit)
        return True

    def _draw(self, wanted: int) -> bool:
        account = self._captured.account
        more = wanted - self._drawn
        if more < 0:
            account.take(more)
        elif not account.draw(more, _part(self._captured)):
            return False
        self._drawn = wanted
        return True

    def _cut(self) -> None:
        """Keep the reduced prefix. A document has none."""
        self._captured.truncated = True
        self._read_to = 0
        if _part(self._captured) is ShedPart.DOCUMENT:
            self.lose()


def _ahead(captured: Captured, before: int) -> int:
    """How many bytes of the answer to read until its account is asked again."""
    if captured.response_headers.get("content-encoding"):
        return max(_CODED_READ_BYTES, before // 2)
    return max(_READ_AHEAD_BYTES, before // 2) if before else _FIRST_READ_BYTES


def _held(captured: Captured, before: int) -> int:
    """What is kept of the ``before`` bytes of the answer that came."""
    if captured.reducer is None:
        return len(captured.held) + len(captured.error_body)
    if captured.reducer.is_stream and before < _LOOKED_AT_FROM_BYTES:
        return before // _USUAL_SHARE
    return captured.reducer.held_bytes


def _wanted(captured: Captured, held: int, before: int, more: int) -> int:
    """What the answer will hold when ``more`` bytes have been read: as densely as those ``before``."""
    if not before:
        return more
    if captured.reducer is None:
        return held + more
    return held + held * more // before + max(captured.reducer.waiting_bytes, _PENDING_BYTES)


def _part(captured: Captured) -> ShedPart:
    document = captured.reducer is not None and not captured.reducer.expects_stream
    return ShedPart.DOCUMENT if document else ShedPart.ANSWER
