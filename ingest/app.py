"""Puts the service together, runs it, and takes it down without losing anything.

Start: settings → store (migrated) → deriver → HTTP. Stop: the listener closes, requests
in flight are answered, the writer commits what waits, the deriver finishes its batch;
what is not derived then waits in the store for the next start.
"""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import uvicorn
import uvloop
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ingest import openapi
from ingest.access import Access, AccessError, KeysError, TenantNameError, UnauthenticatedError
from ingest.bodies import ByteBudget
from ingest.deriver import Deriver
from ingest.events import Hub
from ingest.intake import Intake
from ingest.metrics import ChannelFailure, Metrics
from ingest.protocol import ClientProtocol
from ingest.reading import QueryError
from ingest.replies import refuse, told
from ingest.retention import Retention
from ingest.routes import router
from ingest.service import Service
from ingest.settings import IngestSettings
from ingest.store.connection import StoreError, UnavailableError
from ingest.store.engines import UrlError, engine_of
from ingest.store.postgres import UnsafeServerError
from ingest.store.rows import Event
from ingest.store.schema import NewerSchemaError
from ingest.store.store import Store
from ingest.store.writer import WriteLimits
from ingest.tenant_rules import TenantRulesError
from ingest.throttle import Throttle
from ingest.watched import Watched

_log = logging.getLogger("steno.ingest")
_SWITCH_S: Final = 0.0005
"""How long a thread keeps the interpreter lock while another waits for it. The default, 5 ms,
made every statement of the writer wait for the event loop that long."""
_KEEP_ALIVE_S: Final = 75
"""Idle connections live longer than a sidecar's pauses: a POST must not meet one that is closing."""
_RELOAD_S: Final = 5.0
_LISTEN_AGAIN_S: Final = 0.25
_QUERY: Final = "correct the query; the same one will be refused again"
_LOOPBACK: Final = frozenset(("", "127.0.0.1", "localhost", "::1"))


class StartError(Exception):
    """The service cannot start; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Application:
    """A service that is put together but not opened: :func:`running` opens it around ``asgi``."""

    settings: IngestSettings
    asgi: Starlette
    service: Service


def _store(settings: IngestSettings) -> Store:
    limits = WriteLimits(queue_jobs=settings.queue_jobs, queue_bytes=settings.queue_bytes)
    try:
        return Store(engine_of(settings.database_url), limits)
    except UrlError as error:
        raise StartError(str(error)) from error


def _access(settings: IngestSettings) -> Access:
    """The credentials, if the service may listen where it shall with what it has of them."""
    host = settings.listen.rpartition(":")[0].strip("[]")
    if settings.keys_file is None and host not in _LOOPBACK and not settings.listen_anywhere:
        raise StartError(
            f"refusing to listen on {settings.listen} without credentials: set keys_file, or listen_anywhere"
        )
    try:
        access = Access(settings.keys_file)
    except (OSError, KeysError) as error:
        raise StartError(f"the keys file cannot be used: {error}") from error
    if access.keys.certificates and settings.tls_client_ca is None:
        raise StartError("keys name certificates, but tls_client_ca is not set: nobody could use them")
    return access


def _throttle(settings: IngestSettings, metrics: Metrics) -> Throttle:
    try:
        return Throttle(settings.limits_file, metrics)
    except TenantRulesError as error:
        raise StartError(f"the limits file cannot be used: {error}") from error


def _version() -> str:
    """The installed version; a checkout that is not installed has none."""
    try:
        return metadata.version("steno")
    except metadata.PackageNotFoundError:
        return "0"


def build(settings: IngestSettings) -> Application:
    """Make every part. Nothing is opened yet, but an event loop must be running when it starts."""
    metrics = Metrics(CollectorRegistry())
    store = _store(settings)
    hub = Hub()
    # Where instances share a database, each hears of its own events as of the others'.
    publish = _unheard if store.notifies else hub.publish
    deriver = Deriver(store, metrics, publish)
    throttle = _throttle(settings, metrics)
    service = Service(
        settings=settings,
        store=store,
        metrics=metrics,
        intake=Intake(store, metrics, throttle, settings.project, deriver.wake),
        access=_access(settings),
        throttle=throttle,
        budget=ByteBudget(settings.queue_bytes),
        deriver=deriver,
        hub=hub,
        retention=Retention(store, settings.retention, publish),
        openapi=openapi.document(_version()),
    )
    asgi = Starlette(
        routes=router(),
        exception_handlers={
            HTTPException: _http_error,
            UnauthenticatedError: _told(401),
            AccessError: _told(403),
            TenantNameError: _told(400, action=_QUERY),
            QueryError: _told(400, action=_QUERY),
            StoreError: _away,
            Exception: _bug,
        },
    )
    asgi.router.redirect_slashes = False
    asgi.state.service = service
    return Application(settings, asgi, service)


@contextlib.asynccontextmanager
async def running(application: Application) -> AsyncGenerator[Service]:
    """Open the store and derive behind it; at the end, make durable what waits and let go.

    Raises :class:`StartError` with the reason when the database cannot be used.
    """
    service = application.service
    try:
        await service.store.open()
    except (UnavailableError, NewerSchemaError, UnsafeServerError, OSError) as error:
        raise StartError(f"the database cannot be used: {error}") from error
    try:
        async with asyncio.TaskGroup() as group:
            if service.settings.derive:
                group.create_task(service.deriver.run())
            group.create_task(service.retention.run(service.hub.closed))
            group.create_task(service.throttle.run(service.store, service.hub.closed))
            group.create_task(_reload(service))
            if service.store.notifies:
                group.create_task(_hear(service))
            try:
                yield service
            finally:
                service.hub.closed.set()
                service.deriver.stop()
    finally:
        await service.store.close()


def _unheard(_: Sequence[Event]) -> None:
    """Events that come back through the database."""


async def _hear(service: Service) -> None:
    """Publish what any instance on this database tells, and a gap whenever something may have been missed."""
    loop = asyncio.get_running_loop()
    stopped = threading.Event()
    failures = service.metrics.channel_failures

    def heard(payload: str) -> None:
        try:
            events = msgspec.json.decode(payload, type=list[Event])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            failures.labels(ChannelFailure.PAYLOAD).inc()
            _log.warning("something on the event channel is no list of events: %a", str(error))
            return
        loop.call_soon_threadsafe(service.hub.publish, events)

    def began() -> None:
        loop.call_soon_threadsafe(service.hub.interrupted)

    def listen_on() -> None:
        while not stopped.is_set():
            try:
                service.store.listen(heard, began, stopped)
            except Exception as error:  # noqa: BLE001 -- whatever it is, nobody would hear of anything until a restart
                failures.labels(ChannelFailure.CHANNEL).inc()
                bug = not isinstance(error, UnavailableError)
                _log.warning(
                    "the event channel failed, and is listened to again: %a", str(error), exc_info=bug
                )
                stopped.wait(_LISTEN_AGAIN_S)

    listening = asyncio.create_task(asyncio.to_thread(listen_on))
    try:
        await service.hub.closed.wait()
    finally:  # also when another part failed: the thread would keep the process for ever
        stopped.set()
    await listening


async def _reload(service: Service) -> None:
    """Look after files that may change while the service runs."""
    while not service.hub.closed.is_set():
        service.access.reload()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.hub.closed.wait(), _RELOAD_S)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what no route took, in the contract's plain text."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:  # noqa: PLR2004 -- as below
        # Quoted again: nobody's path may write control characters on somebody's terminal.
        path = quote(request.url.path, safe="/:@!$&'()*+,;=~%")
        return PlainTextResponse(f"Cannot {request.method} {path}", 404)
    return PlainTextResponse("Method Not Allowed", error.status_code, error.headers)


def _told(status: int, action: str = "") -> Callable[[Request, Exception], Awaitable[Response]]:
    """Answer an exception with ``status`` and its own words."""

    async def handler(_: Request, error: Exception) -> Response:
        return refuse(status, str(error), action=action)

    return handler


async def _away(_: Request, error: Exception) -> Response:
    """Answer a failure of the store; its own words are for the log."""
    if not isinstance(error, StoreError):
        raise error
    _log.warning("a request failed at the store: %a", str(error))
    return refuse(503, f"downstream failure: {told(error)}")


async def _bug(_: Request, error: Exception) -> Response:
    _log.error("a request failed: %s", error, exc_info=error)
    return refuse(500, "internal error; it is in the log of the service")


def listen(address: str) -> socket.socket:
    """A bound socket. Raises :class:`StartError` with the reason."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sock.close()
        raise StartError(f"cannot listen on {address}: {error}") from error
    return sock


async def serve(settings: IngestSettings, sock: socket.socket | None = None) -> None:
    """Run until SIGTERM or SIGINT, drain, and return. Raises :class:`StartError`."""
    sys.setswitchinterval(_SWITCH_S)
    application = build(settings)
    bound = sock or listen(settings.listen)
    config = uvicorn.Config(
        application.asgi,
        log_config=None,
        access_log=False,
        log_level="warning",  # of its own words: what matters of a start and a stop we say ourselves
        lifespan="off",
        http=ClientProtocol,
        timeout_graceful_shutdown=max(1, math.ceil(settings.drain_s)),  # to uvicorn 0 is for ever
        timeout_keep_alive=_KEEP_ALIVE_S,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=_client_certificates(settings),
        server_header=False,
        date_header=False,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        bound.close()
        raise StartError(f"the TLS files cannot be used: {error}") from error
    try:
        async with running(application) as service, asyncio.TaskGroup() as group:
            if config.ssl is not None and settings.tls_certificate is not None:
                group.create_task(_reload_tls(service, config.ssl, settings.tls_certificate))
            await _Server(config, service.hub.closed.set).serve(sockets=[bound])
            service.hub.closed.set()
    finally:
        bound.close()


def _client_certificates(settings: IngestSettings) -> ssl.VerifyMode:
    if settings.tls_client_ca is None:
        return ssl.CERT_NONE
    return ssl.CERT_OPTIONAL if settings.tls_client_optional else ssl.CERT_REQUIRED


async def _reload_tls(service: Service, context: ssl.SSLContext, cert: Path) -> None:
    """Use new files for new connections as soon as there are any; bad ones change nothing.

    A new authority is trusted beside the old one, which OpenSSL forgets with the process only.
    """
    key, authority = service.settings.tls_key, service.settings.tls_client_ca
    watched, trusted = Watched(cert, key or cert), Watched(authority or cert)
    while not service.hub.closed.is_set():
        if watched.changed():
            _try("TLS certificate", lambda one: one.load_cert_chain(cert, key, password=""), context)
        if trusted.changed() and authority is not None:
            _try("authority of clients", lambda one: one.load_verify_locations(authority), context)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.hub.closed.wait(), _RELOAD_S)


def _try(what: str, load: Callable[[ssl.SSLContext], None], context: ssl.SSLContext) -> None:
    """Load files into ``context`` if they are good: into one that nobody uses first.

    Where certificate and key do not match, as in the middle of a rotation, OpenSSL keeps the half
    that it has read, and every handshake fails from then on.
    """
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        load(context)
    except (OSError, ssl.SSLError) as error:
        _log.error("the new %s cannot be used, the old one stays: %s", what, error)
    else:
        _log.info("a new %s is in use", what)


class _Server(uvicorn.Server):
    """uvicorn's server, saying one line when it is ready and leaving quietly on a signal.

    ``leaving`` is called before it waits for requests in flight: event streams end then.
    """

    def __init__(self, config: uvicorn.Config, leaving: Callable[[], None]) -> None:
        super().__init__(config)
        self._leaving = leaving

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait for what is in flight."""
        self._leaving()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            for sock in sockets or ():
                host, port = sock.getsockname()[:2]
                scheme = "https" if self.config.is_ssl else "http"
                name = f"[{host}]" if sock.family == socket.AF_INET6 else host
                print(f"steno ingest ready on {scheme}://{name}:{port}", flush=True)  # noqa: T201 -- the one line scripts wait for

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ask for a drain on either signal; the process then ends with 0, not with the signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def run(settings: IngestSettings) -> None:
    """Run the service in this process until it is told to leave, on the fastest loop there is."""
    uvloop.run(serve(settings))
