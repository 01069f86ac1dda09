"""A row of ``turns``: its columns, its checksum, and the statements that write one."""

from enum import StrEnum, unique
from typing import Final, NamedTuple

from ingest_client.spool.record import row_crc
from ingest_client.spool.sql import Value


@unique
class RowState(StrEnum):
    """Where a kept turn stands. *In flight* and *acknowledged* are no rows: memory, and none."""

    PENDING = "pending"
    DEAD_LETTER = "dead_letter"
    QUARANTINED = "quarantined"
    DAMAGED = "damaged"


class Row(NamedTuple):
    """One row of ``turns``, in the order of the schema."""

    seq: int
    turn_id: str
    tenant: str
    created_at_ns: int
    state: str
    outcome: str
    reason: str
    attempts: int
    due_at_ns: int
    generation: int
    body_bytes: int
    stored_bytes: int
    crc: int

    def sealed(self) -> "Row":
        """The same row with the checksum that its columns call for."""
        return self._replace(crc=row_crc(*self[:-1]))

    @property
    def intact(self) -> bool:
        """Whether the columns are those that were written."""
        return self.crc == row_crc(*self[:-1])


COLUMNS: Final = ", ".join(Row._fields)
INSERT: Final = f"INSERT INTO turns({COLUMNS}) VALUES({', '.join('?' * len(Row._fields))})"
REPLACE: Final = INSERT.replace("INSERT", "INSERT OR REPLACE", 1)
SELECT: Final = f"SELECT {COLUMNS} FROM turns"  # noqa: S608 - our own column names


_TYPES: Final = (int, str, str, int, str, str, str, int, int, int, int, int, int)


def as_row(values: tuple[Value, ...]) -> Row:
    """A row as SQLite gave it. A value of a wrong type becomes an empty one: the row is then not intact."""
    if tuple(map(type, values)) != _TYPES:
        pairs = zip(values, _TYPES, strict=True)
        values = tuple(value if type(value) is kind else kind() for value, kind in pairs)
    return Row(*values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
