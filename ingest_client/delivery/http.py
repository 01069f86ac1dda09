"""HTTP/1.1 to one endpoint: a pool of keep-alive connections, credentials, requests.

With ``connection`` the only module of delivery that does I/O on the network. Why not a
general client: delivery must never read more than the bound, in any part of an answer,
must see an answer that comes before the request was written (413), and is paid for every
turn (``docs/decisions`` has the measurement). What it leaves out is what delivery must not
do: redirects, cookies, proxies from the environment, content codings of answers.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from ingest_client.delivery.classify import Reason
from ingest_client.delivery.connection import Connection, ExchangeFailed, Reply
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.credentials import Credentials, CredentialsUnreadable
from ingest_client.delivery.learned import Coding
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings

USER_AGENT: Final = "steno"


@dataclass(slots=True)
class HttpEndpoint:
    """Requests to one endpoint. Close it to close its connections."""

    settings: EndpointSettings
    delivery: DeliverySettings
    counters: DeliveryCounters
    credentials: Credentials = field(init=False)
    _idle: list[Connection] = field(default_factory=list[Connection])
    _all: set[Connection] = field(default_factory=set[Connection])
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
        keep: list[Connection] = []
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

    async def _exchange(self, connection: Connection, head: bytes, body: bytes, timeout_s: float) -> Reply:
        try:
            return await connection.exchange(head, body, timeout_s)
        finally:
            if connection.usable:
                connection.idle_since_s = asyncio.get_running_loop().time()
                self._idle.append(connection)
            else:
                self._drop(connection)

    def _reuse(self, now_s: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if self._fresh(connection, now_s):
                return connection
            self._drop(connection)
        return None

    def _fresh(self, connection: Connection, now_s: float) -> bool:
        return (
            connection.usable
            and connection.generation == self.credentials.generation
            and now_s - connection.idle_since_s < self.delivery.keepalive_s
            and now_s - connection.born_s < self.delivery.connection_age_s
        )

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._all.discard(connection)

    async def _connect(self, now_s: float) -> Connection:
        context = self.credentials.context
        generation = self.credentials.generation
        try:
            async with asyncio.timeout(self.delivery.connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self.delivery.max_answer_bytes, generation, now_s),
                    self._host,
                    self._port,
                    ssl=context,
                    server_hostname=self._host if context is not None else None,
                )
        except TimeoutError as error:
            raise ExchangeFailed(Reason.UNREACHABLE, "no connection within the time allowed") from error
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
