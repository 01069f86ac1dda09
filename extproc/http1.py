"""HTTP/1.1 for a few small pages: h11 reads and writes it, asyncio carries it.

The server's end (:func:`converse`) of the admin pages, and the client's (:func:`fetch`), with
which the supervisor asks its workers for theirs. A general server costs each process 10 MiB more
(``docs/decisions/0011-admin-pages-on-h11.md``).

A peer that sends what is no HTTP gets a 400, one that sends nothing is let go, and of what one sends a
few times ``READ_BYTES`` are kept at most. A request's body is not looked at: the connection ends after
its answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import h11
from msgspec import Struct

PATIENCE_S: Final = 15.0
"""For a connection's first request, and for a peer to take an answer."""
IDLE_S: Final = 90.0
"""For each further request: longer than Prometheus and most who ask again and again pause."""
LINGER_S: Final = 1.0
"""For a peer to stop sending: closing before it has would take the answer away from it."""
READ_BYTES: Final = 16 * 1024
"""Of a request's head at most, and read at once; the stream's own limit should be the same."""

_PAGES: Final = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE)
UNREACHABLE: Final = (OSError, TimeoutError, h11.RemoteProtocolError)
"""What :func:`fetch` raises."""


class Request(Struct, frozen=True):
    """What a peer asks for. ``path`` is without the query."""

    method: str
    path: str


class Page(Struct, frozen=True):
    """An answer."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


Answering: TypeAlias = Callable[[Request], Awaitable[Page]]


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answering) -> None:
    """Answer the requests of one connection until either end closes it. The caller aborts what is left."""
    try:
        await _answer_all(reader, writer, answer)
        await _linger(reader, writer)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):  # the last answer is still on its way
            await writer.wait_closed()
    except (TimeoutError, OSError):
        return


async def fetch(socket: Path, path: str, timeout_s: float) -> bytes:
    """The page that the server on a UNIX socket shows, be it 200 or 503. Raises one of ``UNREACHABLE``."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            peer = h11.Connection(h11.CLIENT)
            headers = [("Host", "worker"), ("Connection", "close")]
            for event in (h11.Request(method="GET", target=path, headers=headers), h11.EndOfMessage()):
                writer.write(peer.send(event) or b"")
            body = bytearray()
            while not isinstance(part := await _next(peer, reader), h11.EndOfMessage):
                if isinstance(part, h11.Response) and part.status_code not in _PAGES:
                    raise ConnectionError(f"the page's status is {part.status_code}")
                if isinstance(part, h11.Data):
                    body += part.data
            return bytes(body)
        finally:
            writer.close()


def plain(status: HTTPStatus, why: str, *headers: tuple[str, str]) -> Page:
    """A page that says in a line why there is no other."""
    return Page(f"{status.phrase}: {why}\n".encode(), "text/plain; charset=utf-8", status, headers)


async def _answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answering) -> None:
    """Raises ``TimeoutError`` and ``OSError`` for a peer that has gone or takes too long."""
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=READ_BYTES)
    patience_s = PATIENCE_S
    while True:
        try:
            async with asyncio.timeout(patience_s):
                request = await _next(peer, reader)
        except h11.RemoteProtocolError as error:
            why = plain(HTTPStatus(error.error_status_hint), str(error))
            await _send(peer, writer, why, body=True, last=True)
            return
        if not isinstance(request, h11.Request):
            return
        asked = Request(request.method.decode(), _path(request.target.decode()))
        last = not _is_whole(peer)
        await _send(peer, writer, await answer(asked), body=asked.method != "HEAD", last=last)
        if peer.our_state is not h11.DONE:
            return
        peer.start_next_cycle()
        patience_s = IDLE_S


async def _next(peer: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    """The next event. Raises ``h11.RemoteProtocolError`` for what is no HTTP."""
    while not isinstance(event := peer.next_event(), h11.Event):
        peer.receive_data(await reader.read(READ_BYTES))
    return event


def _path(target: str) -> str:
    """A request's path: without query, and without the server of an absolute form (RFC 9112 §3.2.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def _is_whole(peer: h11.Connection) -> bool:
    """Whether the request whose head has come has no body."""
    try:
        return isinstance(peer.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError:
        return False


async def _send(
    peer: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, body: bool, last: bool
) -> None:
    """Send an answer, without its body for a HEAD. ``last``: no other follows on this connection."""
    headers = [("Content-Type", page.content_type), ("Content-Length", str(len(page.body))), *page.headers]
    if last:
        headers.append(("Connection", "close"))
    head = h11.Response(status_code=page.status, headers=headers, reason=page.status.phrase)
    for event in (head, *([h11.Data(data=page.body)] if body else []), h11.EndOfMessage()):
        writer.write(peer.send(event) or b"")
    async with asyncio.timeout(PATIENCE_S):
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that nothing follows, and let go of what the peer still sends."""
    if not writer.is_closing():
        writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(READ_BYTES):
                pass
