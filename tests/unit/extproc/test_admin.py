"""The admin pages over real sockets: what is asked rightly, wrongly, slowly, or by too many."""

import asyncio
import json
import logging
import socket
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from extproc import admin, http1
from extproc.admin import AdminPages, AdminServer
from extproc.transport.address import AddressError, TcpAddress, UnixAddress
from tests.patience import becomes

HEAD_END = b"\r\n\r\n"


async def broken() -> bytes:
    raise ValueError("no metrics today")


def pages(**others: Callable[[], Awaitable[object]]) -> AdminPages:
    """Pages of fixed content, some of them given."""

    async def metrics() -> bytes:
        return b"steno_up 1\n"

    async def state() -> dict[str, object]:
        return {"where": Path("spool"), "open": 3}

    async def ready() -> str:
        return ""

    return AdminPages(**{"metrics": metrics, "state": state, "ready": ready, **others})  # type: ignore[arg-type]


def serving(given: AdminPages) -> AbstractAsyncContextManager[TcpAddress]:
    return running(AdminServer(TcpAddress("127.0.0.1", 0), given))


@asynccontextmanager
async def running(server: AdminServer) -> AsyncGenerator[TcpAddress]:
    await server.start()
    assert isinstance(server.address, TcpAddress)
    try:
        yield server.address
    finally:
        await server.stop()


async def said(address: TcpAddress, *sent: bytes) -> bytes:
    """Everything that the server answers to these bytes, sent one after another, until it closes."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        for each in sent:
            writer.write(each)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        await hung_up(writer)


async def served(address: TcpAddress) -> bool:
    """Whether a page comes, and no end of the connection."""
    try:
        return (await asked(address, "/healthz"))[0] == 200
    except (ConnectionError, IndexError):  # closed before it was read, or at once
        return False


async def hung_up(writer: Writer) -> None:
    """Close a connection, and see it closed: nothing of it outlives the test."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def worker(path: Path, answering: Callable[[Reader, Writer], Awaitable[None]]) -> AsyncGenerator[None]:
    """A socket behind which one connection is treated so."""
    over = asyncio.Event()

    async def connected(reader: Reader, writer: Writer) -> None:
        try:
            await answering(reader, writer)
        finally:
            await hung_up(writer)
            over.set()

    async with await asyncio.start_unix_server(connected, path):
        yield
        await asyncio.wait_for(over.wait(), 20)


def get(path: str, method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: steno", *headers, "", "")).encode()


async def asked(address: TcpAddress, request: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    head, _, body = (await said(address, get(request, method, "Connection: close"))).partition(HEAD_END)
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ") for line in lines)}, body


async def test_every_page_has_its_type() -> None:
    async with serving(pages()) as address:
        status, headers, body = await asked(address, "/metrics")
        assert (status, body) == (200, b"steno_up 1\n")
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert headers["content-length"] == "11"
        status, headers, body = await asked(address, "/state?pretty=1")
        assert (status, json.loads(body)) == (200, {"where": "spool", "open": 3})
        assert headers["content-type"].startswith("application/json")
        assert json.loads((await asked(address, "/healthz"))[2]) == {"status": "ok"}
        assert json.loads((await asked(address, "/readyz"))[2]) == {"status": "ready"}


async def test_who_is_not_ready_says_why() -> None:
    async def why() -> str:
        return "draining"

    async with serving(pages(ready=why)) as address:
        status, _, body = await asked(address, "/readyz")
        assert (status, json.loads(body)) == (503, {"status": "not ready", "reason": "draining"})


async def test_head_has_no_body_and_other_methods_are_refused() -> None:
    async with serving(pages()) as address:
        status, headers, body = await asked(address, "/metrics", "HEAD")
        assert (status, headers["content-length"], body) == (200, "11", b"")
        status, headers, body = await asked(address, "/metrics", "DELETE")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert b"GET" in body
        status, _, body = await asked(address, "/metric")
        assert status == 404
        assert b"/metrics, /healthz, /readyz, /state" in body


async def test_requests_follow_one_another_on_a_connection_even_pipelined() -> None:
    async with serving(pages()) as address:
        last = get("/healthz", "GET", "Connection: close")
        answers = await said(address, get("/metrics") + get("/state")[:9], get("/state")[9:] + last)
        assert answers.count(b"HTTP/1.1 200 OK") == 3
        assert answers.index(b"steno_up 1") < answers.index(b'"open": 3') < answers.index(b'"status": "ok"')


async def test_a_body_is_not_read_and_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LINGER_S", 20)
    async with serving(pages()) as address:
        answers = await said(address, get("/metrics", "POST", f"Content-Length: {2 << 20}"), bytes(2 << 20))
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b" 405 " in answers
        assert b"\r\nConnection: close\r\n" in answers
        answers = await said(address, get("/metrics", "GET", "Transfer-Encoding: chunked") + b"nonsense\r\n")
        assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS where none is spoken
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 20_000, 431),
    ],
)
async def test_what_is_no_request_is_told_so(sent: bytes, status: int) -> None:
    async with serving(pages()) as address:
        assert (await said(address, sent)).startswith(f"HTTP/1.1 {status} ".encode())
        assert (await asked(address, "/healthz"))[0] == 200


async def test_a_peer_that_sends_no_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "PATIENCE_S", 0.2)
    async with serving(pages()) as address:
        assert await said(address, b"GET /metrics HTT") == b""


async def test_a_peer_that_asks_no_more_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_S", 0.2)
    async with serving(pages()) as address:
        assert (await said(address, get("/metrics"))).endswith(b"steno_up 1\n")


async def test_a_target_may_name_the_server() -> None:
    async with serving(pages()) as address:
        assert (await asked(address, "http://steno/metrics?all"))[0] == 200
        assert (await asked(address, "http://metrics"))[0] == 404


async def test_a_peer_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "PATIENCE_S", 0.2)

    async def endless() -> bytes:
        return bytes(64 << 20)

    server = AdminServer(TcpAddress("127.0.0.1", 0), pages(metrics=endless))
    let_go = asyncio.Event()

    async def conversing(*connection: Any) -> None:
        await converse(*connection)
        let_go.set()

    converse = http1.converse
    monkeypatch.setattr(admin, "converse", conversing)
    async with running(server) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
        writer.write(get("/metrics"))
        await asyncio.wait_for(let_go.wait(), 20)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(64 << 20), 20)
        await hung_up(writer)


async def test_a_page_that_fails_costs_that_page_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(pages(metrics=broken)) as address:
        assert (await asked(address, "/metrics"))[0] == 500
        assert (await asked(address, "/healthz"))[0] == 200
    assert "no metrics today" in caplog.text


async def test_too_many_connections_are_closed_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 2)
    async with serving(pages()) as address:
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
        assert await said(address) == b""
        assert "too many connections" in caplog.text
        for _, writer in held:
            await hung_up(writer)
        await becomes(lambda: served(address), expected=True)


async def test_a_stop_ends_what_is_open_without_a_word_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    asking = asyncio.Event()

    async def never() -> bytes:
        asking.set()
        await asyncio.Event().wait()
        raise AssertionError

    server = AdminServer(TcpAddress("127.0.0.1", 0), pages(metrics=never))
    await server.start()
    assert isinstance(server.address, TcpAddress)
    idle = asyncio.create_task(said(server.address))
    waiting = asyncio.create_task(said(server.address, get("/metrics")))
    await asyncio.wait_for(asking.wait(), 20)
    await asyncio.wait_for(server.stop(), 20)
    assert (await idle, await waiting) == (b"", b"")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("passes", range(2, 8))
async def test_a_stop_ends_what_has_only_just_come(passes: int) -> None:
    """From the loop to its task a connection takes some passes: none may be forgotten. (One that asyncio
    itself is still taking in when its server closes, it drops without a word.)
    """
    server = AdminServer(TcpAddress("127.0.0.1", 0), pages())
    await server.start()
    assert isinstance(server.address, TcpAddress)
    with socket.create_connection((server.address.host, server.address.port)) as peer:
        for _ in range(passes):
            await asyncio.sleep(0)
        await asyncio.wait_for(server.stop(), 20)
        peer.settimeout(20)
        with suppress(ConnectionError):
            assert await asyncio.to_thread(peer.recv, 1) == b""


async def test_an_address_that_cannot_be_had_is_named() -> None:
    async with serving(pages()) as address:
        with pytest.raises(AddressError, match=f"{address.port}.*--admin-listen"):
            await AdminServer(address, pages()).start()


async def test_the_supervisor_fetches_a_page_of_any_size_and_status(tmp_path: Path) -> None:
    big = b"steno_up 1\n" * 300_000

    async def metrics() -> bytes:
        return big

    async def why() -> str:
        return "draining"

    path = tmp_path / "admin.sock"
    path.touch()
    server = AdminServer(UnixAddress(str(path)), pages(metrics=metrics, ready=why))
    await server.start()
    assert await http1.fetch(path, "/metrics", 20) == big
    assert json.loads(await http1.fetch(path, "/readyz", 20))["reason"] == "draining"
    await server.stop()
    with pytest.raises(http1.UNREACHABLE):
        await http1.fetch(path, "/metrics", 20)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"what?\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
    ],
)
async def test_a_worker_that_answers_no_page_is_unreachable(tmp_path: Path, answer: bytes) -> None:
    async def answering(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(HEAD_END)
        writer.write(answer)

    async with worker(tmp_path / "admin.sock", answering):
        with pytest.raises(http1.UNREACHABLE):
            await http1.fetch(tmp_path / "admin.sock", "/metrics", 20)


async def test_a_worker_that_hangs_is_unreachable_in_time(tmp_path: Path) -> None:
    async def hanging(reader: Reader, writer: Writer) -> None:
        await reader.read()

    async with worker(tmp_path / "admin.sock", hanging):
        with pytest.raises(TimeoutError):
            await http1.fetch(tmp_path / "admin.sock", "/metrics", 0.1)
