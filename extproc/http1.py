"""HTTP/1.1 for a few small pages: h11 reads and writes it, asyncio carries it.

The server's end (:func:`converse`) of the admin pages, and the client's (:func:`fetch`), with
which the supervisor asks its workers for theirs. A general server costs each process ten times the
memory (``docs/decisions/0011-admin-pages-on-h11.md``).

A peer that sends what is no HTTP gets a 400, one that sends nothing is let go after ``PATIENCE_S``, and
no more of a request is kept than ``_HEAD_BYTES``: the body of one is never read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import h11
from msgspec import Struct

PATIENCE_S: Final = 15.0
"""For a whole request, and for a peer to take its answer."""
_HEAD_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 64 * 1024

UNREACHABLE: Final = (OSError, TimeoutError, h11.RemoteProtocolError)
"""What :func:`fetch` raises."""


class Request(Struct, frozen=True):
    """What a peer asks for. ``path`` is without the query."""

    method: str
    path: str


class Page(Struct, frozen=True):
    """An answer."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


Answering: TypeAlias = Callable[[Request], Awaitable[Page]]


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answering) -> None:
    """Answer the requests of one connection until either end closes it, and close it."""
    try:
        await _answer_all(reader, writer, answer)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):  # the last answer is still on its way
            await writer.wait_closed()
    except (TimeoutError, OSError):
        return
    finally:
        writer.transport.abort()


async def fetch(socket: Path, path: str, timeout_s: float) -> bytes:
    """The page that the server on a UNIX socket shows, whatever its status. Raises one of ``UNREACHABLE``."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            peer = h11.Connection(h11.CLIENT)
            headers = [("Host", "worker"), ("Connection", "close")]
            for event in (h11.Request(method="GET", target=path, headers=headers), h11.EndOfMessage()):
                writer.write(peer.send(event) or b"")
            body = bytearray()
            while not isinstance(part := await _next(peer, reader), h11.EndOfMessage):
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
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
    while True:
        try:
            async with asyncio.timeout(PATIENCE_S):
                request = await _next(peer, reader)
        except h11.RemoteProtocolError as error:
            await _send(peer, writer, plain(HTTPStatus(error.error_status_hint), str(error)), whole=True)
            return
        if not isinstance(request, h11.Request):
            return
        asked = Request(request.method.decode(), request.target.decode().partition("?")[0])
        await _send(peer, writer, await answer(asked), whole=asked.method != "HEAD")
        if not _may_go_on(peer):
            return
        peer.start_next_cycle()


async def _next(peer: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    """The next event. Raises ``h11.RemoteProtocolError`` for what is no HTTP."""
    while not isinstance(event := peer.next_event(), h11.Event):
        peer.receive_data(await reader.read(_READ_BYTES))
    return event


def _may_go_on(peer: h11.Connection) -> bool:
    """Whether another request may come: not after one with a body, which nobody has read."""
    try:
        return peer.our_state is h11.DONE and isinstance(peer.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError:
        return False


async def _send(peer: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, whole: bool) -> None:
    """Send an answer, its body too if ``whole``."""
    headers = [
        ("Content-Type", page.content_type), ("Content-Length", str(len(page.body))), *page.headers
    ]  # fmt: skip
    head = h11.Response(status_code=page.status, headers=headers, reason=page.status.phrase)
    for event in (head, *([h11.Data(data=page.body)] if whole else []), h11.EndOfMessage()):
        writer.write(peer.send(event) or b"")
    async with asyncio.timeout(PATIENCE_S):
        await writer.drain()
