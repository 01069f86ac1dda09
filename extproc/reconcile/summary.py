"""What workers and supervisor tell each other about exchanges: one JSON line each.

Worker to supervisor, on the worker's stdout: ``Begun`` when a stream opens and its request id is
known, ``Durable`` when those that began are in the ledger on disk, ``Ended`` once the exchange has its
place in the ledger (a turn is durable by then),
``Counted`` for every ``Missed`` that was counted. Supervisor to worker, on its stdin: ``Missed``.
"""

from typing import Final, TypeAlias

import msgspec

MAX_REQUEST_ID: Final = 128
"""Clients choose request ids. Both sides keep so many characters, so they still meet."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A stream opened. ``number`` counts the worker's exchanges; ``wall_ns`` is its own clock."""

    number: int
    request_id: str
    wall_ns: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """An exchange has its place in the ledger.

    ``outcome`` is empty for a turn that is kept. ``turn``: its head is a turn request's, or no
    head came. ``status`` is 0 when none came. ``turn_id``: what it is kept under, if it is.
    """

    number: int
    outcome: str
    turn: bool
    status: int
    response_bytes: int
    turn_id: str = ""


class Durable(msgspec.Struct, frozen=True, tag="durable"):
    """The exchanges up to this number are in the ledger on disk: a crash does not forget them."""

    number: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """The worker's ledger has what a ``Missed`` of these members asked for."""

    count: int
    instead_of: str


class Gap(msgspec.Struct, frozen=True, tag="gap"):
    """So many lines were not written: the supervisor did not read for too long.

    The exchanges of those that were ``Begun`` began between these wall times.
    """

    lines: int
    from_ns: int
    until_ns: int


Line: TypeAlias = Begun | Ended | Durable | Counted | Gap


class Missed(msgspec.Struct, frozen=True, tag="missed"):
    """Count so many served turn requests as ``not_seen``.

    ``instead_of``: the outcome under which they are counted already, because a worker saw their
    streams but not their turns; empty for those that no worker saw at all.
    """

    count: int
    instead_of: str = ""


_LINES: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)
_MISSED: Final = msgspec.json.Decoder(Missed)
_ENCODER: Final = msgspec.json.Encoder()


def encode(line: Line | Missed) -> bytes:
    """One line, its end included."""
    return _ENCODER.encode(line) + b"\n"


def decode_line(line: bytes) -> Line:
    """What a worker wrote. Raises ``msgspec.MsgspecError`` (a worker that died while it wrote)."""
    return _LINES.decode(line)


def decode_missed(line: bytes) -> Missed:
    """What the supervisor wrote. Raises ``msgspec.MsgspecError``."""
    return _MISSED.decode(line)


def shortened(request_id: str) -> str:
    """A request id as both sides keep it; Envoy writes ``-`` where there is none."""
    return "" if request_id == "-" else request_id[:MAX_REQUEST_ID]
