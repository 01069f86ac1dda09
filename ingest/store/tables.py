"""Rows in and out of tables whose columns are a struct's fields, in their order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Final, TypeVar, cast

from msgspec import Struct, structs

from ingest.store.connection import Connection, Row, Value

_CHUNK: Final = 256
_AT_ONCE: Final = (64, 32, 16, 8, 4, 2, 1)
"""Rows of one INSERT, the largest number that fits first."""
T = TypeVar("T", bound=Struct)
V = TypeVar("V", bound=Value)


def columns(struct: type[Struct], prefix: str = "") -> str:
    """The columns of ``struct``'s table, for a SELECT."""
    return ", ".join(prefix + name for name in struct.__struct_fields__)


def load(struct: type[T], row: Row) -> T:
    """One row of :func:`columns`. The schema holds what the struct says."""
    return struct(**dict(zip(struct.__struct_fields__, row, strict=True)))


def values(row: Struct) -> tuple[Value, ...]:
    """A struct as the values of its row."""
    return cast("tuple[Value, ...]", structs.astuple(row))


@lru_cache(maxsize=256)
def _insert(table: str, columns: int, count: int, conflict: str) -> str:
    marks = f"({', '.join('?' * columns)})"
    sql = f"INSERT INTO {table} VALUES {', '.join([marks] * count)}"  # noqa: S608 -- constants
    return f"{sql} ON CONFLICT {conflict}" if conflict else sql


def _spans(total: int) -> Iterator[tuple[int, int]]:
    """From and to of the chunks of ``total`` rows."""
    at = 0
    for count in _AT_ONCE:
        while total - at >= count:
            yield at, at + count
            at += count


def put_rows(
    connection: Connection, table: str, rows: Sequence[Sequence[Value]], conflict: str = ""
) -> list[Row]:
    """Insert ``rows`` (all columns, in the table's order); ``conflict`` follows ON CONFLICT.

    Returns what a RETURNING at the end of ``conflict`` asks for, of the rows that were inserted.

    Many rows go into one statement: each statement costs a round trip on PostgreSQL, and on
    SQLite a hand-over of the interpreter lock. Their numbers are few, so statements stay prepared.
    """
    returned: list[Row] = []
    for start, end in _spans(len(rows)):
        sql = _insert(table, len(rows[0]), end - start, conflict)
        returned += connection.run(sql, list(chain.from_iterable(rows[start:end])))
    return returned


def put_beside(connection: Connection, rows: Mapping[str, Sequence[Sequence[Value]]]) -> None:
    """Insert into several tables, each as many rows as the others, with as few round trips as for one."""
    for start, end in _spans(len(next(iter(rows.values())))):
        connection.run_together(
            [
                (
                    _insert(table, len(ones[0]), end - start, ""),
                    list(chain.from_iterable(ones[start:end])),
                )
                for table, ones in rows.items()
            ]
        )


def chunks(values: Sequence[V], size: int = _CHUNK) -> Iterator[tuple[str, Sequence[V]]]:
    """The question marks of an IN, and its values, for up to ``size`` of ``values`` at a time.

    Filled up with the last value to a power of two: so there are few statements, which stay prepared.
    """
    for start in range(0, len(values), size):
        chunk = values[start : start + size]
        count = 1 << (len(chunk) - 1).bit_length()
        yield ", ".join("?" * count), [*chunk, *repeat(chunk[-1], count - len(chunk))]


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
    found: dict[str, T] = {}
    for marks, chunk in chunks(list(ids)):
        sql = f"SELECT {columns(struct)} FROM {table} WHERE tenant = ? AND id IN ({marks})"  # noqa: S608 -- constants
        for row in connection.run(sql, (tenant, *chunk)):
            loaded = load(struct, row)
            found[cast("str", getattr(loaded, "id"))] = loaded  # noqa: B009 -- every such table has an id
    return found
