"""Connections that never ask for anything: they are closed in time, and take nobody's place."""

import asyncio
import contextlib
import json
import os
import resource
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import MagicMock

import httpx
import pytest

from ingest import protocol
from ingest.app import listen, serve
from ingest.settings import IngestSettings
from tests.patience import becomes
from tests.unit.ingest.running import turn

HALF = b"POST /v1/ingest HTTP/1.1\r\nhost: x\r\nx-a: "
WHOLE = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def serving(directory: Path) -> AsyncGenerator[tuple[str, int]]:
    sock = listen("127.0.0.1:0")
    host, port = sock.getsockname()
    running = asyncio.ensure_future(serve(IngestSettings(database_url=f"sqlite:///{directory}/x.db"), sock))
    await becomes(lambda: answers(host, port), expected=True)
    try:
        yield host, port
    finally:
        if not running.done():  # nobody else would take the signal, and it would end the whole run
            os.kill(os.getpid(), signal.SIGTERM)
        await running


async def answers(host: str, port: int) -> bool:
    async with httpx.AsyncClient(timeout=30) as client:
        try:
            return (await client.get(f"http://{host}:{port}/ping")).status_code == 200
        except httpx.TransportError:
            return False


async def ended(reader: asyncio.StreamReader, within_s: float = 20.0) -> bool:
    """Whether the service closes the connection in time, which is before its own thirty seconds are over."""
    try:
        await asyncio.wait_for(reader.read(), within_s)
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


async def closed(host: str, port: int, reason: str) -> float:
    async with httpx.AsyncClient(timeout=30) as client:
        lines = (await client.get(f"http://{host}:{port}/metrics")).text.splitlines()
    name = f'steno_ingest_connections_closed_total{{reason="{reason}"}} '
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


@pytest.mark.parametrize(
    ("said", "more"),
    [(b"", b""), (HALF, b"a"), (b"\r\n", b"\r\n"), (WHOLE + HALF, b"a")],
    ids=["none", "half", "line", "second"],
)
async def test_a_connection_without_a_whole_head_is_closed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, more: bytes
) -> None:
    """Also one that goes on with a byte now and then, and one whose first request was answered."""
    async with serving(tmp_path) as (host, port):
        with monkeypatch.context() as hasty:  # with this connection only
            hasty.setattr(protocol, "HEAD_S", 0.3)
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.suppress(ConnectionError):  # closed already: we were slow
                for part in (said, more, more):
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.05)
            assert await ended(reader)
        assert await closed(host, port, "no_head") == 1
        writer.close()


async def test_a_request_that_takes_longer_than_a_head_may_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its connection may rest, and be used again."""
    monkeypatch.setattr(protocol, "HEAD_S", 1.0)

    async def slowly() -> AsyncGenerator[bytes]:
        yield b" " * 10
        await asyncio.sleep(1.5)
        yield json.dumps(turn()).encode()

    async with serving(tmp_path) as (host, port), httpx.AsyncClient(timeout=30) as client:
        head = {"content-type": "application/json"}
        answer = await client.post(f"http://{host}:{port}/v1/ingest", content=slowly(), headers=head)
        assert answer.status_code == 202
        await asyncio.sleep(1.5)
        assert (await client.get(f"http://{host}:{port}/ping")).status_code == 200
        assert await closed(host, port, "no_head") == 0


async def test_when_there_is_no_room_the_longest_silent_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a thousand silent connections keep nobody out who asks."""
    async with serving(tmp_path) as (host, port):
        monkeypatch.setattr(protocol, "most_connections", lambda: 5)
        silent = [await asyncio.open_connection(host, port) for _ in range(20)]
        assert await answers(host, port)
        assert await closed(host, port, "crowded") >= 15
        assert await ended(silent[0][0])
        assert not await ended(silent[-1][0], 1.0), "who came last has waited least"
        for _, writer in silent:
            writer.close()


async def test_where_everybody_is_at_work_a_new_one_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = (
        b"POST /v1/ingest HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 9\r\nexpect: 100-continue\r\n\r\n"
    )
    async with serving(tmp_path) as (host, port):
        monkeypatch.setattr(protocol, "most_connections", lambda: 2)
        busy = [await asyncio.open_connection(host, port) for _ in range(2)]
        for reader, writer in busy:
            writer.write(head)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not await answers(host, port)
        for reader, writer in busy:
            writer.write(b"{}       ")
            assert (await reader.readline()).startswith(b"HTTP/1.1 422")
            writer.close()
        await becomes(lambda: answers(host, port), expected=True)


def test_the_stores_files_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in (
        (1024, 960),
        (80, 16),
        (10, 1),
        (1 << 20, 10_000),
        (resource.RLIM_INFINITY, 10_000),
    ):
        monkeypatch.setattr(resource, "getrlimit", MagicMock(return_value=(soft, soft)))
        assert protocol.most_connections() == most
