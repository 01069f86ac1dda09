"""Floods of T20, sent by a process of their own.

    python -m tests.chaos.floods PORT SECONDS [ATTACK...]

Every attack has one connection, and opens another a moment after it was sent away. Prints
as JSON, for each attack: how many connections it had, and what the last words to it were.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from extproc.pb.ext_proc_pb2 import HttpBody, ProcessingMode, ProcessingRequest
from extproc.transport.http2 import frames
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.reasons import Reason
from tests.unit.extproc.transport.http2.client import GREETING, REQUEST, block, data, grpc, head
from tests.unit.extproc.transport.peer import both, exchange

PAUSE_S = 0.2
_BLOCK = block(REQUEST)
_MALFORMED = block([("Upper", "x")])
_FIRST, *_ = exchange(observe=False)
_LARGE = ProcessingRequest(
    request_body=HttpBody(body=b"x" * 16_000), protocol_config=both(ProcessingMode.FULL_DUPLEX_STREAMED)
).SerializeToString()


class Attack(NamedTuple):
    """``pieces``: what is sent, for ever. ``reason``: the http2 transport's last word."""

    reason: Reason
    pieces: Callable[[], Iterator[bytes]]


def again(piece: bytes, *, opening: bytes = b"") -> Callable[[], Iterator[bytes]]:
    """The same piece for ever, after an opening."""
    batch = piece * (1 + 4096 // len(piece))
    return lambda: itertools.chain((GREETING + opening,), itertools.repeat(batch))


def each_stream(make: Callable[[int], bytes], batch: int = 200) -> Callable[[], Iterator[bytes]]:
    """A piece for each of ever more streams, so many at a time."""

    def pieces() -> Iterator[bytes]:
        yield GREETING
        for first in itertools.count(1, 2 * batch):
            yield b"".join(make(first + 2 * number) for number in range(batch))

    return pieces


def _opened(stream_id: int) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, _BLOCK)


def _malformed(stream_id: int) -> bytes:
    return frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, _MALFORMED)


_BOMB = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12_000
_SHUT = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + head(1) + data(1, grpc(_FIRST))

ATTACKS: Mapping[str, Attack] = {
    "rapid reset": Attack(
        Reason.RESET_FLOOD,
        each_stream(lambda number: _opened(number) + frames.reset(number, ErrorCode.CANCEL)),
    ),
    "settings": Attack(Reason.SETTINGS_FLOOD, again(frames.settings({}))),
    "ping": Attack(Reason.PING_FLOOD, again(frames.frame(frames.PING, 0, 0, b"12345678"))),
    "continuation": Attack(
        Reason.CONTINUATION_FLOOD,
        again(
            frames.frame(frames.CONTINUATION, 0, 1, b"\x40\x01a\x01b" * 100),
            opening=frames.frame(frames.HEADERS, 0, 1, _BLOCK),
        ),
    ),
    "empty data": Attack(Reason.EMPTY_FRAME_FLOOD, again(data(1, b""), opening=head(1))),
    "unknown frames": Attack(Reason.IDLE_FRAME_FLOOD, again(frames.frame(99, 0, 0, b""))),
    "window updates": Attack(
        Reason.WINDOW_UPDATE_FLOOD,
        again(frames.window_update(0, 1), opening=frames.window_update(0, 1) * 25_000),
    ),
    "hpack bomb": Attack(
        Reason.HEADER_LIST,
        each_stream(lambda number: frames.frame(frames.HEADERS, frames.END_HEADERS, number, _BOMB), batch=4),
    ),
    "malformed heads": Attack(Reason.STREAM_ERROR_FLOOD, each_stream(_malformed)),
    "zero window": Attack(
        Reason.UNREAD_ANSWERS,
        lambda: itertools.chain((_SHUT,), itertools.repeat(data(1, grpc(_LARGE)) * 1200)),
    ),
    "slow preface": Attack(
        Reason.SLOW_PREFACE, lambda: (frames.PREFACE[number : number + 1] for number in range(20))
    ),
}
_SLOW = {"slow preface": 0.5}


class Told(NamedTuple):
    """What became of one attack."""

    connections: int
    last_words: Mapping[str, int]


async def attack(name: str, port: int, seconds: float) -> Told:
    """Attack until the time is over; every connection as long as it is let."""
    until = asyncio.get_running_loop().time() + seconds
    words: Counter[str] = Counter()
    connections = 0
    while (left := until - asyncio.get_running_loop().time()) > 0:
        connections += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        listening = asyncio.ensure_future(_last_words(reader))
        sending = asyncio.ensure_future(_send(writer, ATTACKS[name].pieces(), _SLOW.get(name, 0.0)))
        await asyncio.wait({listening}, timeout=left)
        words[listening.result() if listening.done() else "none"] += 1
        sending.cancel()
        listening.cancel()
        writer.transport.abort()
        await asyncio.sleep(PAUSE_S)
    return Told(connections, words)


async def _send(writer: asyncio.StreamWriter, pieces: Iterator[bytes], pause_s: float) -> None:
    """Send for as long as the other side takes it."""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)


async def _last_words(reader: asyncio.StreamReader) -> str:
    """Read until the end of the connection; returns what its GOAWAY said, or how it ended without."""
    said = "closed"
    try:
        while True:
            high, low, kind, _, _ = frames.HEADER.unpack(await reader.readexactly(frames.FRAME_HEADER_BYTES))
            payload = await reader.readexactly(high << 8 | low)
            if kind == frames.GOAWAY:
                said = payload[8:].decode(errors="replace")
    except asyncio.IncompleteReadError:
        return said
    except ConnectionError:
        return said if said != "closed" else "reset"


async def main() -> None:
    """Those attacks, or all, at once."""
    port, seconds, names = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:] or list(ATTACKS)
    told = await asyncio.gather(*(attack(name, port, seconds) for name in names))
    print(json.dumps({name: each._asdict() for name, each in zip(names, told, strict=True)}))  # noqa: T201 -- its report


if __name__ == "__main__":
    asyncio.run(main())
