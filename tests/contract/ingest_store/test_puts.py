"""The store's contract, the same for each engine: what a put answers and what stays."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from ingest.store import reads, turns
from ingest.store.connection import BusyError, Connection, StoreError, UnavailableError
from ingest.store.engines import engine_of
from ingest.store.postgres import PostgresEngine
from ingest.store.rows import Fate, State
from ingest.store.schema import NewerSchemaError
from ingest.store.store import Store
from ingest.store.writer import WriteLimits
from tests.unit.ingest.rows import new_turn


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncGenerator[Store]:
    opened = Store(engine_of(database_url))
    await opened.open()
    yield opened
    await opened.close()


async def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    return cast("list[tuple[Any, ...]]", await store.read(lambda connection: connection.run(sql)))


async def test_everybody_who_has_turns_is_named_once(store: Store) -> None:
    assert await store.read(reads.tenants) == []
    await store.put(
        [new_turn(f"{tenant} {n}", tenant=tenant) for tenant in ("b", "A", "a-1") for n in range(3)]
    )
    found = await store.read(reads.tenants)
    assert (len(found), set(found)) == (3, {"a-1", "A", "b"})


async def test_a_body_comes_back_as_it_went_in(store: Store) -> None:
    for size in (0, 10, 5_000, 3_000_000):
        (put,) = await store.put([new_turn(f"{size}\x00\xff", size=size)])
        (seq,) = (await rows(store, f"SELECT seq FROM turns WHERE id = '{put.id}'"))[0]
        body = await store.read(partial(turns.body, seq=seq))
        assert body is not None
        assert body.request == b'"' + f"{size}\x00\xff".encode() + b"x" * size + b'"'


async def test_turns_without_a_key_are_always_new(store: Store) -> None:
    answers = await store.put([new_turn("same") for _ in range(3)])
    assert [answer.fate for answer in answers] == [Fate.STORED] * 3


async def test_within_one_group_the_first_wins(store: Store) -> None:
    one, two, three = await store.put(
        [new_turn("a", key="k"), new_turn("a", key="k"), new_turn("b", key="k")]
    )
    assert (one.fate, two.fate, two.id) == (Fate.STORED, Fate.DUPLICATE, one.id)
    assert (three.fate, three.reused) == (Fate.STORED, True)


async def test_a_strict_key_conflicts_and_the_other_body_is_kept_rejected(store: Store) -> None:
    await store.put([new_turn("a", key="k", strict=True)])
    (again,) = await store.put([new_turn("b", key="k", strict=True)])
    (third,) = await store.put([new_turn("b", key="k", strict=True)])
    assert [again.fate, third.fate] == [Fate.CONFLICT] * 2
    assert again.id == third.id
    assert await rows(store, "SELECT state FROM turns ORDER BY seq") == [("accepted",), ("rejected",)]


async def test_a_rejected_turn_holds_no_key_and_waits_to_be_told_of(store: Store) -> None:
    await store.put([new_turn("a", key="k", state=State.REJECTED)])
    (accepted,) = await store.put([new_turn("a", key="k")])
    assert accepted.fate is Fate.STORED
    assert not accepted.reused
    assert await rows(store, "SELECT count(*) FROM pending") == [(2,)]


async def test_keys_are_their_tenants_own(store: Store) -> None:
    answers = await store.put([new_turn("a", key="k", tenant=tenant) for tenant in ("t", "u")])
    assert [answer.fate for answer in answers] == [Fate.STORED] * 2


async def test_sequence_numbers_are_never_given_twice(store: Store) -> None:
    await store.put([new_turn() for _ in range(5)])
    before = (await rows(store, "SELECT max(seq) FROM turns"))[0][0]
    await store.write(lambda connection: connection.run("DELETE FROM turns"))
    await store.put([new_turn()])
    assert (await rows(store, "SELECT min(seq) FROM turns"))[0][0] > before


async def test_two_stores_on_one_database_agree_on_duplicates(database_url: str) -> None:
    """Several instances on PostgreSQL; on SQLite two processes by mistake."""
    first, second = Store(engine_of(database_url)), Store(engine_of(database_url))
    await first.open()
    await second.open()
    for turn_number in range(20):
        answers = await asyncio.gather(
            *(
                one.put([new_turn("same", key=f"k{turn_number}", strict=True)])
                for one in (first, second, first, second)
            )
        )
        fates = sorted(answer[0].fate for answer in answers)
        assert fates == ["duplicate", "duplicate", "duplicate", "stored"]
    assert await rows(first, "SELECT count(*) FROM turns") == [(20,)]
    await first.close()
    await second.close()


async def test_somebodys_bad_work_costs_nobody_else_anything(store: Store) -> None:
    def bad(connection: Connection) -> None:
        connection.run("INSERT INTO pending VALUES (-1)")
        raise ZeroDivisionError

    results = await asyncio.gather(
        store.put([new_turn("a")]), store.write(bad), store.put([new_turn("b")]), return_exceptions=True
    )
    assert isinstance(results[1], ZeroDivisionError)
    assert await rows(store, "SELECT count(*) FROM turns") == [(2,)]
    assert await rows(store, "SELECT count(*) FROM pending WHERE seq = -1") == [(0,)]


async def test_work_that_always_collides_is_given_up(store: Store) -> None:
    await store.write(lambda connection: connection.run("INSERT INTO pending VALUES (-1)"))
    with pytest.raises(StoreError, match="colliding"):
        await store.write(lambda connection: connection.run("INSERT INTO pending VALUES (-1)"))


async def test_a_full_queue_refuses_by_number_and_by_bytes(database_url: str) -> None:
    store = Store(engine_of(database_url), WriteLimits(queue_jobs=4, queue_bytes=10_000))
    await store.open()
    puts = [store.put([new_turn(size=100)]) for _ in range(10)]
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(result, BusyError) for result in results) == 6
    results = await asyncio.gather(
        *(store.put([new_turn(noise=12_000)]) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(result, BusyError) for result in results) == 2, "one is always let through"
    await store.close()
    with pytest.raises(UnavailableError, match="closing"):
        await store.put([new_turn()])


async def test_what_was_stored_is_there_after_a_restart(database_url: str) -> None:
    for number in range(3):
        store = Store(engine_of(database_url))
        await store.open()
        assert await rows(store, "SELECT count(*) FROM turns") == [(number,)]
        await store.put([new_turn()])
        await store.close()


async def test_a_newer_schema_is_refused(database_url: str) -> None:
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    postgres = isinstance(engine, PostgresEngine)
    connection.run("UPDATE schema_version SET version = 99" if postgres else "PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerSchemaError, match="99"):
        engine.prepare()


def test_a_reader_cannot_write(database_url: str) -> None:
    engine = engine_of(database_url)
    engine.prepare()
    reader = engine.reader()
    with pytest.raises(Exception, match=r"readonly|read-only"):
        reader.run("DELETE FROM turns")
    reader.close()


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    for url in ("postgresql://127.0.0.1:1/x", f"sqlite:///{tmp_path}/none/x.db"):
        with pytest.raises(UnavailableError):
            engine_of(url).reader()


def test_an_acknowledged_commit_is_flushed(database_url: str) -> None:
    """T19: fsync and synchronous_commit are asserted on, not assumed."""
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    if isinstance(engine, PostgresEngine):
        assert connection.run("SHOW fsync") == [("on",)]
        assert connection.run("SHOW synchronous_commit") == [("on",)]
    else:
        assert connection.run("PRAGMA journal_mode") == [("wal",)]
        assert connection.run("PRAGMA synchronous") == [(2,)], "FULL"
    connection.close()
