"""Clients that time what they are sent: ``python -m bench.envoy_clients``, orders on stdin.

An order is one line of JSON, and so is its result. Pieces carry the time they were sent at
(``bench.envoy_provider``); the time they arrived at is the kernel's, taken when the bytes reached
the client's socket (``SO_TIMESTAMPNS``), so that how soon Python looks at them is no part of it.
"""

import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.envoy_provider import PATH, take_precedence
from bench.turns import request_body

_STAMP: Final = re.compile(rb"@(\d{19})")
_GOOD: Final = b"HTTP/1.1 200 "
_END: Final = b"\r\n0\r\n\r\n"
_SO_TIMESTAMPNS: Final = 35
_CMSG_BYTES: Final = 64
_GRACE_S: Final = 30.0
_WARM_S: Final = 0.3


@dataclass(slots=True)
class Times:
    """Microseconds. ``chunk_us``: from the provider's write to the client's socket; ``first_us``:
    from a request's write to the first byte of its answer. ``unanswered``: turns without an end.
    """

    chunk_us: list[float] = field(default_factory=list[float])
    first_us: list[float] = field(default_factory=list[float])
    unanswered: int = 0


def _request(chunks: int, interval_us: int) -> bytes:
    body = request_body()
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: api.openai.com\r\ncontent-type: application/json\r\n"
        f"x-pace: {chunks} {interval_us}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Connection:
    """One keep-alive connection, one turn at a time."""

    def __init__(self, port: int, times: Times) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.times = times
        self.busy = False
        self._sent_ns = 0
        self._unread = b""

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self.busy, self._sent_ns, self._unread = True, time.time_ns(), b""
        self.socket.sendall(request)

    def read(self) -> None:
        """Take in what came. Raises ``ConnectionError`` when the peer is gone or answers with an error."""
        data, extra, _, _ = self.socket.recvmsg(65536, _CMSG_BYTES)
        if not data:
            raise ConnectionError
        now_ns = _stamp_ns(extra)
        if self._sent_ns:
            if not data.startswith(_GOOD):
                raise ConnectionError(data)
            self.times.first_us.append((now_ns - self._sent_ns) / 1000)
            self._sent_ns = 0
        unread = self._unread + data
        end = 0
        for stamp in _STAMP.finditer(unread):
            self.times.chunk_us.append((now_ns - int(stamp[1])) / 1000)
            end = stamp.end()
        self._unread = unread[end:]
        self.busy = not unread.endswith(_END)


def _stamp_ns(extra: Sequence[tuple[int, int, bytes]]) -> int:
    """When the kernel got the bytes; now, where it does not say."""
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("@ll", data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


class _Loop:
    """Connections that are read as soon as something is there, until a time."""

    def __init__(self, port: int, connections: int) -> None:
        self.times = Times()
        self.connections = [_Connection(port, self.times) for _ in range(connections)]
        self._poll = select.epoll()
        self._by_number = {each.socket.fileno(): each for each in self.connections}
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)

    def until(self, at_s: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Read until that moment of the monotonic clock, or until there is nothing to wait for."""
        while (left_s := at_s - time.monotonic()) > 0 and not stop():
            whole_ms = int(left_s * 1000) / 1000
            if not whole_ms:  # epoll knows only whole milliseconds
                time.sleep(left_s)
            for number, _ in self._poll.poll(whole_ms):
                self._by_number[number].read()

    def idle(self) -> bool:
        """Whether no answer is on its way."""
        return not any(each.busy for each in self.connections)

    def finish(self) -> Times:
        """Wait for the rest; what does not come in time is counted."""
        self.until(time.monotonic() + _GRACE_S, self.idle)
        self.times.unanswered = sum(each.busy for each in self.connections)
        for each in self.connections:
            each.socket.close()
        return self.times


def streams(port: int, count: int, chunks: int, interval_us: int) -> Times:
    """That many streams at once, begun evenly over one interval."""
    loop, request = _Loop(port, count), _request(chunks, interval_us)
    began_s = time.monotonic()
    for number, connection in enumerate(loop.connections):
        loop.until(began_s + number * interval_us / 1e6 / count)
        connection.ask(request)
    return loop.finish()


def firsts(port: int, connections: int, rate: float, seconds: float) -> Times:
    """Short turns at a steady rate over warm connections; one that would have to wait is left out."""
    loop, request = _Loop(port, connections), _request(1, 0)
    for connection in loop.connections:
        connection.ask(request)
        loop.until(time.monotonic() + _WARM_S, loop.idle)
    loop.times.first_us.clear()
    loop.times.chunk_us.clear()
    began_s = time.monotonic()
    for number in range(int(rate * seconds)):
        loop.until(began_s + number / rate)
        connection = loop.connections[number % connections]
        if not connection.busy:
            connection.ask(request)
    return loop.finish()


def _obey(order: dict[str, float]) -> Times:
    port = int(order["port"])
    if "streams" in order:
        return streams(port, int(order["streams"]), int(order["chunks"]), int(order["interval_us"]))
    return firsts(port, int(order["connections"]), order["rate"], order["seconds"])


def _main() -> None:
    take_precedence()
    for line in sys.stdin:
        times = _obey(json.loads(line))
        result = {"chunk_us": times.chunk_us, "first_us": times.first_us, "unanswered": times.unanswered}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _main()
