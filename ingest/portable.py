"""A turn as one line of JSON: what an export writes and an import reads.

    {"version": 1, "turn": {…its row…}, "digest": …, "key_hash": …, "strict": …,
     "request": …, "response": …, "meta": …, "session": …,
     "raw_response": …, "raw_response_encoding": …, "exact": {"request": …}}

The four members of the envelope are JSON as sent, for whoever reads the line. Where a line
cannot hold their very bytes (line ends, unpaired surrogates, numbers of thousands of digits,
great depth), they are repaired there, and ``exact`` has the bytes in base64: what comes out
of a line is what went in. A turn that cannot be read is ``{"version": 1, "unreadable": …its id…,
"reason": …}`` where nobody else could be told of it.
"""

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ingest.access import is_tenant
from ingest.store.keys import HASH_BYTES, placed
from ingest.store.portable import Carried
from ingest.store.rows import Body, Source, State, TurnRow
from ingest.views import shown

VERSION: Final = 1
_PARTS: Final = ("request", "response", "meta", "session")
_ROOM: Final = 100
"""Levels that a line leaves to its reader, who may stand deeper than its writer did."""
_ABSENT: Final = Raw(b"null")
_DIGEST: Final = 16
_INT64: Final = 1 << 63
_ID: Final = re.compile(r"[0-9a-f-]{36}")
_YEAR_10000_US: Final = 253_402_300_800_000_000
_NUMBERS: Final = ("seq", "received_at_us", "body_bytes")
_FLAGS: Final = ("reused", "raw_dropped")


class LineError(ValueError):
    """The line is no turn; the text says why."""


class Line(Struct, frozen=True, kw_only=True):
    """One line."""

    version: int
    turn: TurnRow
    digest: bytes
    key_hash: bytes | None
    strict: bool
    request: Raw = _ABSENT
    response: Raw = _ABSENT
    meta: Raw = _ABSENT
    session: Raw = _ABSENT
    raw_response: bytes
    raw_response_encoding: str
    exact: dict[str, bytes] = {}


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Line)


def encode(one: Carried) -> bytes:
    """The line, with its end."""
    readable: dict[str, Raw] = {}
    exact: dict[str, bytes] = {}
    for name in _PARTS:
        text: bytes = getattr(one.body, name)
        readable[name] = _readable(text)
        if text and not _fits(text):
            exact[name] = text
    line = Line(
        version=VERSION,
        turn=one.turn,
        digest=one.digest,
        key_hash=one.key_hash,
        strict=one.strict,
        **readable,
        raw_response=one.body.raw_response,
        raw_response_encoding=one.body.raw_response_encoding,
        exact=exact,
    )
    return _ENCODER.encode(line) + b"\n"


def encode_lost(identifier: str, reason: str) -> bytes:
    """A line in the place of a turn that cannot be read. No import takes it: it tells its number instead."""
    return _ENCODER.encode({"version": VERSION, "unreadable": identifier, "reason": reason}) + b"\n"


def _fits(text: bytes) -> bool:
    """Whether a member of a line gives back these very bytes."""
    if text == b"null" or text != text.strip() or b"\n" in text or b"\r" in text:
        return False
    try:
        msgspec.json.decode(text)
        msgspec.json.decode(b"[" * _ROOM + text + b"]" * _ROOM, type=Raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def _readable(text: bytes) -> Raw:
    """The text on one line, repaired where it must be; as a string where it is no JSON to most readers."""
    value = shown(text)
    if value is None or text == b"null":
        return _ABSENT
    compact = bytes(value)
    if b"\n" in compact or b"\r" in compact:
        compact = msgspec.json.format(compact, indent=-1)
    return Raw(compact if _fits(compact.strip()) else msgspec.json.encode(text.decode("utf-8", "replace")))


def decode(line: bytes) -> Carried:
    """Read a line. Raises :class:`LineError`, and nothing else."""
    try:
        read = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise LineError(f"no exported turn: {error}") from error
    if problem := _problem(read):
        raise LineError(f"no exported turn: {problem}")
    parts = {name: _part(read, name) for name in _PARTS}
    return Carried(
        turn=read.turn,
        digest=read.digest,
        key_hash=None if read.key_hash is None else placed(read.key_hash, read.turn.request_id),
        strict=read.strict,
        body=Body(**parts, raw_response=read.raw_response, raw_response_encoding=read.raw_response_encoding),
    )


def _part(read: Line, name: str) -> bytes:
    exact = read.exact.get(name)
    text = bytes(getattr(read, name)) if exact is None else exact
    return b"" if exact is None and text == b"null" else text


def _problem(read: Line) -> str:
    """Why no store can take it; empty when one can."""
    turn = read.turn
    problems = {
        f"version {read.version} is not {VERSION}": read.version != VERSION,
        "turn.id is no id": not _ID.fullmatch(turn.id),
        "turn.tenant is no tenant": not is_tenant(turn.tenant),
        "turn.source is unknown": turn.source not in set(Source),
        "turn.state is unknown": turn.state not in set(State),
        "digest is no digest": len(read.digest) != _DIGEST,
        "key_hash is no hash": read.key_hash is not None and len(read.key_hash) != HASH_BYTES,
        "a number is out of range": any(not 0 <= getattr(turn, name) < _INT64 for name in _NUMBERS),
        "received_at_us is beyond the year 9999": turn.received_at_us >= _YEAR_10000_US,
        "a flag is neither 0 nor 1": any(getattr(turn, name) not in (0, 1) for name in _FLAGS),
        "exact names no member": not set(read.exact) <= set(_PARTS),
    }
    return next((problem for problem, found in problems.items() if found), "")
