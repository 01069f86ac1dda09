"""HTTP/1.1 to one endpoint: pooled keep-alive connections and strictly bounded answers.

The only module of this package that opens sockets. Why not a general client: it must
never read more than the bound, in any part of an answer, must see an answer that comes
before the request was written (413), and is paid for every turn (``docs/delivery.md``
has the measurement). What it leaves out is what delivery must not do: redirects,
cookies, proxies from the environment, content codings of answers.
"""

import asyncio
import ssl
from asyncio import BufferedProtocol
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import quote, urlsplit

from ingest_client.delivery.answer import Answer, AnswerReader, MalformedAnswer
from ingest_client.delivery.classify import Reason
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.credentials import Credentials, CredentialsUnreadable
from ingest_client.delivery.learned import Coding
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings

USER_AGENT: Final = "steno"

_READ_BYTES: Final = 16 * 1024
_SLICE_BYTES: Final = 256 * 1024
"""Larger bodies are written in slices, as fast as the peer takes them."""


class ExchangeFailed(Exception):  # noqa: N818 - past tense for what happened
    """No status arrived. ``reason`` says why in the closed set, the message in words."""

    def __init__(self, reason: Reason, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as far as it came; ``shortfall`` is why it is not complete, None if it is."""

    answer: Answer
    shortfall: Reason | None


class _Connection(BufferedProtocol):
    """One connection, one exchange at a time."""

    def __init__(self, max_answer_bytes: int, generation: int, born_s: float) -> None:
        self._max_answer_bytes = max_answer_bytes
        self.generation = generation
        self.born_s = born_s
        self.idle_since_s = born_s
        self._buffer = bytearray(_READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._ended: asyncio.Future[Reason | None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.usable = True

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, so nothing to check by type.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        wanted = _READ_BYTES if self._reader is None else self._reader.wanted
        return memoryview(self._buffer)[: max(1, min(_READ_BYTES, wanted))]

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        if reader is None or self._ended is None or self._ended.done():
            self.abort()  # nobody asked for these bytes
            return
        try:
            if reader.feed(bytes(self._buffer[:nbytes])):
                answer = reader.answer()
                self._end(None if answer is not None and answer.complete else Reason.ANSWER_TOO_LARGE)
        except MalformedAnswer as error:
            self._malformed = str(error)
            self._end(Reason.ANSWER_MALFORMED)

    _malformed = ""

    def eof_received(self) -> bool:
        self.usable = False
        if self._reader is not None:
            self._reader.eof()
            answer = self._reader.answer()
            self._end(None if answer is not None and answer.complete else Reason.CONNECTION_LOST)
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.usable = False
        self._end(Reason.CONNECTION_LOST)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._let_write()

    # What the pool calls.

    async def exchange(self, head: bytes, body: bytes, timeout_s: float) -> Reply:
        """Send one request and read its answer. Raises :class:`ExchangeFailed`."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        reader = self._reader = AnswerReader(self._max_answer_bytes)
        ended = self._ended = loop.create_future()
        timer = loop.call_later(timeout_s, self._end, Reason.TIMED_OUT)
        written = False
        try:
            if len(body) <= _SLICE_BYTES:
                self._transport.write(head + body)
                written = True
            else:
                written = await self._write_slices(head, body)
            shortfall = await ended
        finally:
            timer.cancel()
            if not ended.done():
                ended.cancel()
            self._reader = None
            answer = reader.answer()
            if answer is None or not answer.reusable or not written or self._writable is not None:
                self.abort()
        if answer is None:
            reason = shortfall or Reason.CONNECTION_LOST
            raise ExchangeFailed(reason, self._malformed or _WORDS.get(reason, reason.value))
        return Reply(answer, shortfall)

    async def _write_slices(self, head: bytes, body: bytes) -> bool:
        """Write as fast as the peer reads; stop when the answer is already there. Says if all was written."""
        assert self._transport is not None
        self._transport.write(head)
        view = memoryview(body)
        for start in range(0, len(body), _SLICE_BYTES):
            if self._writable is not None:
                await self._writable
            if self._ended is None or self._ended.done() or self._transport.is_closing():
                return False
            self._transport.write(view[start : start + _SLICE_BYTES])
        return True

    def abort(self) -> None:
        """Drop the connection now, whatever it still had to say."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _end(self, shortfall: Reason | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(shortfall)
        self._let_write()

    def _let_write(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)


_WORDS: Final = {
    Reason.CONNECTION_LOST: "the connection was closed before a status arrived",
    Reason.TIMED_OUT: "no complete head of an answer within the time allowed",
    Reason.ANSWER_TOO_LARGE: "the head of the answer exceeds the bound",
}


@dataclass(slots=True)
class HttpEndpoint:
    """Requests to one endpoint. Close it to close its connections."""

    settings: EndpointSettings
    delivery: DeliverySettings
    counters: DeliveryCounters
    credentials: Credentials = field(init=False)
    _idle: list[_Connection] = field(default_factory=list[_Connection])
    _all: set[_Connection] = field(default_factory=set[_Connection])
    _heads: dict[tuple[str, str, str | None], bytes] = field(
        default_factory=dict[tuple[str, str, str | None], bytes]
    )
    _host: str = field(init=False)
    _port: int = field(init=False)
    _authority: str = field(init=False)
    _prefix: str = field(init=False)

    def __post_init__(self) -> None:
        """Take the url apart once."""
        parts = urlsplit(self.settings.url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc
        self._prefix = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._")
        self.credentials = Credentials(self.settings, self.counters)

    async def post(
        self, path: str, body: bytes, *, turn_id: str | None = None, coding: Coding = "identity"
    ) -> Reply:
        """POST a JSON body. ``turn_id`` goes into ``Idempotency-Key``. Raises :class:`ExchangeFailed`."""
        now_s = self._refresh()
        head = self._head("POST", path, len(body), turn_id, coding)
        return await self._request(head, body, now_s, self._timeout_s(len(body)))

    async def get(self, path: str, timeout_s: float) -> Reply:
        """GET, for heartbeats. Raises :class:`ExchangeFailed`."""
        now_s = self._refresh()
        return await self._request(self._head("GET", path, 0, None, "identity"), b"", now_s, timeout_s)

    def close_idle(self, now_s: float) -> None:
        """Close connections that have rested too long, before the peer does."""
        keep: list[_Connection] = []
        for connection in self._idle:
            if self._fresh(connection, now_s):
                keep.append(connection)
            else:
                self._drop(connection)
        self._idle = keep

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self._all):
            self._drop(connection)
        self._idle.clear()

    def _timeout_s(self, body_bytes: int) -> float:
        return self.delivery.answer_timeout_s + body_bytes / self.delivery.slowest_upload

    def _refresh(self) -> float:
        """Take up changed credentials; returns the loop's time."""
        now_s = asyncio.get_running_loop().time()
        try:
            self.credentials.refresh(now_s)
        except CredentialsUnreadable as error:
            raise ExchangeFailed(Reason.CREDENTIALS_UNREADABLE, str(error)) from error
        return now_s

    async def _request(self, head: bytes, body: bytes, now_s: float, timeout_s: float) -> Reply:
        connection = self._reuse(now_s)
        if connection is not None:
            try:
                return await self._exchange(connection, head, body, timeout_s)
            except ExchangeFailed as error:
                if error.reason is not Reason.CONNECTION_LOST:
                    raise
                # The peer closed a resting connection just now. The request carries our
                # turn id, so sending it once more cannot store it twice.
                self.counters.stale_connections += 1
        return await self._exchange(await self._connect(now_s), head, body, timeout_s)

    async def _exchange(self, connection: _Connection, head: bytes, body: bytes, timeout_s: float) -> Reply:
        try:
            return await connection.exchange(head, body, timeout_s)
        finally:
            if connection.usable:
                connection.idle_since_s = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                self._drop(connection)

    def _reuse(self, now_s: float) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if self._fresh(connection, now_s):
                return connection
            self._drop(connection)
        return None

    def _fresh(self, connection: _Connection, now_s: float) -> bool:
        return (
            connection.usable
            and connection.generation == self.credentials.generation
            and now_s - connection.idle_since_s < self.delivery.keepalive_s
            and now_s - connection.born_s < self.delivery.connection_age_s
        )

    def _drop(self, connection: _Connection) -> None:
        connection.abort()
        self._all.discard(connection)

    async def _connect(self, now_s: float) -> _Connection:
        context = self.credentials.context
        generation = self.credentials.generation
        try:
            async with asyncio.timeout(self.delivery.connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self.delivery.max_answer_bytes, generation, now_s),
                    self._host,
                    self._port,
                    ssl=context,
                    server_hostname=self._host if context is not None else None,
                )
        except TimeoutError as error:
            raise ExchangeFailed(Reason.TIMED_OUT, "no connection within the time allowed") from error
        except ssl.CertificateError as error:
            raise ExchangeFailed(Reason.TLS_FAILED, f"the certificate was refused: {error}") from error
        except ssl.SSLError as error:
            raise ExchangeFailed(Reason.TLS_FAILED, f"TLS failed: {error}") from error
        except (OSError, UnicodeError) as error:
            raise ExchangeFailed(Reason.UNREACHABLE, f"cannot connect: {error}") from error
        self.counters.connections += 1
        self._all.add(connection)
        return connection

    def _head(self, method: str, path: str, length: int, turn_id: str | None, coding: Coding) -> bytes:
        key = (method, path, self.credentials.token)
        common = self._heads.get(key)
        if common is None:
            if len(self._heads) > 16:  # noqa: PLR2004 - old tokens are not kept
                self._heads.clear()
            common = self._heads[key] = self._common_head(method, path)
        if method == "GET":
            return common + b"\r\n"
        lines = f"Content-Length: {length}\r\n"
        if turn_id is not None:
            lines += f"Idempotency-Key: {quote(turn_id, safe='-._~')}\r\n"
        if coding != "identity":
            lines += f"Content-Encoding: {coding}\r\n"
        return common + lines.encode("ascii") + b"\r\n"

    def _common_head(self, method: str, path: str) -> bytes:
        lines = [
            f"{method} {self._prefix}{path} HTTP/1.1",
            f"Host: {self._authority}",
            f"User-Agent: {USER_AGENT}",
            "Accept: application/json",
            "Accept-Encoding: identity",
        ]
        if method == "POST":
            lines.append("Content-Type: application/json")
        if self.credentials.token is not None:
            lines.append(f"Authorization: Bearer {self.credentials.token}")
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")
