"""What ``steno replay`` sends: recorded exchanges and exported turns, as requests.

case folder (``meta.json``, ``request.json``)            → the client's request, to any gateway
line of ``steno spool export`` or of ``GET /v1/export``  → the turn, to any ingest
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ingest_client.spool.rows import RowState
from steno.errors import explained
from steno.recorded import META, UnreadableError, read_case

TURN_PATH: Final = "/v1/ingest"

_ABSENT: Final = Raw(b"")
_NULL: Final = Raw(b"null")
_REVIVE: Final = "no turn until `steno spool requeue --quarantine` makes it one"
_JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One POST: where it comes from (for people), its path, headers and body."""

    source: str
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])


class NoTurnError(UnreadableError):
    """A line of an export that is no turn, and must not be sent as one."""


class _Row(Struct, frozen=True):
    """The members of a stored turn's row that its envelope needs."""

    id: str
    provider: str = ""
    agent_name: str = ""
    request_id: str = ""


class _Document(Struct, frozen=True):
    """The member that only a document of the quarantine has."""

    quarantined: str = ""


class _Line(Struct, frozen=True):
    """A line of either export: the spool's has a body, ingest's a row and the envelope's members."""

    turn_id: str = ""
    state: str = ""
    outcome: str | None = None
    reason: str | None = None
    body: Raw = _ABSENT
    turn: _Row | None = None
    request: Raw = _ABSENT
    response: Raw = _ABSENT
    meta: Raw = _ABSENT
    session: Raw = _ABSENT


def sendings(path: Path) -> Iterator[Sending | UnreadableError]:
    """Everything a path holds: a folder of cases at any depth, or a file of JSON lines.

    What cannot be read is given as the error that says why, in its place.
    """
    try:
        if path.is_dir():
            yield from _cases(path)
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _turn(line, f"{path}:{number}")
    except OSError as error:
        yield UnreadableError(explained(error))


def how_many(path: Path) -> int:
    """How many :func:`sendings` will give, about: a quick look, for a bar. 0 where nobody can say."""
    try:
        if path.is_dir():
            return sum(META in files for _, _, files in os.walk(path))
        with path.open("rb") as lines:
            return sum(bool(line.strip()) for line in lines)
    except OSError:  # reading it says why
        return 0


def _cases(top: Path) -> Iterator[Sending | UnreadableError]:
    found = False
    closed: list[OSError] = []
    for folder, below, files in os.walk(top, onerror=closed.append):
        below.sort()
        if META in files:
            found = True
            yield _case(Path(folder))
    for error in closed:
        yield UnreadableError(explained(error))
    if not found and not closed:
        yield UnreadableError(f"{top}: no folder with {META} in it")


def _case(folder: Path) -> Sending | UnreadableError:
    try:
        recorded = read_case(folder)
    except UnreadableError as error:
        return UnreadableError(f"{folder}: {error}")
    except OSError as error:
        return UnreadableError(explained(error))
    return Sending(source=str(folder), path=recorded.path, body=recorded.request, headers=_JSON)


def _turn(line: bytes, source: str) -> Sending | UnreadableError:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return UnreadableError(f"{source}: no exported turn: {error}")
    if read.state == RowState.QUARANTINED or (read.body and _kept_for_a_person(read.body)):
        why = f"{read.outcome}: {read.reason}: " if read.outcome else ""
        return NoTurnError(f"{source}: quarantined: {why}{_REVIVE}")
    if read.body:
        return _posted(source, read.turn_id, bytes(read.body))
    if read.turn is None:
        return UnreadableError(f"{source}: no exported turn: it has neither a body nor a row")
    members: dict[str, object] = {
        "provider": read.turn.provider,
        "request": read.request or _NULL,
        "response": read.response or _NULL,
    }
    if read.turn.agent_name:
        members["agent_name"] = read.turn.agent_name
    members |= {
        name: part
        for name, part in (("meta", read.meta), ("session", read.session))
        if part and part != _NULL
    }
    body = msgspec.json.encode(members)
    return _posted(source, read.turn.request_id or read.turn.id, body)


def _kept_for_a_person(body: Raw) -> bool:
    """Whether a body is a document of ``extproc.quarantine``, however it came to be in a line."""
    try:
        return bool(msgspec.json.decode(body, type=_Document).quarantined)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def _posted(source: str, turn_id: str, body: bytes) -> Sending:
    return Sending(source=source, path=TURN_PATH, body=body, headers=_JSON | {"idempotency-key": turn_id})
