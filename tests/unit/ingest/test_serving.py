"""The service as a process: it says when it is ready, and it leaves without losing anything."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from ingest.app import StartError, build, running, serve
from ingest.settings import IngestSettings
from tests.paths import PROJECT
from tests.patience import eventually
from tests.unit.ingest.rows import new_turn
from tests.unit.ingest.running import turn

pytestmark = pytest.mark.timeout(300)

SERVE = """
import asyncio, json, sys
from ingest.app import serve
from ingest.settings import IngestSettings
settings = {"listen": "127.0.0.1:0", "database_url": sys.argv[1]} | json.loads(sys.argv[2])
asyncio.run(serve(IngestSettings(**settings)))
"""


@contextlib.asynccontextmanager
async def process(
    database: Path, **settings: str | float
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    arguments = (f"sqlite:///{database}", json.dumps(settings))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, *arguments, cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    line = (await asyncio.wait_for(child.stdout.readline(), 60)).decode()
    assert line.startswith("steno ingest ready on http://")
    try:
        yield child, line.split()[-1]
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def stored(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM turns").fetchone()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_every_202_is_on_disk(tmp_path: Path, number: signal.Signals) -> None:
    database = tmp_path / "x.db"
    accepted = 0
    async with process(database) as (child, url), httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def post(index: int) -> None:
            nonlocal accepted
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post("/v1/ingest", json=turn(str(index)))
                accepted += answer.status_code == 202

        posts = [asyncio.ensure_future(post(index)) for index in range(100)]
        await eventually(lambda: accepted > 0, 60)
        os.kill(child.pid, number)
        await asyncio.gather(*posts)
        assert await asyncio.wait_for(child.wait(), 60) == 0
    assert stored(database) == accepted


async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    """Send the head of a turn; return once the service waits for its body, of so many bytes."""
    head = (
        "POST /v1/ingest HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("drain_s", [0, 0.5])
async def test_a_short_drain_is_short(tmp_path: Path, drain_s: float) -> None:
    """A request that never comes to its end holds the stop up for a second, and not for ever."""
    async with process(tmp_path / "x.db", drain_s=drain_s) as (child, url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await begin(reader, writer, 9)
        os.kill(child.pid, signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 20) == 0
        writer.close()


async def test_a_request_that_is_half_sent_is_answered_before_the_end(tmp_path: Path) -> None:
    body = json.dumps(turn()).encode()
    async with process(tmp_path / "x.db") as (child, url):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await begin(reader, writer, len(body))
        writer.write(body[:20])
        os.kill(child.pid, signal.SIGTERM)
        await asyncio.sleep(0.2)  # in which it must not leave
        writer.write(body[20:])
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 202")
        writer.close()
        assert await asyncio.wait_for(child.wait(), 60) == 0
    assert stored(tmp_path / "x.db") == 1


async def test_the_address_it_is_ready_on_can_be_asked_as_it_is_printed(tmp_path: Path) -> None:
    """An IPv6 address has brackets in a URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with (
        process(tmp_path / "x.db", listen="[::1]:0") as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        assert url.startswith("http://[::1]:")
        assert (await client.get("/healthz")).status_code == 200


async def test_a_taken_port_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = IngestSettings(listen=address, database_url=f"sqlite:///{tmp_path}/x.db")
        with pytest.raises(StartError, match=f"cannot listen on {address}"):
            await serve(settings)


async def test_a_new_database_is_its_owners_alone(tmp_path: Path) -> None:
    """Bodies are in it, whatever the umask; what somebody made before keeps the mode that they gave it."""
    before = os.umask(0o022)
    try:
        for folder in (tmp_path / "made", tmp_path):
            application = build(IngestSettings(database_url=f"sqlite:///{folder}/x.db"))
            async with running(application) as service:
                await service.store.put([new_turn("x")])
                modes = {file.name: file.stat().st_mode & 0o777 for file in folder.glob("x.db*")}
                assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
        (tmp_path / "x.db").chmod(0o640)
        async with running(build(IngestSettings(database_url=f"sqlite:///{tmp_path}/x.db"))):
            assert (tmp_path / "x.db").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


async def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        database.execute("PRAGMA user_version=999")
    application = build(IngestSettings(database_url=f"sqlite:///{tmp_path}/x.db"))
    with pytest.raises(StartError, match="999"):
        async with running(application):
            raise AssertionError("it must not open")


async def test_a_database_that_cannot_be_opened_is_an_error_with_its_reason(tmp_path: Path) -> None:
    application = build(IngestSettings(database_url=f"sqlite:///{tmp_path}"))
    with pytest.raises(StartError, match="cannot be used"):
        async with running(application):
            raise AssertionError("it must not open")


def test_an_unknown_database_is_refused() -> None:
    with pytest.raises(StartError, match="database_url"):
        build(IngestSettings(database_url="mysql://x"))


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"max_body_bytes must be .*; queue_jobs must be"):
        IngestSettings(max_body_bytes=1, queue_jobs=0)
