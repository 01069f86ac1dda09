"""What is taken down of one exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from capture.classify import Classification, RequestHead
from capture.dialects.fold import RequestFacts
from capture.envelope import Envelope
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Ending
from extproc.budget import Account, closed_account
from extproc.policy import Policy
from extproc.request_body import RequestBody

OK: Final = 200
_SWITCHING_PROTOCOLS: Final = 101


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks, in nanoseconds: wall time and monotonic time."""

    wall_ns: int
    monotonic_ns: int


@dataclass(slots=True, kw_only=True)
class Captured:
    """What was taken down of one exchange, ready to be assembled into a turn.

    ``status`` is None when no usable ``:status`` came. ``reducer`` is None when the
    answer is not read (no turn, no dialect, an error status). ``error_body`` is the
    start of an answer with an error status, where policy keeps those.
    ``held`` are the bytes of an answer whose dialect is not known yet.
    ``request_ended`` says whether the whole request was seen; ``ending`` the same of
    the response. ``truncated``: a budget kept only the answer's beginning; ``lost``: not even
    what a turn needs fits, and nothing is kept any more. ``account`` is what all this holds of the
    budget. ``turn_id`` is given when the open exchange is first written down
    (``extproc.checkpoints``); empty: it never was. ``written_down``: a snapshot is on disk.
    ``exchange_number`` names it to the supervisor (``extproc.reconcile.feed``); 0: it was not told of it.
    """

    policy: Policy
    head: RequestHead
    classification: Classification
    envelope: Envelope
    started: Instant
    request: RequestBody
    response_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int | None = None
    response_bytes: int = 0
    reducer: ResponseReducer | None = None
    error_body: bytearray = field(default_factory=bytearray)
    held: bytearray = field(default_factory=bytearray)
    request_ended: bool = False
    truncated: bool = False
    lost: bool = False
    account: Account = field(default_factory=closed_account)
    ending: Ending = Ending.OPEN
    ended: Instant | None = None
    turn_id: str = ""
    written_down: bool = False
    exchange_number: int = 0

    @property
    def upgraded(self) -> bool:
        """Whether the exchange is a WebSocket: HTTP/1.1 upgrade, or RFC 8441 over HTTP/2."""
        if self.status == _SWITCHING_PROTOCOLS:
            return True
        return self.status == OK and self.head.headers.get(":protocol", "").lower() == "websocket"

    def release(self) -> None:
        """Nobody reads this any more: the turn is kept, or counted."""
        self.request.drop()
        self.account.close()


def reducer_for(captured: Captured) -> ResponseReducer | None:
    """The reducer for the answer, or None when it is not read."""
    found = captured.classification
    if captured.status != OK or found.dialect is None or not captured.policy.capture:
        return None
    headers = captured.response_headers
    return ResponseReducer(
        found.dialect,
        RequestFacts(path=captured.head.path, model=found.path_model),
        ResponseFacts(
            content_type=headers.get("content-type", ""),
            content_encoding=headers.get("content-encoding", ""),
        ),
    )
