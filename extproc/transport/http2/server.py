"""The ``Transport`` made for streaming ingestion: our own HTTP/2 on asyncio's sockets.

Messages that had arrived when a reset came are heard before it.
"""

import asyncio
import socket
import ssl
import tempfile
from pathlib import Path

from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress
from extproc.transport.base import ServerTls, StreamAcceptor, TransportCounters
from extproc.transport.binding import GenerationSocket, probe
from extproc.transport.health import Health
from extproc.transport.http2.calls import methods
from extproc.transport.http2.context import Context
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory
from extproc.transport.http2.protocol import ServerProtocol

_BACKLOG = 1024
_PATIENCE_S = 1.0
# Long enough to gather the chunks of many streams, short beside Envoy's ping timeout of 1 s.
REST_S = 0.05


class Http2Transport:
    """``Transport`` over ``extproc.transport.http2``.

    ``rest_s``: how long reading rests after a small read in observability mode; 0 never.
    """

    def __init__(
        self,
        address: Address,
        acceptor: StreamAcceptor,
        *,
        tls: ServerTls | None = None,
        reuse_port: bool = False,
        limits: Limits | None = None,
        rest_s: float = REST_S,
    ) -> None:
        self.counters = TransportCounters()
        self.health = Health()
        self._address = address
        self._tls = tls
        self._reuse_port = reuse_port
        limits = limits or Limits()
        self._context = Context(
            methods(acceptor, self.counters, self.health),
            limits,
            Memory(limits.process_bytes),
            self.counters,
            rest_s,
        )
        self._servers: list[asyncio.Server] = []
        self._socket: GenerationSocket | None = None
        self._stopping = False

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        return self._address

    async def start(self) -> None:
        """Bind and accept. Raises ``AddressError`` when the address cannot be had."""
        context = None if self._tls is None else _tls_context(self._tls)
        if isinstance(self._address, TcpAddress) and not self._reuse_port:
            probe(self._address)
        try:
            sockets = self._bind()
        except OSError as error:
            raise AddressError(f"cannot listen on {self._address}: {error.strerror or error}") from error
        loop = asyncio.get_running_loop()
        for each in sockets:
            server = await loop.create_server(
                lambda: ServerProtocol(self._context), sock=each, ssl=context, backlog=_BACKLOG
            )
            self._servers.append(server)
        if self._socket is not None:
            self._socket.publish()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let open streams end within ``grace_s`` seconds, cancel the rest."""
        if not self._servers:
            return
        if not self._stopping:
            self._stopping = True
            self.health.serving = False
            if self._socket is not None:
                self._socket.withdraw()
            for server in self._servers:
                server.close()
        connections = tuple(self._context.connections)
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(each.drain() for each in connections))
        except TimeoutError:
            pass  # those that are still open are cancelled now
        await asyncio.gather(*(each.close(_PATIENCE_S) for each in tuple(self._context.connections)))

    async def retire(self, grace_s: float) -> None:
        """Stop: what is on its way when a peer is asked to move is still taken."""
        await self.stop(grace_s)

    def _bind(self) -> list[socket.socket]:
        """Listening sockets: of a path of this generation's own, or of every address of the host."""
        if isinstance(self._address, UnixAddress):
            generation = GenerationSocket(self._address)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(generation.own.path)
            self._socket = generation
            return [listener]
        return self._bind_tcp(self._address)

    def _bind_tcp(self, address: TcpAddress) -> list[socket.socket]:
        """One socket for each of the host's addresses, all on one port."""
        host, port = address.host, address.port
        bound: list[socket.socket] = []
        for family, kind, protocol, _, sockaddr in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((sockaddr[0], port, *sockaddr[2:]))
            except OSError:
                for each in bound:
                    each.close()
                raise
            port = int(listener.getsockname()[1])
        self._address = TcpAddress(host, port)
        return bound


def _tls_context(tls: ServerTls) -> ssl.SSLContext:
    """TLS with h2 as the only protocol; mutual where clients must identify themselves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as directory:  # the ssl module reads keys from files alone
        pem = Path(directory) / "server.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(tls.private_key + b"\n" + tls.certificate_chain)
        context.load_cert_chain(pem)
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=tls.client_ca.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
