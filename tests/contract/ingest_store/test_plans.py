"""Lists and look-ups use an index on both engines: their cost does not grow with the table."""

from collections.abc import Generator, Sequence
from typing import cast

import pytest
from msgspec import structs

from ingest.deriver import derive_all
from ingest.store import deletion, derived, nodes, reads, turns
from ingest.store.connection import Connection, Row, Value
from ingest.store.engines import engine_of
from ingest.store.postgres import PostgresEngine
from ingest.store.reads import Cursor, Page
from ingest.store.rows import TurnRow
from tests.unit.ingest.rows import new_turn

EXAMPLE = TurnRow(
    seq=1,
    id="t",
    tenant="default",
    project="",
    source="wire",
    state="accepted",
    reason="",
    request_id="",
    reused=0,
    provider="p",
    agent_name="a",
    model="m",
    harness_id="",
    harness_session_id="",
    thread_id="",
    received_at_us=1,
    body_bytes=1,
    raw_dropped=0,
)


class Explaining:
    """A connection that asks for the plan of every statement it is given to run."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self.plan = ""

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        if sql.startswith("SELECT count(*)"):
            return self._connection.run(sql, values)
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
    derived.save(connection, *derive_all(derived.pending(connection, 2000)))
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
        {"state": "accepted"},
        {"state": "rejected"},
        {"state": "rejected", "provider": "p"},
        {"state": "rejected", "agent_name": "a", "model": "m"},
    ],
)
def test_a_page_of_turns_reads_an_index_in_order(explaining: Explaining, filters: dict[str, str]) -> None:
    page = Page(tenant="default", limit=100, cursor=Cursor(10**15, "5"), since_us=1)
    page = structs.replace(page, **filters)
    reads.turns(cast("Connection", explaining), page)
    sorts = "Sort" in explaining.plan or "TEMP B-TREE" in explaining.plan
    assert not sorts or "request_id" in filters, explaining.plan
    assert "turns_rejected" in explaining.plan or filters.get("state") != "rejected", explaining.plan
    assert "turns_key" in explaining.plan or "request_id" not in filters, explaining.plan
    assert "Seq Scan" not in explaining.plan
    assert "SCAN t " not in explaining.plan
    assert "bodies" not in explaining.plan


@pytest.mark.parametrize("rare", ["agent_name", "model", "provider"])
def test_of_several_filters_the_rarest_is_looked_up(explaining: Explaining, rare: str) -> None:
    common = {"agent_name": "", "model": "", "provider": "anthropic"}
    filters = {name: value for name, value in common.items() if value} | {rare: "nobody's"}
    page = structs.replace(Page(tenant="default", limit=100), **filters)
    reads.turns(cast("Connection", explaining), page)
    assert f"steps_{rare.removesuffix('_name')}" in explaining.plan, explaining.plan


def test_other_lists_read_an_index_in_order(explaining: Explaining) -> None:
    page = Page(tenant="default", limit=100, cursor=Cursor(10**15, "5"), session_id="s")
    reads.sessions(cast("Connection", explaining), page)
    reads.runs(cast("Connection", explaining), page)
    nodes.newest(cast("Connection", explaining), "default", "a", 1000)
    nodes.newest(cast("Connection", explaining), "default", "", 1000)
    for word in ("Sort", "TEMP B-TREE", "Seq Scan"):
        assert word not in explaining.plan, explaining.plan


def test_what_is_asked_of_one_turn_node_or_session_reads_an_index(explaining: Explaining) -> None:
    connection = cast("Connection", explaining)
    reads.turn(connection, "default", "t")
    reads.ancestry(connection, "default", "00" * 32, 100)
    reads.session(connection, "default", "s")
    reads.run(connection, "default", "r")
    turn = structs.replace(EXAMPLE, request_id="r")
    reads.attempts(connection, turn)
    for word in ("Seq Scan", "SCAN t ", "SCAN n ", "SCAN nodes", "SCAN turns"):
        assert word not in explaining.plan, explaining.plan


def test_usage_of_days_does_not_read_that_of_sessions(explaining: Explaining) -> None:
    connection = cast("Connection", explaining)
    reads.usage(connection, "default", ("day", "model"), ("2026-01-01", "2026-02-01"), 100)
    assert "usage_days" in explaining.plan
    assert "Seq Scan" not in explaining.plan


def test_forgetting_a_session_reads_what_is_the_sessions_alone(explaining: Explaining) -> None:
    """Never all that the tenant has: other writers wait meanwhile."""
    deletion.forget_session(cast("Connection", explaining), "default", "s")
    assert "node_sessions_hash" in explaining.plan
    for words in ("node_sessions_1 (tenant=?)", "steps_agent (", "steps_provider (", "Seq Scan"):
        assert words not in explaining.plan, explaining.plan
