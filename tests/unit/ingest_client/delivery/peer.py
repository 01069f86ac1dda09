"""A scripted ingest on loopback: real sockets, answers written by the test byte by byte."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec


@dataclass(slots=True)
class Request:
    """One request as it arrived, whole."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes
    at_s: float

    def turn_ids(self) -> list[str]:
        """The turns that it carries."""
        value = msgspec.json.decode(self.body)
        turns = value.get("turns", [value])
        return [turn["meta"]["request_id"] for turn in turns]


@dataclass(slots=True)
class Talk:
    """The peer's side of one connection, for a behaviour to use."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b'{"status":"accepted"}', *fields: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *fields]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


Behaviour: TypeAlias = Callable[[Request, Talk], Awaitable[None]]


async def accept(_: Request, talk: Talk) -> None:
    """202 to everything."""
    await talk.answer(202)


@dataclass(slots=True)
class Peer:
    """A listening peer. ``requests`` and ``turns`` say what it received; ``behaviour`` may be changed."""

    behaviour: Behaviour
    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list[Request])
    turns: Counter[str] = field(default_factory=Counter[str])
    connections: int = 0
    ping: Behaviour = accept
    pings: int = 0

    @property
    def url(self) -> str:
        host = "localhost" if self.scheme == "https" else "127.0.0.1"
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = Talk(reader, writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while (request := await _read(reader)) is not None:
                if request.path.endswith("/ping"):
                    self.pings += 1
                    await self.ping(request, talk)
                    continue
                self.requests.append(request)
                await self.behaviour(request, talk)
                if writer.is_closing():
                    break
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Request(method, path, fields, body, asyncio.get_running_loop().time())


Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, *, ssl_context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncGenerator[int, None]:
    """A server on loopback whose connections all end with it; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=ssl_context, limit=2**26)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports say so to their streams


@asynccontextmanager
async def peer(
    behaviour: Behaviour = accept, *, ssl_context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncGenerator[Peer, None]:
    """A peer on an ephemeral port of loopback, gone afterwards with all its connections."""
    found = Peer(behaviour, scheme="http" if ssl_context is None else "https")
    async with serving(found.handle, ssl_context=ssl_context, port=port) as found.port:
        yield found
