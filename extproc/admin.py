"""The admin pages of a process: /metrics, /healthz, /readyz, /state.

Readiness is for Deployments and dashboards. In a pod with Envoy no probe may depend on
it: a container's readiness gates its whole pod (DESIGN §3.16).
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from extproc.http1 import READ_BYTES, Page, Request, converse, plain
from extproc.logs import Seldom
from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress

_log = logging.getLogger(__name__)

_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS: Final = 128
"""Open at once; one more is closed."""
_CLOSED_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPages:
    """What the pages show, asked when somebody looks."""

    metrics: Callable[[], Awaitable[bytes]]
    state: Callable[[], Awaitable[dict[str, object]]]
    ready: Callable[[], Awaitable[str]]
    """Empty when ready, else why not."""


class AdminServer:
    """Serves the pages on one address."""

    def __init__(self, address: Address, pages: AdminPages) -> None:
        self._address = address
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._seldom = Seldom()
        self._routes: dict[str, Callable[[], Awaitable[Page]]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/state": self._state,
        }

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        return self._address

    async def start(self) -> None:
        """Bind and serve. Raises ``AddressError`` naming the address when it cannot be had."""
        try:
            match self._address:
                case UnixAddress(path):
                    _forget_socket(path)
                    self._server = await asyncio.start_unix_server(self._connected, path, limit=READ_BYTES)
                case TcpAddress(host, port):
                    self._server = await asyncio.start_server(self._connected, host, port, limit=READ_BYTES)
                    bound: tuple[str, int] = self._server.sockets[0].getsockname()
                    self._address = TcpAddress(host, bound[1])
        except OSError as error:
            raise AddressError(
                f"admin address {self._address} cannot be had: {error.strerror}."
                " Choose another with --admin-listen, or stop what holds it"
            ) from error

    async def stop(self) -> None:
        """Stop serving; who waits for a page gets none."""
        self._stopping = True
        if self._server is None:
            return
        self._server.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSED_S):
                await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping:  # accepted before, and heard of only now
            writer.transport.abort()
            return
        if len(self._conversations) >= MAX_CONNECTIONS:
            if self._seldom.due("full"):
                _log.warning("too many connections to the admin pages", extra={"limit": MAX_CONNECTIONS})
            writer.close()
            return
        # ``stop`` ends it, perhaps before its first step: so it is not the task that closes for certain.
        conversation = asyncio.create_task(converse(reader, writer, self._answer))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)
        conversation.add_done_callback(lambda _: writer.transport.abort())

    async def _answer(self, request: Request) -> Page:
        route = self._routes.get(request.path)
        if route is None:
            return plain(HTTPStatus.NOT_FOUND, f"the pages are {', '.join(self._routes)}")
        if request.method not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, "pages are read with GET", ("Allow", "GET, HEAD"))
        try:
            return await route()
        except Exception:  # noqa: BLE001 -- our own bug costs one page, and is told
            _log.exception("a page could not be made", extra={"page": request.path})
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR, "the log says why")

    async def _metrics(self) -> Page:
        return Page(await self._pages.metrics(), _EXPOSITION)

    async def _healthz(self) -> Page:
        return _json({"status": "ok"})

    async def _readyz(self) -> Page:
        reason = await self._pages.ready()
        if reason:
            return _json({"status": "not ready", "reason": reason}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ready"})

    async def _state(self) -> Page:
        return _json(await self._pages.state())


def _forget_socket(path: str) -> None:
    """A socket file outlives the process that bound it; the data directory's lock says it is ours."""
    Path(path).unlink(missing_ok=True)


def _json(members: dict[str, object], status: HTTPStatus = HTTPStatus.OK) -> Page:
    return Page(json.dumps(members, default=str).encode(), "application/json; charset=utf-8", status)
