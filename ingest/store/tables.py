"""Rows in and out of tables whose columns are a struct's fields, in their order."""

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import msgspec
from msgspec import Struct, structs

from ingest.store.connection import Connection, Row, Value

_CHUNK = 400
_AT_ONCE = (64, 16, 4, 1)
"""Rows of one INSERT, the largest number that fits first."""
T = TypeVar("T", bound=Struct)


def columns(struct: type[Struct], prefix: str = "") -> str:
    """The columns of ``struct``'s table, for a SELECT."""
    return ", ".join(prefix + name for name in struct.__struct_fields__)


def load(struct: type[T], row: Row) -> T:
    """One row of :func:`columns`. The schema holds what the struct says."""
    return msgspec.convert(dict(zip(struct.__struct_fields__, row, strict=True)), struct)


def values(row: Struct) -> tuple[Value, ...]:
    """A struct as the values of its row."""
    return cast("tuple[Value, ...]", structs.astuple(row))


def put_rows(connection: Connection, table: str, rows: Sequence[Sequence[Value]], conflict: str = "") -> None:
    """Insert ``rows`` (all columns, in the table's order); ``conflict`` follows ON CONFLICT.

    Many rows go into one statement: each statement costs a round trip on PostgreSQL, and on
    SQLite a hand-over of the interpreter lock. Their numbers are few, so statements stay prepared.
    """
    at = 0
    for count in _AT_ONCE:
        while len(rows) - at >= count:
            chunk = rows[at : at + count]
            marks = f"({', '.join('?' * len(chunk[0]))})"
            sql = f"INSERT INTO {table} VALUES {', '.join([marks] * count)}"  # noqa: S608 -- constants
            if conflict:
                sql += f" ON CONFLICT {conflict}"
            connection.run(sql, [value for row in chunk for value in row])
            at += count


def insert(connection: Connection, table: str, rows: Sequence[Struct], conflict: str) -> None:
    """Insert ``rows`` (all of one struct); ``conflict`` is the clause that follows ON CONFLICT."""
    put_rows(connection, table, [values(row) for row in rows], conflict)


def replacing(struct: type[Struct], *key: str) -> str:
    """The ON CONFLICT clause by which a row takes the place of the one under its key."""
    others = [name for name in struct.__struct_fields__ if name not in key]
    return f"({', '.join(key)}) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others)


def fetch(
    connection: Connection, table: str, struct: type[T], tenant: str, ids: Iterable[str]
) -> dict[str, T]:
    """The rows of ``tenant`` under ``ids``, by id."""
    wanted = list(ids)
    found: dict[str, T] = {}
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        marks = ", ".join("?" * len(chunk))
        sql = f"SELECT {columns(struct)} FROM {table} WHERE tenant = ? AND id IN ({marks})"  # noqa: S608 -- constants
        for row in connection.run(sql, (tenant, *chunk)):
            loaded = load(struct, row)
            found[cast("str", getattr(loaded, "id"))] = loaded  # noqa: B009 -- every such table has an id
    return found
