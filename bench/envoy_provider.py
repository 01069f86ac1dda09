"""A provider that paces its answers and stamps each piece: ``python -m bench.envoy_provider PORT``.

A request names its answer in ``x-pace: CHUNKS INTERVAL_US``. Each delta carries the wall time at
which it is handed to the kernel (``@`` and nineteen digits, in nanoseconds), so whoever reads it
on the same machine knows how long it travelled. One thread reads requests; the other sleeps until
the next piece is due and writes it: no event loop's timer of whole milliseconds is in between.
"""

import gc
import heapq
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

PATH: Final = "/v1/chat/completions"
CHUNK_BYTES: Final = 200
STAMP_BYTES: Final = 20
NICE: Final = -5
"""Provider and clients are the measure: where allowed, they go before what is measured."""

_PACE: Final = re.compile(rb"(?i)\r\nx-pace: (\d+) (\d+)")
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BEFORE: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1750000000,"model":"gpt",'
    b'"choices":[{"index":0,"delta":{"content":" '
)
_AFTER: Final = b'"}}]}\n\n'
_LAST: Final = _BEFORE + b'"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_END: Final = b"0\r\n\r\n"


def take_precedence() -> None:
    """Ask for a higher priority, and keep the collector out of what is timed."""
    gc.disable()
    try:
        os.nice(NICE)
    except PermissionError:
        print("no permission for a higher priority: times will be noisier", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Piece:
    """One write: ``before``, the stamp, ``after``; without a stamp where ``after`` is empty."""

    before: bytes
    after: bytes

    def stamped(self) -> bytes:
        return b"%b@%019d%b" % (self.before, time.time_ns(), self.after) if self.after else self.before


def pieces(chunks: int) -> Sequence[Piece]:
    """The writes of an answer: its headers go with the first delta, its end follows the last at once."""
    padding = CHUNK_BYTES - STAMP_BYTES - len(_BEFORE) - len(_AFTER)
    size = b"%x\r\n" % CHUNK_BYTES
    delta = Piece(size + _BEFORE, b"x" * padding + _AFTER + b"\r\n")
    first = Piece(_HEAD + delta.before, delta.after)
    return [first, *[delta] * (chunks - 1), Piece(_framed(_LAST) + _END, b"")]


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(order=True, slots=True)
class _Due:
    """The next piece of one answer."""

    at_s: float
    number: int
    connection: socket.socket = field(compare=False)
    left: Sequence[Piece] = field(compare=False)
    interval_s: float = field(compare=False)


class Pacer:
    """Writes pieces when they are due, in a thread of its own."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._changed = threading.Condition()
        self._count = 0
        self._answers: dict[int, Sequence[Piece]] = {}

    def answer(self, connection: socket.socket, chunks: int, interval_s: float) -> None:
        """Begin an answer now."""
        if chunks not in self._answers:
            self._answers[chunks] = pieces(chunks)
        self._push([_Due(time.monotonic(), 0, connection, self._answers[chunks], interval_s)])

    def run(self) -> None:
        """For ever."""
        while True:
            with self._changed:
                while (wait_s := self._wait_s()) is None or wait_s > 0:
                    self._changed.wait(wait_s)
                due = heapq.heappop(self._due)
            self._write(due)

    def _wait_s(self) -> float | None:
        """How long until something is due; None while there is nothing."""
        return self._due[0].at_s - time.monotonic() if self._due else None

    def _write(self, due: _Due) -> None:
        piece, *left = due.left
        try:
            due.connection.sendall(piece.stamped())
            if len(left) == 1:
                due.connection.sendall(left.pop().before)
        except OSError:
            return
        if left:
            self._push([_Due(due.at_s + due.interval_s, 0, due.connection, left, due.interval_s)])

    def _push(self, new: Iterable[_Due]) -> None:
        with self._changed:
            for each in new:
                self._count += 1
                each.number = self._count
                heapq.heappush(self._due, each)
            self._changed.notify()


def _serve(port: int) -> None:
    pacer = Pacer()
    threading.Thread(target=pacer.run, daemon=True).start()
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    open_: dict[int, tuple[socket.socket, bytearray]] = {}
    print(f"listening on 127.0.0.1:{port}", flush=True)
    while True:
        for number, _ in poll.poll():
            if number == listening.fileno():
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[connection.fileno()] = connection, bytearray()
                poll.register(connection, select.EPOLLIN)
            elif not _read(*open_[number], pacer):
                poll.unregister(number)
                open_.pop(number)[0].close()


def _read(connection: socket.socket, unread: bytearray, pacer: Pacer) -> bool:
    """Take in what came, and answer each request that is complete; False when the peer is gone."""
    try:
        data = connection.recv(65536)
    except OSError:
        return False
    unread += data
    while (end := unread.find(b"\r\n\r\n")) >= 0:
        length, pace = _LENGTH.search(unread, 0, end), _PACE.search(unread, 0, end)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(unread) < size:
            break
        chunks, interval_us = (int(pace[1]), int(pace[2])) if pace else (1, 0)
        del unread[:size]
        pacer.answer(connection, chunks, interval_us / 1e6)
    return bool(data)


if __name__ == "__main__":
    take_precedence()
    _serve(int(sys.argv[1]))
