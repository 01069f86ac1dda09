"""What a chunk costs when there are many streams: ``python -m bench.scale``.

The same chunks, in the same order of time, over 64, 500, 2,000 and 5,000 streams, each a whole
turn, to ``steno extproc`` with one worker and with two (each worker has its port; the streams are
dealt out evenly). Interleaved; CPU is that of all the sidecar's processes
until they are idle again. The turns of a wave end in one moment, so that the queue behind the reader is made
large; what is shed even so shows as not delivered.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.envoy_side import EnvoySide
from bench.processes import Bench, Server
from bench.tables import bars, load, options, publish, table
from bench.turns import Turn, make_turn

_DELIVERED_S = 180.0
_QUIET_S = 0.5
_IDLE = 0.03


@dataclass(frozen=True, slots=True)
class Size:
    """``chunks`` to a turn, about ``total`` chunks in each measurement."""

    streams: tuple[int, ...] = (64, 500, 2_000, 5_000)
    workers: tuple[int, ...] = (1, 2)
    chunks: int = 40
    total: int = 200_000
    rounds: int = 2


@dataclass(slots=True)
class Cell:
    """One row: a sidecar and a number of streams."""

    server: Server
    workers: int
    streams: int
    cpu_s: float = 0.0
    wall_s: float = 0.0
    chunks: int = 0
    turns: int = 0
    delivered: int = 0


def _waves(sides: Sequence[EnvoySide], turn: Turn, streams: int, waves: int) -> None:
    """So many turns on each stream, one after the other; each connection has a thread of its own."""

    def play(side: EnvoySide) -> None:
        for _ in range(waves):
            ids = side.begin(streams // len(sides))
            for message in (*turn.opening, *turn.chunks):
                side.round(ids, message)
            side.until_over()

    players = [threading.Thread(target=play, args=(side,)) for side in sides]
    for player in players:
        player.start()
    for player in players:
        player.join()


def _measure(bench: Bench, cell: Cell, turn: Turn, size: Size) -> None:
    waves = max(1, size.total // (cell.streams * size.chunks))
    turns = waves * (cell.streams // cell.workers) * cell.workers
    sides = [EnvoySide(port) for port in cell.server.ports]
    before, cpu_s, started = bench.turns_delivered(), cell.server.cpu_s(), time.perf_counter()
    _waves(sides, turn, cell.streams, waves)
    cell.wall_s += time.perf_counter() - started
    _until_idle(cell.server)
    cell.cpu_s += cell.server.cpu_s() - cpu_s
    cell.chunks += turns * size.chunks
    cell.turns += turns
    cell.delivered += bench.turns_delivered() - before
    for side in sides:
        side.close()


def _until_idle(server: Server) -> None:
    """Wait until it has nothing to do any more. It may have shed turns: thousands end in one moment here."""
    until = time.monotonic() + _DELIVERED_S
    busy = 1.0
    while busy > _IDLE and time.monotonic() < until:
        cpu_s = server.cpu_s()
        time.sleep(_QUIET_S)
        busy = (server.cpu_s() - cpu_s) / _QUIET_S


def run(transport: str, size: Size) -> list[Cell]:
    """Every number of streams and of workers, in turn."""
    turn = make_turn(size.chunks)
    with Bench() as bench:
        bench.sink()
        cells: list[Cell] = []
        for workers in size.workers:
            server = bench.steno(
                f"{workers} workers", f"--transport={transport}", "--queue-turns=10000", workers=workers
            )
            cells += [Cell(server, workers, streams) for streams in size.streams]
            warm = [EnvoySide(port) for port in server.ports]
            _waves(warm, turn, 64, 2)
            for side in warm:
                side.close()
        time.sleep(2.0)
        for _ in range(size.rounds):
            for cell in cells:
                _measure(bench, cell, turn, size)
        return cells


HEAD = ("workers", "streams", "chunks/s", "µs CPU/chunk", "÷ fewest streams", "turns", "delivered")


def _rows(cells: Sequence[Cell]) -> list[list[str]]:
    first = {cell.workers: cell for cell in reversed(cells)}
    return [
        [
            str(cell.workers),
            f"{cell.streams:,}",
            f"{cell.chunks / cell.wall_s:,.0f}",
            f"{cell.cpu_s / cell.chunks * 1e6:.1f}",
            f"{cell.cpu_s / cell.chunks / (first[cell.workers].cpu_s / first[cell.workers].chunks):.2f}",
            f"{cell.turns:,}",
            f"{cell.delivered:,}",
        ]
        for cell in cells
    ]


def main() -> None:
    """Print the table; write the plot where told."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--transport", choices=("http2", "grpcio"), default="http2")
    given = parser.parse_args()
    size = (
        Size(streams=(8, 32), workers=(2,), chunks=10, total=300, rounds=1)
        if given.smoke
        else Size(rounds=given.rounds)
    )
    cells = run(given.transport, size)
    said = (
        f"{given.transport}, {size.chunks} chunks of 200 bytes to a turn, {size.rounds} interleaved rounds."
    )
    publish("bench.scale", f"{said} {load()}", table(HEAD, _rows(cells)), given.into)
    if given.svg:
        values = [
            (f"{each.streams:,} streams, {each.workers} worker(s)", each.cpu_s / each.chunks * 1e6)
            for each in cells
        ]
        given.svg.write_text(bars("µs of CPU a chunk, by open streams", values))


if __name__ == "__main__":
    main()
