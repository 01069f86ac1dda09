"""Migrations, the same for each engine: from every version, with turns in it, once, all or nothing."""

import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from ingest.ids import uuid7
from ingest.store import turns
from ingest.store.connection import Connection, Row
from ingest.store.engines import engine_of
from ingest.store.keys import key_hash
from ingest.store.portable import schema_version
from ingest.store.postgres import PostgresEngine
from ingest.store.rows import Fate, State
from ingest.store.schema import STEPS
from ingest.store.sqlite import SqliteEngine
from tests.unit.ingest.rows import new_turn

ADDING = (
    "ALTER TABLE turns ADD COLUMN extra {int} NOT NULL DEFAULT 7; CREATE INDEX turns_extra ON turns (extra);"
)
BREAKING = "CREATE TABLE half (x {int}); CREATE TABLE turns (seq {int});"


def use(monkeypatch: pytest.MonkeyPatch, steps: Sequence[str]) -> None:
    """Let both engines be of a release that knows ``steps``."""
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"ingest.store.{module}.STEPS", tuple(steps))


def read(url: str, sql: str) -> list[Row]:
    connection = engine_of(url).reader()
    found = connection.run(sql)
    connection.close()
    return found


def layout(url: str) -> list[Row]:
    """Every table, column and index of a store."""
    if isinstance(engine_of(url), PostgresEngine):
        columns = read(
            url,
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, ordinal_position",
        )
        return columns + read(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    return read(url, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY 1")


def version(url: str) -> int:
    connection = engine_of(url).reader()
    found = schema_version(connection)
    connection.close()
    return found


def put_one(connection: Connection) -> None:
    turns.put(connection, [new_turn("kept", key="k")])


@pytest.mark.parametrize("known", range(len(STEPS) + 1))
def test_a_store_of_every_earlier_version_becomes_this_ones(
    database_url: str, monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    """Its layout is then that of a new store, and what was in it stays."""
    if known:
        use(monkeypatch, STEPS[:known])
        engine_of(database_url).prepare()
        connection = engine_of(database_url).writer()
        put_one(connection)
        connection.close()
        monkeypatch.undo()
    engine_of(database_url).prepare()
    assert version(database_url) == len(STEPS)
    connection = engine_of(database_url).writer()
    put_one(connection)
    connection.close()
    assert read(database_url, "SELECT count(*) FROM turns") == [(1,)], "the same turn again is a duplicate"


def test_the_next_step_keeps_what_is_there(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of(database_url).prepare()
    before = layout(database_url)
    connection = engine_of(database_url).writer()
    put_one(connection)
    connection.close()
    use(monkeypatch, (*STEPS, ADDING))
    engine_of(database_url).prepare()
    assert version(database_url) == len(STEPS) + 1
    assert read(database_url, "SELECT request_id, extra FROM turns") == [("k", 7)]
    assert layout(database_url) != before
    engine_of(database_url).prepare()
    assert version(database_url) == len(STEPS) + 1


def test_a_step_that_fails_changes_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_of(database_url).prepare()
    before = layout(database_url)
    use(monkeypatch, (*STEPS, BREAKING))
    with pytest.raises(Exception, match="turns"):
        engine_of(database_url).prepare()
    assert version(database_url) == len(STEPS)
    assert layout(database_url) == before


def test_of_several_instances_one_migrates_and_the_others_wait(database_url: str) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def prepare() -> None:
        start.wait()
        try:
            engine_of(database_url).prepare()
        except BaseException as error:  # noqa: BLE001 -- told by the assertion
            failures.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert version(database_url) == len(STEPS)


def test_a_file_that_somebody_holds_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own busy timeout does not apply where the journal's mode changes."""
    engine = SqliteEngine(tmp_path / "ingest.db")
    held = engine.writer()
    held.run("PRAGMA journal_mode=DELETE")
    held.begin()
    let_go = threading.Timer(0.3, held.rollback)
    let_go.start()
    try:
        engine.prepare()
    finally:
        let_go.join()
        held.close()
    assert version(f"sqlite:///{engine.path}") == len(STEPS)


@pytest.mark.parametrize("strict", [True, False])
def test_a_turn_of_an_earlier_version_is_still_known_by_its_key(
    database_url: str, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """Hashes of keys that are UUIDv7 stood anywhere before: a retry must find them in their new place."""
    new = [
        new_turn(f"{number}", key=key, strict=strict, tenant=tenant, state=state)
        for number, key in enumerate((uuid7(1_700_000_000_000, b"0123456789"), uuid7(7, bytes(10)), "k"))
        for tenant in ("a", "b")
        for state in State
    ]
    use(monkeypatch, STEPS[:3])
    monkeypatch.setattr(turns, "key_hash", hash_of_version_3)
    engine_of(database_url).prepare()
    connection = engine_of(database_url).writer()
    stored = turns.put(connection, new)
    connection.close()
    monkeypatch.undo()
    engine_of(database_url).prepare()
    connection = engine_of(database_url).writer()
    again = turns.put(connection, [structs.replace(one, id=f"again {n}") for n, one in enumerate(new)])
    connection.close()
    assert [(put.fate, put.id) for put in again] == [(Fate.DUPLICATE, put.id) for put in stored]
    found = read(database_url, "SELECT key_hash, tenant, request_id FROM turns")
    assert len(found) == len(new)
    assert all(hashed == key_hash(str(tenant), str(key)) for hashed, tenant, key in found)


def hash_of_version_3(tenant: str, key: str) -> bytes:
    """What an idempotency key was known by up to version 3."""
    return sha256(f"{tenant}\0{key}".encode()).digest()[:16]


def test_the_usage_of_days_is_summed_from_that_of_sessions(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, STEPS[:1])
    engine_of(database_url).prepare()
    connection = engine_of(database_url).writer()
    for row in (
        ("default", "2026-01-01", "p", "m", "a", "s1", 1, 10, 20, 30, 0, 0, 0),
        ("default", "2026-01-01", "p", "m", "a", "s2", 2, 1, 2, 3, 4, 5, 6),
        ("default", "2026-01-02", "p", "m", "a", "s1", 1, 7, 0, 7, 0, 0, 0),
    ):
        connection.run(f"INSERT INTO usage VALUES ({', '.join('?' * len(row))})", row)
    connection.close()
    monkeypatch.undo()
    engine_of(database_url).prepare()
    assert read(database_url, "SELECT * FROM usage_days ORDER BY day") == [
        ("default", "2026-01-01", "p", "m", "a", 3, 11, 22, 33, 4, 5, 6),
        ("default", "2026-01-02", "p", "m", "a", 1, 7, 0, 7, 0, 0, 0),
    ]


def test_the_nodes_of_a_session_get_the_agents_of_its_steps(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them holds which is known once everything is derived again."""
    use(monkeypatch, STEPS[:6])
    engine_of(database_url).prepare()
    connection = engine_of(database_url).writer()
    texts = ("s", "r")
    for seq, agent in enumerate(("a", "b", "a")):
        names = ("default", *texts, agent, "p", "m")
        step = (seq, *names, 1, *("x",) * 5, None, 0, "", "", 0, *(None,) * 6)
        connection.run(f"INSERT INTO steps VALUES ({', '.join('?' * len(step))})", step)
    connection.run("INSERT INTO node_sessions VALUES (?, ?, ?)", ("default", "s", b"h"))
    connection.close()
    monkeypatch.undo()
    engine_of(database_url).prepare()
    assert read(
        database_url, "SELECT session_id, hash, agent_name FROM node_sessions ORDER BY agent_name"
    ) == [
        ("s", b"h", "a"),
        ("s", b"h", "b"),
    ]
