"""What the filter and the sidecar add to a user's latency, on the real Envoy (T3).

    python -m bench.envoy                # about five minutes
    python -m bench.envoy --into docs/performance.md --plot docs/performance-envoy.svg

In each round every way through Envoy is measured once, the order rotating: without the filter,
without it again (the two give the spread of A/A), with the filter and a sidecar that only
appends, with Steno on each transport and its full pipeline. Percentiles are of all rounds
together. What is *added* is the difference to both runs without the filter taken as one.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.envoy_plot import plot
from bench.envoy_rig import Load, Measured, Rig, Way, load_average

PERCENTS: Final = (50, 99)
TARGETS_US: Final = {50: 100.0, 99: 500.0}
MAX_CORE: Final = 0.30
LOAD: Final = Load()
MARKS: Final = ("<!-- bench.envoy begins -->", "<!-- bench.envoy ends -->")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Result:
    """All phases of one way as one. Times in microseconds."""

    chunk_us: Sequence[float]
    first_us: Sequence[float]
    unanswered: int
    envoy_us_per_chunk: float
    sidecar_us_per_chunk: float
    sidecar_cores: float


def merged(phases: Sequence[Measured]) -> Result:
    """The phases of one way (or of two that are the same) taken as one."""
    chunk_us = [time for phase in phases for time in phase.streams.chunk_us]
    envoy_s, sidecar_s = sum(each.envoy_cpu_s for each in phases), sum(each.sidecar_cpu_s for each in phases)
    chunks = max(1, len(chunk_us))
    return Result(
        chunk_us=chunk_us,
        first_us=[time for phase in phases for time in phase.firsts.first_us],
        unanswered=sum(phase.streams.unanswered + phase.firsts.unanswered for phase in phases),
        envoy_us_per_chunk=envoy_s / chunks * 1e6,
        sidecar_us_per_chunk=sidecar_s / chunks * 1e6,
        sidecar_cores=sidecar_s / sum(each.wall_s for each in phases),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The result of each way, and of both without the filter as one."""

    results: Mapping[Way, Result]
    plain: Result

    def added_us(self, way: Way, percent: float, of: Callable[[Result], Sequence[float]]) -> float:
        """What a way adds at a percentile."""
        return percentile(of(self.results[way]), percent) - percentile(of(self.plain), percent)

    def spread_us(self, percent: float, of: Callable[[Result], Sequence[float]]) -> float:
        """How far two runs of the same lie apart."""
        one, other = (percentile(of(self.results[way]), percent) for way in (Way.NONE, Way.AGAIN))
        return abs(one - other)

    def table(self) -> str:
        """All ways, as Markdown."""
        head = (
            "|  | chunk p50 | p99 | added p50 | p99 | first byte p50 | p99 | added p50 | p99 "
            "| Envoy CPU/chunk | sidecar CPU/chunk | sidecar, of a core |\n"
            "| --- " + "| ---: " * 11 + "|"
        )
        return "\n".join([head, *(self._row(way) for way in self.results)])

    def _row(self, way: Way) -> str:
        found = self.results[way]
        times = [
            cell
            for of in (chunks_of, firsts_of)
            for cell in (
                *(f"{percentile(of(found), percent):.0f}" for percent in PERCENTS),
                *(f"{self.added_us(way, percent, of):+.0f}" for percent in PERCENTS),
            )
        ]
        sidecar = [f"{found.sidecar_us_per_chunk:.1f}", f"{found.sidecar_cores:.0%}"]
        if not found.sidecar_cores:
            sidecar = ["", ""]
        return f"| {' | '.join([way.value, *times, f'{found.envoy_us_per_chunk:.1f}', *sidecar])} |"

    def verdicts(self) -> str:
        """The criteria of T3, one line each: what was added, what is allowed, whether it holds."""
        return "\n".join(
            line for way in (Way.GRPCIO, Way.HTTP2) if way in self.results for line in self._verdicts(way)
        )

    def _verdicts(self, way: Way) -> Sequence[str]:
        lines: list[str] = []
        for name, of in (("chunk", chunks_of), ("first byte", firsts_of)):
            for percent in PERCENTS:
                added, spread = self.added_us(way, percent, of), self.spread_us(percent, of)
                envoys = f", with a bare sidecar {self.added_us(Way.BARE, percent, of):+.0f}"
                lines.append(
                    f"- {way.value}: {name} p{percent} {added:+.0f} µs{envoys}; allowed "
                    f"{TARGETS_US[percent]:.0f} + {spread:.0f} (A/A): "
                    f"{verdict(added, TARGETS_US[percent], spread)}"
                )
        cores = self.results[way].sidecar_cores
        holds = "holds" if cores <= MAX_CORE else "DOES NOT HOLD"
        lines.append(f"- {way.value}: {cores:.0%} of a core; allowed {MAX_CORE:.0%}: {holds}")
        return lines


def verdict(added: float, target: float, spread: float) -> str:
    """Whether a criterion holds; a run whose two equals lie further apart than the target cannot tell."""
    if spread > target:
        return "this run cannot tell, A/A alone is more than the target"
    return "holds" if added <= target + spread else "DOES NOT HOLD"


def chunks_of(result: Result) -> Sequence[float]:
    """Each chunk's time from the provider to the client."""
    return result.chunk_us


def firsts_of(result: Result) -> Sequence[float]:
    """Each turn's time from the request to the first byte of its answer."""
    return result.first_us


def run(rounds: int, load: Load) -> Report:
    """Measure every way so many times, in an order that rotates."""
    ways = list(Way)
    phases: dict[Way, list[Measured]] = {way: [] for way in ways}
    with Rig(ways) as rig:
        for way in ways:  # open Envoy's connections, load the code
            rig.measure(way, Load(streams=8, chunks=5, connections=load.connections, seconds=0.2))
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                phases[way].append(rig.measure(way, load))
    results = {way: merged(found) for way, found in phases.items()}
    return Report(results, merged([*phases[Way.NONE], *phases[Way.AGAIN]]))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=LOAD.streams)
    parser.add_argument("--chunks", type=int, default=LOAD.chunks, help="of each stream, one each 20 ms")
    parser.add_argument("--seconds", type=float, default=LOAD.seconds, help="of short turns, 100 a second")
    parser.add_argument("--plot", type=Path, help="write the distributions there, as SVG")
    parser.add_argument("--into", type=Path, help="put the report between its two marks in that page")
    wanted = parser.parse_args()
    load = Load(streams=wanted.streams, chunks=wanted.chunks, seconds=wanted.seconds)
    before = load_average()
    report = run(wanted.rounds, load)
    text = _text(report, wanted.rounds, load, (before, load_average()))
    print(text)
    if wanted.plot:
        wanted.plot.write_text(plot({way.value: chunks_of(each) for way, each in report.results.items()}))
    if wanted.into:
        wanted.into.write_text(inserted(wanted.into.read_text(), text))


def _text(report: Report, rounds: int, load: Load, averages: tuple[str, str]) -> str:
    chunks, firsts = (len(of(report.plain)) // 2 for of in (chunks_of, firsts_of))
    return (
        f"{load.streams} streams at once, {rounds} rounds: {chunks} chunks and {firsts} first bytes a way; "
        f"load average {averages[0]} before and {averages[1]} after. Times in µs.\n\n"
        f"{report.table()}\n\n{report.verdicts()}\n"
        f"- turns without an end: {sum(each.unanswered for each in report.results.values())}\n"
    )


def inserted(page: str, text: str) -> str:
    """The page with a new report in place of the old one. Raises ``ValueError`` where a mark is missing."""
    begin, end = (page.index(mark) for mark in MARKS)
    return f"{page[: begin + len(MARKS[0])]}\n\n{text}\n{page[end:]}"


if __name__ == "__main__":
    _main()
