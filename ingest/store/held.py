"""How much of the store each tenant holds, read in small pieces."""

from typing import cast

from msgspec import Struct

from ingest.store.connection import Connection


class Held(Struct, frozen=True):
    """What one tenant has of a piece: bytes as posted, and the last row of it."""

    tenant: str
    bytes: int
    last_seq: int


def by_tenant(connection: Connection, after_seq: int, limit: int) -> list[Held]:
    """The next ``limit`` turns after ``after_seq``, summed by tenant; empty at the end."""
    rows = connection.run(
        "SELECT tenant, CAST(sum(body_bytes) AS BIGINT), max(seq) FROM"
        " (SELECT seq, tenant, body_bytes FROM turns WHERE seq > ? ORDER BY seq LIMIT ?) piece"
        " GROUP BY tenant",
        (after_seq, limit),
    )
    return [Held(str(row[0]), cast("int", row[1]), cast("int", row[2])) for row in rows]


def deletions(connection: Connection) -> tuple[int, int]:
    """How often something was deleted, and when last: another answer means that sums are stale."""
    [(count, last)] = connection.run("SELECT count(*), max(at_us) FROM audit")
    return cast("int", count), cast("int | None", last) or 0
