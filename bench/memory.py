"""Memory of open streams: ``python -m bench.memory``.

5,000 streams that each have received a request of 2 KB and 100 KB of SSE; then, with a sidecar begun
anew, 20,000 that have received their request's headers alone. RSS is that of the supervisor and the
worker together, before and while the streams are open; the worker's is shown beside it.
"""

import sys
import time
from dataclasses import dataclass

from bench.envoy_side import EnvoySide, PeerError
from bench.processes import Bench, Server
from bench.tables import bars, load, options, publish, table
from bench.turns import Turn, make_turn
from capture.reduce import BATCH_BYTES

_CONNECTIONS = 2
_TRANSPORTS = ("http2", "grpcio")
_WAITING_S = 600.0
_MIB = 1024 * 1024
_BATCH_CHUNKS = BATCH_BYTES // 200


@dataclass(frozen=True, slots=True)
class Size:
    """``busy`` streams with about ``chunks`` of 200 bytes each, ``idle`` ones."""

    busy: int = 5_000
    chunks: int = 512
    idle: int = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """RSS of the sidecar's processes, and of its worker alone; how many of the streams it had open."""

    transport: str
    what: str
    streams: int
    opened: int
    before_bytes: int
    after_bytes: int
    worker_bytes: int

    @property
    def each_bytes(self) -> float:
        """What a stream added."""
        return (self.after_bytes - self.before_bytes) / self.streams


def _busy(sides: list[EnvoySide], turn: Turn, size: Size) -> None:
    """Everything of a turn but its end. The streams end up to a batch of reduction apart, so that
    what waits to be reduced is what it is on average, and not what the round number happens to leave.
    """
    spread = min(_BATCH_CHUNKS, size.chunks // 2)
    for side in sides:
        ids = side.begin(size.busy // len(sides))
        for message in (*turn.opening, *turn.chunks[: size.chunks - spread // 2]):
            side.round(ids, message)
        for number, message in enumerate(turn.chunks[size.chunks - spread // 2 : size.chunks + spread // 2]):
            side.round(ids[len(ids) * number // spread :], message)


def _idle(sides: list[EnvoySide], turn: Turn, size: Size) -> None:
    """Streams that have shown the head of a request."""
    for side in sides:
        side.round(side.begin(size.idle // len(sides)), turn.opening[0])


def measure(transport: str, size: Size, *, busy: bool) -> Found:
    """Start a sidecar, open the streams, and look at its memory."""
    turn = make_turn(size.chunks + _BATCH_CHUNKS)
    streams = size.busy if busy else size.idle
    with Bench() as bench:
        bench.sink()
        server = bench.steno(transport, f"--transport={transport}")
        sides = [EnvoySide(server.ports[0]) for _ in range(_CONNECTIONS)]
        with EnvoySide(server.ports[0]) as warm:
            for message in (*turn.opening, *turn.chunks):
                warm.round(list(warm.open) or warm.begin(1), message)
            warm.until_over()
        time.sleep(1.0)
        before = server.rss_bytes()
        (_busy if busy else _idle)(sides, turn, size)
        opened = _settled(server, sides, streams)
        after = server.rss_bytes()
        return Found(
            transport,
            f"{size.chunks * 200 / 1024:.0f} KiB of SSE received" if busy else "idle",
            streams,
            opened,
            before,
            after,
            server.worker_rss_bytes()[0],
        )


def _settled(server: Server, sides: list[EnvoySide], streams: int) -> int:
    """Wait until the sidecar has read everything; returns how many streams it has open."""
    until = time.monotonic() + _WAITING_S
    opened, busy_s = 0, 1.0
    while (opened < streams or busy_s > 0.25) and time.monotonic() < until:
        began, cpu_s = time.monotonic(), server.cpu_s()
        while time.monotonic() - began < 1.0:
            for side in sides:
                side.read(wait_s=0.05)
        busy_s = (server.cpu_s() - cpu_s) / (time.monotonic() - began)
        previous, opened = opened, server.open_exchanges()
        if opened == previous and opened < streams and busy_s < 0.05:
            print(
                f"{server.name}: {streams - opened} of {streams} streams did not stay open", file=sys.stderr
            )
            break
    return opened


HEAD = ("transport", "streams", "each", "open", "RSS before", "RSS with them", "the worker's", "a stream")


def _row(found: Found) -> list[str]:
    return [
        found.transport,
        f"{found.streams:,}",
        found.what,
        f"{found.opened:,}",
        f"{found.before_bytes / _MIB:.0f} MiB",
        f"{found.after_bytes / _MIB:.0f} MiB",
        f"{found.worker_bytes / _MIB:.0f} MiB",
        f"{found.each_bytes / 1024:.1f} KiB",
    ]


def main() -> None:
    """Print the table; write the plot where told."""
    parser = options(__doc__)
    parser.add_argument("--transport", choices=_TRANSPORTS, help="only this one")
    given = parser.parse_args()
    size = Size(busy=50, chunks=10, idle=200) if given.smoke else Size()
    found: list[Found] = []
    for transport in (given.transport,) if given.transport else _TRANSPORTS:
        for busy in (True, False):
            try:
                found.append(measure(transport, size, busy=busy))
            except PeerError as error:
                if transport != "grpcio":  # which may take longer to read all this than it waits for a PING
                    raise
                print(f"{transport} gave the connection up: {error}; left out", file=sys.stderr)
    publish("bench.memory", load(), table(HEAD, [_row(each) for each in found]), given.into)
    if given.svg:
        given.svg.write_text(
            bars(
                "MiB of RSS: supervisor and worker",
                [
                    (
                        f"{each.transport}, {each.streams:,} {'idle' if each.what == 'idle' else 'open'}",
                        each.after_bytes / _MIB,
                    )
                    for each in found
                ],
            )
        )


if __name__ == "__main__":
    main()
