"""The sidecar's CPU for a chunk behind a real Envoy: ``python -m bench.paced``.

64 users, each with one turn after the other: a request of 2 KB, then 200 frames of 200 bytes, one each
20 ms. What counts is the time in which all of them are at it. Ours is ``steno extproc`` as a user runs
it, in observability mode (reduce, redact, marshal, spool with fsync, POST to a sink, snapshots of what is
open, and the idle cost of its processes); the Go reference only appends, and answers every message in
STREAMED mode, or none in observability mode. All in the same run, interleaved; CPU is that of the
sidecar's processes alone.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass, field

import uvloop

from bench.paced_traffic import Pace, Sent, Steady, run_users, start_provider
from bench.processes import Bench, Server, build_go
from bench.tables import bars, load, options, publish, table
from bench.turns import sse_frames
from extproc.transport.address import TcpAddress
from tests.e2e.harness.envoy import Envoy, Mode, configuration

_SETTLE_S = 2.0
_DELIVERED_S = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    """``rounds`` of ``pace.turns`` turns for each of ``pace.streams`` users. ``smoke``: one sidecar alone."""

    pace: Pace = field(default_factory=lambda: Pace(streams=64, turns=4, interval_s=0.02))
    chunks: int = 200
    rounds: int = 2
    smoke: bool = False


@dataclass(slots=True)
class Contestant:
    """A sidecar with an Envoy of its own."""

    server: Server
    mode: Mode
    envoy: Envoy
    us_per_chunk: list[float] = field(default_factory=list[float])
    delivered: int = 0

    @property
    def us(self) -> float:
        """All rounds together: each lasts equally long."""
        return statistics.mean(self.us_per_chunk)


async def run(size: Size) -> list[Contestant]:
    """All contestants in turn, ``size.rounds`` times, each warm before it counts."""
    frames = sse_frames(size.chunks)
    frames = [*frames[:-2], frames[-2] + frames[-1]]
    sent = Sent()
    provider = await start_provider(frames, size.pace.interval_s, sent)
    with Bench() as bench:
        found = _contestants(bench, provider.sockets[0].getsockname()[1], smoke=size.smoke)
        try:
            for each in found:
                await each.envoy.start()
                await run_users(each.envoy.port, Pace(size.pace.streams, 1, 0.0002), size.chunks, Steady())
            await asyncio.sleep(_SETTLE_S)
            for _ in range(size.rounds):
                for each in found:
                    await _measure(bench, each, size, sent)
        finally:
            for each in found:
                await each.envoy.stop()
            provider.close()
    return found


def _contestants(bench: Bench, provider: int, *, smoke: bool) -> list[Contestant]:
    bench.sink()
    found: list[Contestant] = []

    def add(server: Server, mode: Mode) -> None:
        directory = bench.directory / f"envoy-{len(found)}"
        directory.mkdir()
        sidecar = [TcpAddress("127.0.0.1", server.ports[0])]
        envoy = Envoy(directory, configuration(mode, provider=provider, sidecar=sidecar))
        found.append(Contestant(server, mode, envoy))

    go = None if smoke else build_go()
    if go is not None:
        add(bench.go(go, "streamed"), Mode.STREAMED)
        add(bench.go(go, "observe"), Mode.OBSERVE)
    add(bench.steno("http2 rested", "--transport=http2"), Mode.OBSERVE)
    if not smoke:
        add(bench.steno("http2 no rest", "--transport=http2", "--rest=0"), Mode.OBSERVE)
        add(bench.steno("grpcio", "--transport=grpcio"), Mode.OBSERVE)
    return found


async def _measure(bench: Bench, contestant: Contestant, size: Size, sent: Sent) -> None:
    """One round; it ends when the last turn was delivered."""
    before, started = bench.turns_delivered(), time.monotonic()
    server, steady = contestant.server, Steady()
    async with asyncio.TaskGroup() as running:
        running.create_task(run_users(contestant.envoy.port, size.pace, size.chunks, steady))
        await steady.begun.wait()
        if steady.ebbing.is_set():
            raise RuntimeError("the first user had all its turns before the last had begun: give them more")
        frames, cpu_s = sent.frames, server.cpu_s()
        await steady.ebbing.wait()
        contestant.us_per_chunk.append((server.cpu_s() - cpu_s) / (sent.frames - frames) * 1e6)
    delivers = not server.name.startswith("go")
    turns, until = size.pace.streams * size.pace.turns, time.monotonic() + _DELIVERED_S
    while delivers and bench.turns_delivered() - before < turns and time.monotonic() < until:  # noqa: ASYNC110 -- no event crosses processes
        await asyncio.sleep(0.5)
    await asyncio.sleep(_SETTLE_S)
    contestant.delivered += bench.turns_delivered() - before
    print(f"{server.name}: {time.monotonic() - started:.1f} s", flush=True)


HEAD = (
    "sidecar",
    "Envoy's mode",
    "µs CPU/chunk",
    "its rounds",
    "÷ Go streamed",
    "÷ Go observing",
    "turns delivered",
)


def _rows(found: list[Contestant]) -> list[list[str]]:
    us = {each.server.name: each.us for each in found}

    def ratio(spent: float, go: str) -> str:
        return f"{spent / us[go]:.2f}" if go in us else ""

    return [
        [
            each.server.name,
            each.mode.value,
            f"{each.us:.1f}",
            " ".join(f"{us:.1f}" for us in each.us_per_chunk),
            ratio(each.us, "go streamed"),
            ratio(each.us, "go observe"),
            "" if each.server.name.startswith("go") else f"{each.delivered:,}",
        ]
        for each in found
    ]


def main() -> None:
    """Print the table; write the plot where told."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    size = (
        Size(Pace(8, 3, 0.02), chunks=20, rounds=1, smoke=True) if given.smoke else Size(rounds=given.rounds)
    )
    found = uvloop.run(run(size))
    pace = size.pace
    said = (
        f"{pace.streams} users, {pace.turns} turns each, {size.chunks} chunks of 200 bytes,"
        f" one each {pace.interval_s * 1e3:g} ms; {size.rounds} interleaved rounds. {load()}"
    )
    publish("bench.paced", said, table(HEAD, _rows(found)), given.into)
    if given.svg:
        values = [(each.server.name, each.us) for each in found]
        given.svg.write_text(bars("Paced behind Envoy: µs of CPU a chunk", values))


if __name__ == "__main__":
    main()
