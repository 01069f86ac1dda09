"""One layer of a content coding: members in a row, a limit, and what salvage means.

A body of several gzip members or zstd frames is the text of all of them. Bytes after
the last member that begin no other one are left out, as browsers, Node and httpx do;
Go refuses such a body. The client has read its answer, so capture reads it too, and
the layer says ``truncated``: what was recovered is never taken for a clean body.
(Brotli's library leaves no choice: bytes after its end are an error.)
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import zstandard

from capture.coding.errors import CodingError, CodingFailure
from capture.coding.member import FOREIGN_ERRORS, Brotli, Inflate, Member, SniffedDeflate, Zstd

MAX_MEMBERS: Final = 250_000
"""An empty member takes a microsecond or two and gives nothing that the limit could count."""

_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS

# Only a slice is ever copied when a member leaves input over: many members stay linear.
_SLICE_BYTES: Final = 16 * 1024
# A zstd block is at least 4 bytes and gives at most 128 KiB: 256 bytes give at most 8 MiB.
_ZSTD_SLICE_BYTES: Final = 256


class Coding(NamedTuple):
    """How one coding is undone.

    ``opener``: given the largest window (zstd only), a constructor of members.
    ``followers``: how a further member begins, all of one length; None when the
    library judges what follows the end.
    """

    opener: Callable[[int], Callable[[], Member]]
    slice_bytes: int
    followers: tuple[bytes, ...] | None


def _open_gzip(_max_window_bytes: int) -> Callable[[], Member]:
    return lambda: Inflate(_GZIP_WBITS)


def _open_deflate(_max_window_bytes: int) -> Callable[[], Member]:
    return SniffedDeflate


def _open_brotli(_max_window_bytes: int) -> Callable[[], Member]:
    return Brotli


def _open_zstd(max_window_bytes: int) -> Callable[[], Member]:
    context = zstandard.ZstdDecompressor(max_window_size=max_window_bytes)
    return lambda: Zstd(context)


_GZIP: Final = Coding(_open_gzip, _SLICE_BYTES, followers=(b"\x1f\x8b",))
_ZSTD_FRAMES: Final = (b"\x28\xb5\x2f\xfd", *(bytes((0x50 + kind,)) + b"\x2a\x4d\x18" for kind in range(16)))

CODINGS: Final[dict[str, Coding]] = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    "deflate": Coding(_open_deflate, _SLICE_BYTES, followers=()),
    "br": Coding(_open_brotli, _SLICE_BYTES, followers=None),
    "zstd": Coding(_open_zstd, _ZSTD_SLICE_BYTES, followers=_ZSTD_FRAMES),
}
"""Every coding that can be undone, by its token in lower case."""


class Layer:
    """Undoes one coding. At most ``max_bytes`` of output, all members together."""

    __slots__ = (
        "_coding",
        "_given_bytes",
        "_head",
        "_max_bytes",
        "_member",
        "_members",
        "_name",
        "_open",
        "_trailing",
        "truncated",
    )

    def __init__(self, name: str, max_bytes: int, max_window_bytes: int) -> None:
        self._name = name
        self._coding = CODINGS[name]
        self._open = self._coding.opener(max_window_bytes)
        self._max_bytes = max_bytes
        self._member: Member | None = None
        self._members = 0  # begun, the running one included
        self._head = b""  # too few bytes to say whether a further member begins
        self._trailing = False
        self._given_bytes = 0
        self.truncated = False

    def undo(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Give the output of ``pieces`` as it comes. Raises :class:`CodingError`."""
        size = self._coding.slice_bytes
        for piece in pieces:
            for start in range(0, len(piece), size):
                yield from self._slice(piece[start : start + size])

    def finish(self) -> None:
        """The body has ended: decide if it is whole, can it be salvaged, or neither (``behaviour.md`` §3)."""
        if not self._members:
            raise self._failed(CodingFailure.UNDECODABLE, "no bytes")
        self.truncated = self._member is not None or self._trailing or bool(self._head)
        if self.truncated and not self._given_bytes:
            raise self._failed(CodingFailure.UNDECODABLE, "ended before its first byte of output")

    def _slice(self, data: bytes) -> Iterator[bytes]:
        while data and not self._trailing:
            if self._member is None:
                data = self._head + data
                self._head = b""
                if not self._begins(data):
                    return
                self._member = self._next_member()
            yield from self._counted(self._member, data)
            data = b""
            if self._member.complete:
                data = self._member.unused
                self._member = None

    def _begins(self, data: bytes) -> bool:
        """Whether ``data`` begins a member; too little of it is kept for the next call."""
        if not self._members:
            return True
        followers = self._coding.followers
        if followers is None:
            raise self._failed(CodingFailure.UNDECODABLE, "bytes after the end")
        self._trailing = True
        for magic in followers:
            if data.startswith(magic):
                self._trailing = False
                return True
            if magic.startswith(data):
                self._trailing = False
                self._head = data
        return False

    def _next_member(self) -> Member:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise self._failed(CodingFailure.OVERSIZE, f"more than {MAX_MEMBERS} members")
        return self._open()

    def _counted(self, member: Member, data: bytes) -> Iterator[bytes]:
        try:
            for piece in member.undo(data):
                self._given_bytes += len(piece)
                if self._given_bytes > self._max_bytes:
                    raise self._failed(CodingFailure.OVERSIZE, f"more than {self._max_bytes} bytes")
                yield piece
        except FOREIGN_ERRORS as error:
            raise self._failed(CodingFailure.UNDECODABLE, str(error)) from error

    def _failed(self, reason: CodingFailure, detail: str) -> CodingError:
        return CodingError(reason, f"{self._name}: {detail}")
