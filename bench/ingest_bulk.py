"""A large ingest database in a minute: rows as the service would write them, loaded beside it.

PostgreSQL takes them by COPY, SQLite by ``executemany``; secondary indexes are dropped before and
made again after, which is how anybody loads a table. Bodies are empty: no list reads them. Ids and keys
begin with the time and hashes of nodes fall anywhere, as real ones do, so later turns meet indexes of the
real size and disorder.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256

import psycopg

from ingest.ids import RANDOM_BYTES, uuid7
from ingest.store import tables
from ingest.store.connection import Connection, Engine, Value
from ingest.store.engines import engine_of
from ingest.store.keys import key_hash
from ingest.store.postgres import PostgresEngine
from ingest.store.rows import COUNTS, RunRow, SessionRow, StepRow, UsageRow

TENANT = "default"
TALK = 10
"""Turns of one session: two runs of five."""
SPAN_US = 28 * 86_400_000_000
"""The turns are spread over the last four weeks, whatever their number."""
_AT_ONCE = 20_000
_FIRST_MS = 1_700_000_000_000
"""When ids and keys begin: before those of every turn that comes later."""
Rows = Iterator[tuple[Value, ...]]


def session_of(number: int) -> str:
    """The id of the session that turn ``number`` belongs to."""
    return sha256(f"session {number // TALK}".encode()).hexdigest()[:32]


def run_of(number: int) -> str:
    """The id of the run that turn ``number`` belongs to."""
    return sha256(f"run {number // 5}".encode()).hexdigest()[:32]


def node_of(number: int) -> bytes:
    """The hash of the node that turn ``number`` added to its conversation."""
    return sha256(b"node %d" % number).digest()


def id_of(number: int) -> str:
    """The id of turn ``number``."""
    return uuid7(_FIRST_MS + number, number.to_bytes(RANDOM_BYTES, "big"))


def key_of(number: int) -> str:
    """The request id that turn ``number`` came with."""
    return uuid7(_FIRST_MS + number, number.to_bytes(RANDOM_BYTES, "little"))


class Clock:
    """When each of ``total`` turns came."""

    def __init__(self, total: int) -> None:
        self._step = SPAN_US // total
        self._first = time.time_ns() // 1000 - SPAN_US

    def at(self, number: int) -> int:
        """Microseconds since the epoch."""
        return self._first + number * self._step


def _agent(number: int) -> str:
    """One of twenty, and in every ten thousandth session one that hardly anybody uses."""
    talk = number // TALK
    return "agent-rare" if talk % 10_000 == 1 else f"agent-{talk % 20}"


def _provider(number: int) -> str:
    return "anthropic" if number // TALK % 100 else "openai"


def _model(number: int) -> str:
    talk = number // TALK
    return "model-rare" if talk % 10_000 == 2 else f"model-{talk % 5}"


def _turns(numbers: Sequence[int], clock: Clock) -> Rows:
    for number in numbers:
        key = key_of(number)
        rejected = number % 50_000 == 7
        # fmt: off
        yield (
            number, id_of(number), TENANT, "", "wire", "rejected" if rejected else "accepted", "", key, 0,
            _provider(number), _agent(number), _model(number), "bench", f"b{number // TALK}", "",
            clock.at(number), 10_240, 0, key_hash(TENANT, key), b"", number.to_bytes(16, "big"),
        )
        # fmt: on


def _bodies(numbers: Sequence[int], _: Clock) -> Rows:
    return ((number, b"{}", b"{}", b"{}", b"", b"", "") for number in numbers)


def _nodes(numbers: Sequence[int], _: Clock) -> Rows:
    for number in numbers:
        parent = node_of(number - 1) if number % 1000 else None
        names = (_provider(number), _model(number), _agent(number))
        yield (TENANT, node_of(number), parent, "user", 1, *names, number, 0, b'[{"type":"text","text":"x"}]')


def _node_agents(numbers: Sequence[int], _: Clock) -> Rows:
    for number in numbers:
        yield (TENANT, _agent(number), node_of(number), _provider(number), _model(number), number, 0)


def _node_sessions(numbers: Sequence[int], _: Clock) -> Rows:
    return ((TENANT, session_of(number), node_of(number), _agent(number)) for number in numbers)


def _steps(numbers: Sequence[int], clock: Clock) -> Rows:
    for number in numbers:
        yield tables.values(
            StepRow(
                seq=number,
                tenant=TENANT,
                session_id=session_of(number),
                run_id=run_of(number),
                agent_name=_agent(number),
                provider=_provider(number),
                model=_model(number),
                received_at_us=clock.at(number),
                kind="chat_turn",
                operation="generate",
                status="completed",
                result="stop",
                stop_reason="end_turn",
                leaf=node_of(number),
                duration_ns=0,
                label="a label of some words",
                excerpt="a text of some words " * 5,
                tool_calls=0,
                input_tokens=100,
                output_tokens=10,
                total_tokens=110,
                cache_read_tokens=None,
                cache_write_tokens=None,
                reasoning_tokens=None,
            )
        )


def _sessions(numbers: Sequence[int], clock: Clock) -> Rows:
    for first in numbers[::TALK]:
        last = first + TALK - 1
        yield tables.values(
            SessionRow(
                tenant=TENANT,
                id=session_of(first),
                harness_id="bench",
                harness_session_id=f"b{first // TALK}",
                label="a label of some words",
                first_at_us=clock.at(first),
                last_at_us=clock.at(last),
                first_seq=first,
                last_seq=last,
                turns=TALK,
                input_tokens=1000,
                output_tokens=100,
                total_tokens=1100,
            )
        )


def _runs(numbers: Sequence[int], clock: Clock) -> Rows:
    for first in numbers[::5]:
        yield tables.values(
            RunRow(
                tenant=TENANT,
                id=run_of(first),
                session_id=session_of(first),
                thread_id="",
                agent_name=_agent(first),
                kind="chat_turn",
                status="completed",
                label="a label of some words",
                first_at_us=clock.at(first),
                last_at_us=clock.at(first + 4),
                first_seq=first,
                last_seq=first + 4,
                steps=5,
                input_tokens=500,
                output_tokens=50,
                total_tokens=550,
            )
        )


def _usage(numbers: Sequence[int], clock: Clock) -> Rows:
    for first in numbers[::TALK]:
        yield tables.values(
            UsageRow(
                tenant=TENANT,
                day=datetime.fromtimestamp(clock.at(first) / 1e6, UTC).date().isoformat(),
                provider=_provider(first),
                model=_model(first),
                agent_name=_agent(first),
                session_id=session_of(first),
                turns=TALK,
                input_tokens=1000,
                output_tokens=100,
                total_tokens=1100,
            )
        )


TABLES = {
    "turns": _turns,
    "bodies": _bodies,
    "steps": _steps,
    "sessions": _sessions,
    "runs": _runs,
    "nodes": _nodes,
    "node_agents": _node_agents,
    "node_sessions": _node_sessions,
    "usage": _usage,
}


_SUMS = ", ".join(f"sum({name})" for name in COUNTS)
_USAGE_DAYS = (
    f"INSERT INTO usage_days SELECT tenant, day, provider, model, agent_name, {_SUMS} FROM usage"
    " GROUP BY tenant, day, provider, model, agent_name"
)


def lists(total: int) -> list[str]:
    """Every list, by its path: each filter, the first page and one from the middle; rare values as well."""
    middle = total // 2
    at = datetime.fromtimestamp(Clock(total).at(middle) / 1e6, UTC)
    cursor = f"cursor={int(at.timestamp() * 1e6)}-{middle}"
    filters = (
        "",
        "agent=agent-3",
        "agent=agent-rare",
        "model=model-3",
        "model=model-rare",
        "provider=openai",
        "provider=nobody",
        "state=accepted",
        "state=rejected",
        "agent=agent-3&model=model-3&provider=anthropic",
        "agent=agent-3&model=model-rare",
        "provider=anthropic&agent=agent-rare",
        "state=rejected&agent=agent-3",
        f"session={session_of(middle)}",
        f"request_id={key_of(77)}",
        f"until={at:%Y-%m-%dT%H:%M:%SZ}",
        f"since={at:%Y-%m-%dT%H:%M:%SZ}",
        f"agent=agent-3&until={at:%Y-%m-%dT%H:%M:%SZ}",
    )
    return [
        *(f"/v1/turns?{words}" for words in filters),
        *(f"/v1/turns?{words}&{cursor}" for words in filters[:10]),
        f"/v1/turns/{id_of(middle)}",
        "/v1/sessions",
        f"/v1/sessions?cursor={int(at.timestamp() * 1e6)}-z",
        f"/v1/sessions/{session_of(middle)}",
        f"/v1/runs/{run_of(middle)}",
        f"/v1/nodes/{node_of(middle - 1).hex()}",
        "/v1/ingest/nodes",
        "/v1/ingest/nodes?agent=agent-3",
        "/v1/ingest/nodes?agent=agent-rare",
        "/v1/usage",
        "/v1/usage?by=day,model,provider,agent_name",
        "/v1/usage?by=session_id",
        "/metrics",
    ]


def load(url: str, count: int) -> None:
    """Fill the empty database with ``count`` turns (a multiple of 1,000) and what follows from them."""
    engine = engine_of(url)
    engine.prepare()
    connection = engine.writer()
    connection.begin()
    connection.allocate(count)
    connection.commit()
    indexes = _drop_indexes(engine, connection)
    clock = Clock(count)
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, count))
        _put(engine, connection, url, {table: rows(numbers, clock) for table, rows in TABLES.items()})
    for sql in (*indexes, _USAGE_DAYS):
        connection.run(sql)
    if isinstance(engine, PostgresEngine):
        connection.run("ANALYZE")  # autovacuum would do it within a minute
        connection.run("CHECKPOINT")
    connection.close()


def _drop_indexes(engine: Engine, connection: Connection) -> list[str]:
    """Drop the secondary indexes; the statements that make them again."""
    if isinstance(engine, PostgresEngine):
        found = connection.run(
            "SELECT i.indexname, i.indexdef FROM pg_indexes i LEFT JOIN pg_constraint c"
            " ON c.conname = i.indexname WHERE i.schemaname = 'public' AND c.conname IS NULL"
        )
    else:
        found = connection.run("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    for name in [str(row[0]) for row in found]:
        connection.run(f"DROP INDEX {name}")
    return [str(sql) for _, sql in found]


def _put(engine: Engine, connection: Connection, url: str, rows: dict[str, Rows]) -> None:
    if isinstance(engine, PostgresEngine):
        with psycopg.connect(url) as session, session.cursor() as cursor:
            for table, ones in rows.items():
                with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                    for row in ones:
                        copy.write_row(row)
        return
    connection.begin()
    for table, ones in rows.items():
        values = list(ones)
        marks = ", ".join("?" * len(values[0]))
        connection.run_many(f"INSERT INTO {table} VALUES ({marks})", values)
    connection.commit()
