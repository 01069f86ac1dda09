"""Export and import: turns as lines of JSON, out of one store and into another.

An export by the command is one state of the store, however much is written meanwhile; one over
HTTP is read page by page, each as the store is then. An import brings what
is not there yet, in small transactions beside a running service, and tells of every line that
it cannot take; done again, it changes nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO, Final

from msgspec import Struct

from ingest.portable import LineError, decode, encode, encode_lost
from ingest.store.connection import CollisionError, Connection, Engine, TooLargeError
from ingest.store.portable import (
    Carried,
    Choice,
    Landing,
    Unreadable,
    audit,
    begin_snapshot,
    count,
    every,
    page,
    put_back,
    schema_version,
)
from ingest.store.schema import STEPS

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much (0: nobody knows)."""
Refused = Callable[[int, str], None]
"""Told the number of a line and why it is left out."""
Group = list[tuple[int, Carried]]
"""Turns, each with the number of its line."""
CONFLICT: Final = "its id or its idempotency key is another turn's here"
TOO_LARGE: Final = "it is too large for this store"
_LEFT_OUT: Final = {Landing.CONFLICT: CONFLICT, Landing.TOO_LARGE: TOO_LARGE}
_LINE_BYTES: Final = 512 * 1024 * 1024
_GROUP: Final = 200
_GROUP_BYTES: Final = 4 * 1024 * 1024
_GIVE_WAY_S: Final = 0.02
"""Between two transactions: a service on the same database gets its turn."""
_ATTEMPTS: Final = 5


class ArchiveError(Exception):
    """It cannot be done; the text says why and what to do."""


class Outcome(Struct):
    """What an import did, in turns."""

    stored: int = 0
    there: int = 0
    refused: int = 0


def write_out(
    engine: Engine,
    choice: Choice,
    write: Callable[[bytes], object],
    told: Progress,
    lost: Callable[[str], None],
) -> int:
    """Write every turn of ``choice`` as a line, oldest first; how many.

    ``lost`` is told of each turn that cannot be read. Raises :class:`ArchiveError`, StoreError,
    and OSError from ``write``.
    """
    with closing(engine.reader()) as connection:
        begin_snapshot(connection)
        _require_schema(connection)
        total, written = count(connection, choice), 0
        for done, one in enumerate(every(connection, choice), 1):
            if isinstance(one, Unreadable):
                lost(_lost(one))
            else:
                write(encode(one))
                written += 1
            told(done, total)
    return written


class Lines(Struct, frozen=True):
    """A page of an export; what is ``lost`` has a line of its own among the others.

    ``last``: the sequence number to go on after; None at the end.
    """

    lines: list[bytes]
    lost: list[str]
    last: int | None


def lines_after(connection: Connection, choice: Choice, after: int) -> Lines:
    """The next lines after a sequence number, for who cannot keep a connection."""
    found = page(connection, choice, after)
    return Lines(
        [encode(one) if isinstance(one, Carried) else encode_lost(one.turn.id, one.reason) for one in found],
        [_lost(one) for one in found if isinstance(one, Unreadable)],
        found[-1].turn.seq if found else None,
    )


def _lost(one: Unreadable) -> str:
    return f"turn {one.turn.id} cannot be exported: {one.reason}"


def _require_schema(connection: Connection) -> None:
    version = schema_version(connection)
    if version != len(STEPS):
        raise ArchiveError(
            f"the store has schema version {version}, this release reads {len(STEPS)}:"
            " start the service of this release once, it brings older stores up to date"
        )


def bring_in(engine: Engine, lines: BinaryIO, told: Progress, refused: Refused) -> Outcome:
    """Store the turns of ``lines`` that are not there yet. ``told`` hears of bytes read.

    Raises StoreError when the store goes away: what was stored until then stays, and a
    repetition goes on where this one ended.
    """
    outcome = Outcome()

    def left_out(number: int, reason: str) -> None:
        outcome.refused += 1
        refused(number, reason)

    with closing(engine.writer()) as connection:
        for group, read in groups(lines, left_out):
            for (number, _), landing in zip(group, _landings(connection, group), strict=True):
                outcome.stored += landing is Landing.STORED
                outcome.there += landing is Landing.THERE
                if landing in _LEFT_OUT:
                    left_out(number, _LEFT_OUT[landing])
            told(read, 0)
            time.sleep(_GIVE_WAY_S)
    return outcome


def _landings(connection: Connection, group: Group) -> list[Landing]:
    """What became of each of a group. Where one is too large for the store, each goes alone."""
    try:
        return _commit(connection, group)
    except TooLargeError:
        if len(group) == 1:
            return [Landing.TOO_LARGE]
        return [landing for one in group for landing in _landings(connection, [one])]


def _commit(connection: Connection, group: Group) -> list[Landing]:
    """One group in one transaction, again when another writer took a key first."""
    attempt = 0
    while True:
        attempt += 1
        connection.begin()
        try:
            landings = put_back(connection, [one for _, one in group])
            if new := landings.count(Landing.STORED):
                audit(connection, time.time_ns() // 1000, "import", "turns from a file", new)
            connection.commit()
        except BaseException as error:
            connection.rollback()
            if not isinstance(error, CollisionError) or attempt == _ATTEMPTS:
                raise
        else:
            return landings


def groups(lines: BinaryIO, refused: Refused) -> Iterator[tuple[Group, int]]:
    """The readable lines in groups of one transaction, each turn with its line's number; and bytes read."""
    group: Group = []
    read = size = 0
    for number, line in _numbered(lines):
        read += len(line)
        if not line.strip():
            continue
        try:
            group.append((number, decode(_bounded(line))))
        except LineError as error:
            refused(number, str(error))
            continue
        size += len(line)
        if len(group) >= _GROUP or size >= _GROUP_BYTES:
            yield group, read
            group, size = [], 0
    yield group, read


def _bounded(line: bytes) -> bytes:
    if len(line) > _LINE_BYTES:
        raise LineError(f"no exported turn: longer than {_LINE_BYTES} bytes")
    return line


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; of an over-long one only the beginning, one byte too long."""
    number = 0
    while line := lines.readline(_LINE_BYTES + 1):
        number += 1
        yield number, line
        while len(line) > _LINE_BYTES and not line.endswith(b"\n"):
            line = lines.readline(_LINE_BYTES + 1)
