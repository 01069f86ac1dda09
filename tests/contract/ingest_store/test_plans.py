"""Lists and look-ups use an index on both engines: their cost does not grow with the table."""

from collections.abc import Generator, Sequence
from typing import cast

import pytest
from msgspec import structs

from ingest.app import engine_of
from ingest.derivation.derive import derive
from ingest.store import derived, nodes, reads, turns
from ingest.store.connection import Connection, Row, Value
from ingest.store.postgres import PostgresEngine
from ingest.store.reads import Cursor, Page
from tests.unit.ingest.rows import new_turn


class Explaining:
    """A connection that asks for the plan of every statement it is given to run."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self.plan = ""

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        rows = self._connection.run(self._prefix + sql, values)
        self.plan += "\n".join(str(row) for row in rows)
        return []


@pytest.fixture
def explaining(database_url: str) -> Generator[Explaining]:
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    connection.begin()
    turns.put(connection, [new_turn(f"{n}", key=f"{n}") for n in range(2000)])
    batch = derived.pending(connection, 2000)
    derived.save(connection, [derive(*one) for one in batch])
    connection.commit()
    connection.run("ANALYZE")
    postgres = isinstance(engine, PostgresEngine)
    if postgres:
        connection.run("SET enable_seqscan = off")  # the tables are small: it would read them whole
    yield Explaining(connection, "EXPLAIN " if postgres else "EXPLAIN QUERY PLAN ")
    connection.close()


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"agent_name": "a"},
        {"model": "m"},
        {"provider": "p"},
        {"session_id": "s"},
        {"run_id": "r"},
        {"request_id": "r"},
    ],
)
def test_a_page_of_turns_reads_an_index_in_order(explaining: Explaining, filters: dict[str, str]) -> None:
    page = Page(tenant="default", limit=100, cursor=Cursor(10**15, "5"), since_us=1)
    page = structs.replace(page, **filters)
    reads.turns(cast("Connection", explaining), page)
    sorts = "Sort" in explaining.plan or "TEMP B-TREE" in explaining.plan
    assert not sorts or "request_id" in filters, explaining.plan
    assert "Seq Scan" not in explaining.plan
    assert "SCAN t " not in explaining.plan
    assert "bodies" not in explaining.plan


def test_other_lists_read_an_index_in_order(explaining: Explaining) -> None:
    page = Page(tenant="default", limit=100, cursor=Cursor(10**15, "5"), session_id="s")
    reads.sessions(cast("Connection", explaining), page)
    reads.runs(cast("Connection", explaining), page)
    nodes.newest(cast("Connection", explaining), "default", "a", 1000)
    nodes.newest(cast("Connection", explaining), "default", "", 1000)
    for word in ("Sort", "TEMP B-TREE", "Seq Scan"):
        assert word not in explaining.plan, explaining.plan
