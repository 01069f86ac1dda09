"""The transport that always works: gRPC's own server (grpc.aio), TLS included.

Messages pass as bytes through generic handlers: the service path is a string here, and
protobuf stays in ``extproc.wire``. One coroutine reads each stream; with no answers to
write (observability mode) it waits for nothing but the next message.

What gRPC does not let us have: messages that have arrived, but were not read yet, are
thrown away when the peer's reset arrives. Such a stream ends as ``CANCELLED``. And a server
that shuts down throws away the calls that arrive before its peer has read the GOAWAY; a
connection that has reached its age is closed without that fault, so ``retire`` waits for it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TypeAlias, cast

import grpc
import grpc.aio

from extproc.events import StreamEnd
from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress
from extproc.transport.base import MAX_MESSAGE_BYTES, ServerTls, StreamAcceptor, TransportCounters
from extproc.transport.binding import GenerationSocket, probe
from extproc.transport.health import Health
from extproc.transport.stream import Stream
from extproc.wire import (
    HEALTH_SERVICE,
    PROCESS_METHOD,
    PROCESS_SERVICE,
    Serving,
    decode_health_check,
    encode_health,
)

_log = logging.getLogger(__name__)

_PENDING_STREAMS = 8_000
_AGE_SPREAD = 1.1
_AGE_MARGIN_S = 2.0
"""gRPC spreads the ages of connections by a tenth; what is then on its way gets this long. Half a second was
too short for one stream of 46 on a machine that gave the process a hundredth of a core.
"""
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

# Each line answers something that was measured or met (docs/decisions, DESIGN traps).
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Envoy's keepalive pings every second, streams or none; gRPC would call that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # The arrival of many streams at once is a burst of users, not an attack: gRPC would
    # reset some of those beyond 1,000 that no coroutine has taken up yet. Without a limit
    # a flood of resets took 1.4 GB in a few seconds, with this one 150 MB.
    ("grpc.server.max_pending_requests", _PENDING_STREAMS),
    ("grpc.server.max_pending_requests_hard_limit", _PENDING_STREAMS),
)


class GrpcioTransport:
    """``Transport`` over grpc.aio.

    ``reuse_port``: another generation of this service may be bound to the same port; the
    caller then holds a claim on the address (``extproc.transport.binding``), because a
    taken port is no error any more.
    ``connection_age_s``: peers are asked to open another connection after this time, give or
    take a tenth. None: never; then ``retire`` loses what arrives at the moment it stops.
    """

    def __init__(
        self,
        address: Address,
        acceptor: StreamAcceptor,
        *,
        tls: ServerTls | None = None,
        reuse_port: bool = False,
        connection_age_s: float | None = None,
    ) -> None:
        self.counters = TransportCounters()
        self.health = Health()
        self._address = address
        self._acceptor = acceptor
        self._tls = tls
        self._reuse_port = reuse_port
        self._connection_age_s = connection_age_s
        self._server: grpc.aio.Server | None = None
        self._socket: GenerationSocket | None = None
        self._calls: set[asyncio.Task[object]] = set()
        self._watches: set[asyncio.Event] = set()
        self._stopping = False

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        return self._address

    async def start(self) -> None:
        """Bind and accept. Raises ``AddressError`` when the address cannot be had."""
        if isinstance(self._address, TcpAddress) and not self._reuse_port:
            probe(self._address)
        server = grpc.aio.server(options=(*_OPTIONS, *self._own_options()))
        server.add_generic_rpc_handlers(self._services())
        try:
            self._listen(server)
        except AddressError:
            await server.stop(None)
            raise
        self._server = server
        await server.start()
        if self._socket is not None:
            self._socket.publish()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let open streams end within ``grace_s`` seconds, cancel the rest."""
        if self._server is None:
            return
        if not self._stopping:
            self._stopping = True
            self.health.serving = False
            for watch in self._watches:
                watch.set()
            if self._socket is not None:
                self._socket.withdraw()
        await self._server.stop(grace_s)
        if self._calls:
            await asyncio.wait(self._calls)

    async def retire(self, grace_s: float) -> None:
        """Wait until every connection has been asked to move, then stop."""
        if self._connection_age_s is not None:
            await asyncio.sleep(self._connection_age_s * _AGE_SPREAD + _AGE_MARGIN_S)
        await self.stop(grace_s)

    def _own_options(self) -> Iterator[tuple[str, int]]:
        yield "grpc.so_reuseport", int(self._reuse_port)
        if self._connection_age_s is not None:
            yield "grpc.max_connection_age_ms", round(self._connection_age_s * 1000)

    def _listen(self, server: grpc.aio.Server) -> None:
        """Bind to the address: to a path of this generation's own, where it is one."""
        if isinstance(self._address, UnixAddress):
            generation = GenerationSocket(self._address)
            self._bind(server, f"unix:{generation.own.path}")
            self._socket = generation
        else:
            port = self._bind(server, str(self._address))
            self._address = TcpAddress(self._address.host, port)

    def _bind(self, server: grpc.aio.Server, target: str) -> int:
        """Bind, with TLS where asked for; the port that was bound."""
        try:
            if self._tls is None:
                return server.add_insecure_port(target)
            return server.add_secure_port(target, _credentials(self._tls))
        except RuntimeError as error:
            raise AddressError(f"cannot listen on {self._address}: {error}") from error

    def _services(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The table of contents: every method that is answered. Any other is UNIMPLEMENTED."""
        return (
            grpc.method_handlers_generic_handler(
                PROCESS_SERVICE, {PROCESS_METHOD: grpc.stream_stream_rpc_method_handler(self._process)}
            ),
            grpc.method_handlers_generic_handler(
                HEALTH_SERVICE,
                {
                    "Check": grpc.unary_unary_rpc_method_handler(self._check),
                    "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
                },
            ),
        )

    async def _process(self, _: AsyncIterator[bytes], context: _Context) -> None:
        """One ext_proc stream, from its first message to its end."""
        self._follow_this_call()
        stream = Stream(self._acceptor, _initial_metadata(context), self.counters)
        end = StreamEnd.ERROR
        try:
            end = await _pump(stream, context)
        except asyncio.CancelledError:
            end = StreamEnd.CANCELLED
            raise
        finally:
            stream.ended(end)

    def _follow_this_call(self) -> None:
        """Remember gRPC's task of the running call, so that ``stop`` can wait for its end."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _check(self, message: bytes, context: _Context) -> bytes:
        """``grpc.health.v1.Health/Check``."""
        status = self.health.status(await _service(message, context))
        if status is Serving.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return encode_health(status)

    async def _watch(self, message: bytes, context: _Context) -> AsyncIterator[bytes]:
        """``grpc.health.v1.Health/Watch``: the status now, and at every change."""
        service = await _service(message, context)
        changed = asyncio.Event()
        self._watches.add(changed)
        unwatch = self.health.watch(changed.set)
        told: Serving | None = None
        try:
            while True:
                status = self.health.status(service)
                if status is not told:
                    told = status
                    yield encode_health(status)
                if self._stopping:
                    return
                await changed.wait()
                changed.clear()
        finally:
            unwatch()
            self._watches.discard(changed)


async def _pump(stream: Stream, context: _Context) -> StreamEnd:
    """Read and answer until the peer, or we, have had enough."""
    try:
        while True:
            message = cast("object", await context.read())  # the stubs forget EOF
            if not isinstance(message, bytes):
                return StreamEnd.EOF
            for answer in stream.receive((message,)):
                await context.write(answer)
            if stream.finished:
                return StreamEnd.EOF
    except (grpc.RpcError, grpc.aio.BaseError, OSError, RuntimeError) as error:
        _log.warning("an ext_proc stream broke", extra={"reason": repr(error)})
        return StreamEnd.ERROR


async def _service(message: bytes, context: _Context) -> str:
    """The service that a health check asks about."""
    service = decode_health_check(message)
    if service is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
    return service


def _initial_metadata(context: _Context) -> dict[str, str]:
    """The RPC's headers as text; repeated ones joined, binary ones left out."""
    joined: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """TLS, and mutual TLS where clients must identify themselves."""
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate_chain)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )
