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

from ingest.aside import INLINE_BYTES

_CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib window bits for each coding that is undone."""
ACCEPTED_CODINGS: Final = {"accept-encoding": ", ".join(("zstd", *_CODINGS))}
"""Told with every answer to a POST (RFC 9110 §12.5.3): sidecars compress where they may."""
PATIENCE_S: Final = 30.0
SLOWEST: Final = 256 * 1024
"""A body may take so long, and a second more for so many bytes: what a sidecar's delivery allows itself."""
_INLINE_CODED_BYTES: Final = 16 * 1024
"""Larger coded bodies are decoded in a thread, and so are those that unfold to ``INLINE_BYTES``."""
_ZSTD_WINDOW: Final = 1 << 25
_MEMBERS: Final = 10_000
"""Most members of one body: making a decoder for each of millions of empty ones would take minutes."""


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
        most = self._limit + 1
        inline = min(INLINE_BYTES, most) if len(data) <= _INLINE_CODED_BYTES else 0
        decoded = _uncoded(data, coding, inline) if inline else b""
        if len(decoded) == inline < most:
            decoded = await asyncio.to_thread(_uncoded, data, coding, most)
        if len(decoded) > self._limit:
            raise OversizeError
        self._hold(len(decoded))
        return decoded


class _Zip:
    """One member of gzip, or one stream of zlib."""

    piece: Final = 64 * 1024

    def __init__(self, window: int) -> None:
        self._unzip = zlib.decompressobj(window)

    def feed(self, part: memoryview, most: int) -> bytes:
        """What ``part`` decodes to, no longer than ``most``."""
        return self._unzip.decompress(part, most)

    @property
    def spare(self) -> int | None:
        """How many of the bytes fed come after the end; None before it."""
        return len(self._unzip.unused_data) if self._unzip.eof else None


class _Zstd:
    """One frame."""

    piece: Final = 256
    """So few bytes are at most 8 MiB decoded (64 blocks of 128 KiB): the decoder takes no limit."""

    def __init__(self) -> None:
        self._unzstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    def feed(self, part: memoryview, most: int) -> bytes:
        """What ``part`` decodes to, no longer than ``most``."""
        return self._unzstd.decompress(part)[:most]

    @property
    def spare(self) -> int | None:
        """How many of the bytes fed come after the end; None before it."""
        return len(self._unzstd.unused_data) if self._unzstd.eof else None


def _uncoded(data: bytes, coding: str, most: int) -> bytes:
    """All members or frames of ``data`` (deflate has one), decoded up to ``most`` bytes.

    What cannot be decoded is refused, wherever it stands, and so is what ends early: a part
    of a body may look like a whole one.
    """
    view, at, decoded, members = memoryview(data), 0, bytearray(), 0
    member: _Zip | _Zstd | None = None
    try:
        while at < len(view):
            if member is None:
                members += 1
                if members > (1 if coding == "deflate" else _MEMBERS):
                    raise CodingError(
                        "the content coding is followed by something else, or has too many parts"
                    )
                member = _Zstd() if coding == "zstd" else _Zip(_CODINGS[coding])
            part = view[at : at + member.piece]
            decoded += member.feed(part, most - len(decoded))
            if len(decoded) >= most:
                return bytes(decoded)
            spare = member.spare
            at += len(part) - (spare or 0)
            member = member if spare is None else None
    except (zlib.error, zstandard.ZstdError) as error:
        raise CodingError(f"the content coding could not be undone: {error}") from error
    if member is not None or not members:
        raise CodingError("the content coding ends early")
    return bytes(decoded)


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
