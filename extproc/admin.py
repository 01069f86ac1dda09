"""The admin pages of a process: /metrics, /healthz, /readyz, /state.

Readiness is for Deployments and dashboards. In a pod with Envoy no probe may depend on
it: a container's readiness gates its whole pod (DESIGN §3.16).
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


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
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        return self._address

    async def start(self) -> None:
        """Bind and serve. Raises ``AddressError`` naming the address when it cannot be had."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/state", self._state),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await self._bind(self._runner)
        except OSError as error:
            await self._runner.cleanup()
            raise AddressError(
                f"admin address {self._address} cannot be had: {error.strerror}."
                " Choose another with --admin-listen, or stop what holds it"
            ) from error

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _bind(self, runner: web.AppRunner) -> None:
        match self._address:
            case UnixAddress(path):
                _forget_socket(path)
                await web.UnixSite(runner, path).start()
            case TcpAddress(host, port):
                await web.TCPSite(runner, host, port).start()
                self._address = TcpAddress(host, int(runner.addresses[0][1]))

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=await self._pages.metrics(), headers={"Content-Type": _EXPOSITION})

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return _json({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        reason = await self._pages.ready()
        return _json({"status": "not ready", "reason": reason}, 503) if reason else _json({"status": "ready"})

    async def _state(self, request: web.Request) -> web.Response:
        del request
        return _json(await self._pages.state())


def _forget_socket(path: str) -> None:
    """A socket file outlives the process that bound it; the data directory's lock says it is ours."""
    Path(path).unlink(missing_ok=True)


def _json(members: dict[str, object], status: int = 200) -> web.Response:
    return web.json_response(members, status=status, dumps=lambda value: json.dumps(value, default=str))
