"""A receiver of Envoy's access log (ALS), which keeps every entry."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from extproc.pb.access_log_pb2 import HttpAccessLogEntry, StreamAccessLogsMessage


class Ledger:
    """The service; ``entries`` in order of arrival."""

    def __init__(self) -> None:
        self.port = 0
        self.entries: list[HttpAccessLogEntry] = []
        self._arrived = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._stream)
        service = grpc.method_handlers_generic_handler(
            "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": handler}
        )
        self._server = grpc.aio.server(
            options=(
                ("grpc.http2.min_ping_interval_without_data_ms", 100),
                ("grpc.http2.max_ping_strikes", 0),
            )
        )
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self) -> None:
        """Stop at once."""
        if self._server is not None:
            await self._server.stop(None)

    async def until(self, count: int, timeout_s: float = 30.0) -> list[HttpAccessLogEntry]:
        """All entries, as soon as there are ``count``."""
        async with asyncio.timeout(timeout_s):
            while len(self.entries) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.entries

    async def _stream(self, messages: AsyncIterator[bytes], _: object) -> bytes:
        async for message in messages:
            self.entries.extend(StreamAccessLogsMessage.FromString(message).http_logs.log_entry)
            self._arrived.set()
        return b""
