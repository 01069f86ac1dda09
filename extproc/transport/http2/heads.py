"""Header blocks: a request's head, checked as RFC 9113 §8 and gRPC ask, and our answers'."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from hpack import Encoder
from hpack.struct import NeverIndexedHeaderTuple

from extproc.transport.http2.messages import Status

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED = frozenset({b":method", b":scheme", b":path"})
_OF_ONE_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class MalformedHeadError(Exception):
    """A header block that RFC 9113 §8 forbids; its stream is reset."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request: ``status`` is the HTTP status to refuse it with, 200 for a gRPC call."""

    path: str
    status: int
    metadata: dict[str, str]
    timeout_s: float | None
    content_length: int | None


def read_head(fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """The head of a request. Raises ``MalformedHeadError``."""
    pseudo: dict[bytes, bytes] = {}
    regular: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in pseudo:
                raise MalformedHeadError
            pseudo[name] = value
        else:
            _check(name, value)
            regular[name] = regular[name] + b"," + value if name in regular else value
    if not pseudo.keys() >= _NEEDED or not pseudo[b":path"]:
        raise MalformedHeadError
    return Head(
        path=pseudo[b":path"].decode("latin-1"),
        status=_http_status(pseudo[b":method"], regular.get(b"content-type", b"")),
        metadata=_metadata(regular),
        timeout_s=_timeout(regular.get(b"grpc-timeout")),
        content_length=_content_length(regular.get(b"content-length")),
    )


def check_trailers(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ``MalformedHeadError`` for trailers that cannot be."""
    for name, value in fields:
        _check(name, value)


def _check(name: bytes, value: bytes) -> None:
    """One regular field (RFC 9113 §8.2)."""
    if not _NAME.fullmatch(name) or _BAD_VALUE.search(value) or name in _OF_ONE_CONNECTION:
        raise MalformedHeadError
    if name == b"te" and value != b"trailers":
        raise MalformedHeadError


def _http_status(method: bytes, content_type: bytes) -> int:
    """200 for what can be a gRPC call."""
    if method != b"POST":
        return 405
    return 200 if content_type.startswith(b"application/grpc") else 415


def _metadata(regular: dict[bytes, bytes]) -> dict[str, str]:
    """The fields as text, binary ones left out."""
    return {
        name.decode("ascii"): value.decode("utf-8", "replace")
        for name, value in regular.items()
        if not name.endswith(b"-bin")
    }


def _timeout(value: bytes | None) -> float | None:
    """``grpc-timeout`` in seconds; one that cannot be read is none."""
    found = None if value is None else _TIMEOUT.fullmatch(value)
    return int(found[1]) * _UNIT_S[found[2]] if found else None


def _content_length(value: bytes | None) -> int | None:
    """The promised number of bytes."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > 19:  # noqa: PLR2004 -- digits of 2**63
        raise MalformedHeadError
    return int(value)


def _block(*fields: tuple[str, str]) -> bytes:
    """A header block that leaves the peer's dynamic table alone, so that it is a constant."""
    return Encoder().encode([NeverIndexedHeaderTuple(*each) for each in fields])


_GRPC = ((":status", "200"), ("content-type", "application/grpc"))
ANSWER_BLOCK = _block(*_GRPC)
_OK_BLOCKS = {True: _block(("grpc-status", "0")), False: _block(*_GRPC, ("grpc-status", "0"))}
"""The ends of RPCs that went well, by whether an answer was sent before: nearly all of them."""


def trailers_block(status: Status, why: str, *, answered: bool) -> bytes:
    """The fields that end an RPC; with the answer's own where none was sent before."""
    if status is Status.OK and not why:
        return _OK_BLOCKS[answered]
    fields = () if answered else _GRPC
    message = (("grpc-message", quote(why, safe=" ,.;:'()/")),) if why else ()
    return _block(*fields, ("grpc-status", str(int(status))), *message)


def refusal_block(http_status: int) -> bytes:
    """The answer to a request that is no gRPC call."""
    return _block((":status", str(http_status)), ("content-type", "text/plain"))
