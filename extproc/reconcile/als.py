"""Envoy's access log service over gRPC: takes streams of entries, answers nothing."""

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

import grpc
import grpc.aio

from extproc.reconcile.decoding import ACCESS_LOG_METHOD, ACCESS_LOG_SERVICE, decode_entries
from extproc.reconcile.entry import Served
from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress
from extproc.transport.binding import probe

FILTER_NAME: Final = "steno"
"""The capture filter's name in Envoy's configuration: its own account of a request goes by it."""

_MAX_MESSAGE_BYTES: Final = 16 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A taken port must be an error.
    ("grpc.so_reuseport", 0),
    # Envoy's keepalive pings every second, streams or none; gRPC would call that abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class AccessLogServer:
    """Serves one address. ``receive`` gets the entries of each message; None: it could not be read."""

    def __init__(self, address: Address, receive: Callable[[list[Served] | None], None]) -> None:
        self._address = address
        self._receive = receive
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        return self._address

    async def start(self) -> None:
        """Bind and serve. Raises ``AddressError`` when the address cannot be had."""
        probe(self._address)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._stream)
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {ACCESS_LOG_METHOD: handler}),)
        )
        try:
            self._bind(server)
        except RuntimeError as error:
            await server.stop(None)
            raise AddressError(f"cannot listen on {self._address} for the access log: {error}") from error
        self._server = server
        await server.start()

    async def stop(self) -> None:
        """Stop at once: Envoy keeps what it could not send, and connects again."""
        if self._server is not None:
            await self._server.stop(None)

    def _bind(self, server: grpc.aio.Server) -> None:
        match self._address:
            case UnixAddress(path):
                server.add_insecure_port(f"unix:{path}")
            case TcpAddress(host):
                self._address = TcpAddress(host, server.add_insecure_port(str(self._address)))

    async def _stream(self, messages: AsyncIterator[bytes], _: _Context) -> bytes:
        async for message in messages:
            self._receive(decode_entries(message, FILTER_NAME))
        return b""
