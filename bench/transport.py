"""Every transport beside the Go reference and a bare socket: ``python -m bench.transport``.

The bench plays Envoy's side over loopback. *Burst*: 64 streams move in step, as fast as the windows
allow; where answers are wanted, the next round waits for them. *Paced*: each stream sends a chunk
each 20 ms in a write of its own. CPU is that of the server's processes, all of them. ``full`` is
``steno extproc`` as a user runs it (reduce, redact, marshal, spool with fsync, POST to a sink, and the
idle cost of its processes); ``bare`` is our transport with a handler that appends.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.envoy_side import EnvoySide
from bench.processes import Bench, Server, build_go
from bench.tables import bars, load, options, publish, table
from bench.turns import Turn, make_turn

STREAMS = 64
_QUIET_S = 0.3
_DELIVERED_S = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    """``chunks`` to a turn, ``waves`` of ``STREAMS`` turns in each burst. ``smoke``: one server of each
    kind, and only bursts.
    """

    chunks: int = 200
    waves: int = 3
    rounds: int = 3
    smoke: bool = False


@dataclass(slots=True)
class Contestant:
    """A server, and how Envoy's side speaks to it."""

    server: Server
    observe: bool
    full: bool = False
    cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    wall_s: dict[str, float] = field(default_factory=dict[str, float])
    latencies_s: list[float] = field(default_factory=list[float])

    @property
    def limit(self) -> bool:
        """Whether it is no server at all, but what a socket costs."""
        return self.server.name == "drain bare"

    @property
    def name(self) -> str:
        """``go streamed``, ``http2 full`` and so on; ``reply`` where answers are waited for."""
        replies = "" if self.observe or "streamed" in self.server.name else ", reply"
        return self.server.name + replies


def contestants(bench: Bench, *, smoke: bool) -> list[Contestant]:
    """All of them, started; where it is only about seeing that they run, one of each kind."""
    bench.sink()
    http2 = bench.bare("http2")
    full = bench.steno("http2 full", "--transport=http2")
    found = [
        Contestant(bench.bare("drain"), observe=True),
        Contestant(http2, observe=True),
        Contestant(full, observe=True, full=True),
        Contestant(full, observe=False, full=True),
    ]
    if not smoke:
        no_rest = bench.steno("http2 full no rest", "--transport=http2", "--rest=0")
        grpcio, grpcio_full = bench.bare("grpcio"), bench.steno("grpcio full", "--transport=grpcio")
        found[3:] = [
            Contestant(no_rest, observe=True, full=True),
            Contestant(grpcio, observe=True),
            Contestant(grpcio_full, observe=True, full=True),
            Contestant(http2, observe=False),
            Contestant(full, observe=False, full=True),
            Contestant(grpcio, observe=False),
            Contestant(grpcio_full, observe=False, full=True),
        ]
    go = None if smoke else build_go()
    if go is not None:
        streamed, observing = bench.go(go, "streamed"), bench.go(go, "observe")
        found[:0] = [Contestant(streamed, observe=False), Contestant(observing, observe=True)]
    return found


def burst(side: EnvoySide, turn: Turn, streams: int, *, reply: bool) -> None:
    """One turn on each of the streams, in step, as fast as the windows allow."""
    ids = side.begin(streams)
    answered = side.answers
    for message in (*turn.opening, *turn.chunks):
        side.round(ids, message)
        if reply:
            answered += streams
            side.until_answered(answered)
    side.until_over()


def paced(side: EnvoySide, turn: Turn, interval_s: float, streams: int = STREAMS) -> None:
    """One turn on each of the streams, a chunk each ``interval_s``, the streams evenly apart."""
    ids = side.begin(streams, timed=True)
    for message in turn.opening:
        side.round(ids, message)
    started = time.perf_counter()
    for number, message in enumerate(turn.chunks):
        for place, each in enumerate(ids):
            due = started + interval_s * (number + place / streams)
            while (left := due - time.perf_counter()) > 0:
                side.read(wait_s=left)
            side.one(each, message)
        side.read()
    side.until_over()


def _measured(bench: Bench, contestant: Contestant, kind: str, turns: int, run: Callable[[], None]) -> None:
    """Run it, let everything be delivered, and add up what that has cost."""
    server = contestant.server
    delivered = bench.turns_delivered()
    cpu_s, started = server.cpu_s(), time.perf_counter()
    run()
    wall_s = time.perf_counter() - started
    until = time.monotonic() + _DELIVERED_S
    while contestant.full and bench.turns_delivered() - delivered < turns:
        if time.monotonic() > until:
            raise RuntimeError(
                f"{server.name} has not delivered its turns:\n{server.log.read_text()[-4000:]}"
            )
        time.sleep(0.05)
    time.sleep(_QUIET_S)
    contestant.cpu_s[kind] = contestant.cpu_s.get(kind, 0.0) + server.cpu_s() - cpu_s
    contestant.wall_s[kind] = contestant.wall_s.get(kind, 0.0) + wall_s


def _round(bench: Bench, contestant: Contestant, size: Size, turns: dict[bool, Turn]) -> None:
    """One contestant's share of a round, on a connection of its own: servers let none grow old."""
    turn = turns[contestant.observe]
    if contestant.limit:
        _measured(bench, contestant, "burst", 0, lambda: _drain(contestant.server, turn, size))
        return
    with EnvoySide(contestant.server.ports[0]) as side:

        def bursts() -> None:
            for _ in range(size.waves):
                burst(side, turn, STREAMS, reply=not contestant.observe)

        _measured(bench, contestant, "burst", size.waves * STREAMS, bursts)
        if not size.smoke:
            _measured(bench, contestant, "paced", STREAMS, lambda: paced(side, turn, 0.02))
            contestant.latencies_s += side.latencies_s


def _drain(server: Server, turn: Turn, size: Size) -> None:
    """The same bytes into a socket whose reader throws them away."""
    with EnvoySide(server.ports[0], http2=False) as side:
        for _ in range(size.waves):
            ids = side.begin(STREAMS)
            for message in (*turn.opening, *turn.chunks):
                side.round(ids, message)


def run(size: Size) -> list[Contestant]:
    """All contestants in turn, ``size.rounds`` times, after one round that does not count."""
    turns = {observe: make_turn(size.chunks, observe=observe) for observe in (True, False)}
    with Bench() as bench:
        found = contestants(bench, smoke=size.smoke)
        for each in found:
            if not each.limit:
                with EnvoySide(each.server.ports[0]) as side:
                    burst(side, turns[each.observe], STREAMS, reply=not each.observe)
        time.sleep(_QUIET_S if size.smoke else 2.0)
        for _ in range(size.rounds):
            for each in found:
                _round(bench, each, size, turns)
    return found


def _rows(found: Sequence[Contestant], size: Size) -> list[list[str]]:
    chunks = {
        "burst": size.rounds * size.waves * STREAMS * size.chunks,
        "paced": size.rounds * STREAMS * size.chunks,
    }
    go = next((each for each in found if each.name == "go streamed"), None)
    rows: list[list[str]] = []
    for each in found:
        us = {kind: spent / chunks[kind] * 1e6 for kind, spent in each.cpu_s.items()}
        ratios = {
            kind: f"{spent / go.cpu_s[kind]:.2f}" for kind, spent in each.cpu_s.items() if go is not None
        }
        times = statistics.quantiles(each.latencies_s, n=100) if len(each.latencies_s) > 1 else None
        rows.append(
            [
                each.name,
                f"{chunks['burst'] / each.wall_s['burst']:,.0f}",
                f"{us['burst']:.1f}",
                f"{us['burst'] * size.chunks:,.0f}",
                ratios.get("burst", ""),
                f"{us['paced']:.1f}" if "paced" in us else "",
                ratios.get("paced", ""),
                f"{times[49] * 1e3:.2f} / {times[98] * 1e3:.2f}" if times else "",
            ]
        )
    return rows


HEAD = (
    "server", "chunks/s", "µs CPU/chunk", "µs CPU/turn", "÷ Go", "paced: µs CPU/chunk", "÷ Go",
    "paced: p50 / p99 of an answer, ms",
)  # fmt: skip


def main() -> None:
    """Print the table; write the plot where told."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    size = Size(chunks=20, waves=1, rounds=1, smoke=True) if given.smoke else Size(rounds=given.rounds)
    found = run(size)
    said = (
        f"{STREAMS} streams, {size.chunks} chunks of 200 bytes to a turn, {size.rounds} interleaved rounds."
    )
    publish("bench.transport", f"{said} {load()}", table(HEAD, _rows(found, size)), given.into)
    if given.svg:
        chunks = size.rounds * size.waves * STREAMS * size.chunks
        given.svg.write_text(
            bars(
                "Burst: µs of CPU a chunk",
                [(each.name, each.cpu_s["burst"] / chunks * 1e6) for each in found],
            )
        )


if __name__ == "__main__":
    main()
