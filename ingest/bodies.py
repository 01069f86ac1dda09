"""Reading a request body: bounded on the wire, bounded when decoded, bounded over all requests.

``gzip``, ``deflate`` (zlib) and ours, ``zstd``, are undone; an unknown coding is ignored and the bytes are
taken as they are (``contracts/wire.md`` §1). The limit is the contract's, for the bytes on
the wire; ours holds for the decoded bytes as well, or a small body could unfold without end.
"""

import asyncio
import zlib
from typing import Final, Self

import zstandard
from starlette.requests import ClientDisconnect, Request

_CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib window bits for each coding that is undone."""
ACCEPTED_CODINGS: Final = {"accept-encoding": ", ".join(("zstd", *_CODINGS))}
"""Told with every answer to a POST (RFC 9110 §12.5.3): sidecars compress where they may."""
PATIENCE_S: Final = 30.0
SLOWEST: Final = 256 * 1024
"""A body may take so long, and a second more for so many bytes: what a sidecar's delivery allows itself."""
_INLINE_BYTES: Final = 16 * 1024
"""Larger bodies are decoded in a thread: what unfolds from them would hold up every other request."""
_ZSTD_WINDOW: Final = 1 << 25


class OversizeError(Exception):
    """The body is larger than the limit (413)."""


class CodingError(ValueError):
    """The content coding could not be undone (400)."""


class SlowError(Exception):
    """The body did not come in the time allowed for it (408): what it held is wanted by others."""


class BudgetError(Exception):
    """Too many bytes of bodies are in flight (502)."""


class ByteBudget:
    """Bytes of request bodies held at once. One request is always let through."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, count: int) -> None:
        """Hold ``count`` more bytes, or raise :class:`BudgetError`."""
        if self.held and self.held + count > self._limit:
            raise BudgetError(f"{self.held} bytes of bodies are in flight")
        self.held += count

    def give_back(self, count: int) -> None:
        """Let go of ``count`` bytes."""
        self.held -= count


class Reading:
    """One body being read; as a context it gives its bytes back to the budget at the end."""

    def __init__(self, request: Request, limit: int, budget: ByteBudget) -> None:
        self._request = request
        self._limit = limit
        self._budget = budget
        self._held = 0

    def __enter__(self) -> Self:
        """Nothing is held yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """The request is answered: its bytes are free."""
        self._budget.give_back(self._held)

    def _hold(self, count: int) -> None:
        self._budget.take(count)
        self._held += count

    async def read(self) -> bytes:
        """The decoded body. Raises OversizeError, CodingError, BudgetError, SlowError, ClientDisconnect."""
        declared = self._request.headers.get("content-length", "")
        known = declared.isascii() and declared.isdigit()
        if known and int(declared) > self._limit:
            raise OversizeError
        expected = int(declared) if known else self._limit
        try:
            async with asyncio.timeout(PATIENCE_S + expected / SLOWEST):
                data = await self._receive()
        except TimeoutError as error:
            raise SlowError from error
        return await self._decode(data)

    async def _receive(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in self._request.stream():
            size += len(chunk)
            if size > self._limit:
                raise OversizeError
            self._hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    async def _decode(self, data: bytes) -> bytes:
        coding = self._request.headers.get("content-encoding", "").strip().lower()
        if coding != "zstd" and coding not in _CODINGS:
            return data
        if len(data) > _INLINE_BYTES:
            decoded = await asyncio.to_thread(_uncoded, data, coding, self._limit + 1)
        else:
            decoded = _uncoded(data, coding, self._limit + 1)
        if len(decoded) > self._limit:
            raise OversizeError
        self._hold(len(decoded))
        return decoded


def _uncoded(data: bytes, coding: str, most: int) -> bytes:
    if coding == "zstd":
        return _unzstd(data, most)
    return _unzip(data, _CODINGS[coding], most)


def _unzip(data: bytes, window: int, most: int) -> bytes:
    unzip = zlib.decompressobj(window)
    try:
        decoded = unzip.decompress(data, most)
    except zlib.error as error:
        raise CodingError(f"the content coding could not be undone: {error}") from error
    if not unzip.eof and len(decoded) < most:
        raise CodingError("the content coding ends early")
    return decoded


def _unzstd(data: bytes, most: int) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(data) as reader:
            decoded = reader.read(most)
    except zstandard.ZstdError as error:
        raise CodingError(f"the content coding could not be undone: {error}") from error
    if not decoded:
        raise CodingError("the content coding ends early")
    return decoded


def is_json(content_type: str) -> bool:
    """``application/json`` or ``application/<anything>+json``, with or without parameters."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


__all__ = [
    "ACCEPTED_CODINGS",
    "BudgetError",
    "ByteBudget",
    "ClientDisconnect",
    "CodingError",
    "OversizeError",
    "Reading",
    "SlowError",
    "is_json",
]
