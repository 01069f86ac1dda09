"""What reduction costs: CPU per event and per MB of every dialect, beside the official SDK.

    python -m bench.reduce [--events 5000] [--growth] [--json] [NAME…]

The SDKs only decode, which is less than reduction does; those that are not installed are
named and left out (``pip install anthropic openai mistralai google-genai cohere ollama botocore``).
``--growth`` shows the cost per MB from 1 KB to 20 MB instead: linear is the same everywhere.

CPU time of this process, the best of a few runs, bodies fed in pieces of 4 KiB.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, cast

from bench.sdks import AbsentError, Decode, decoder
from bench.streams import STREAMS, Stream
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Ending, Turn

_CHUNK_BYTES: Final = 4096
_RUNS: Final = 3
_MB: Final = 1_000_000
_GROWTH_BYTES: Final = (1_000, 10_000, 100_000, _MB, 5 * _MB, 20 * _MB)


@dataclass(frozen=True, slots=True)
class Cost:
    """One stream's reduction; ``sdk_us_per_event`` is None where no SDK was measured."""

    name: str
    events: int
    bytes: int
    us_per_event: float
    ms_per_mb: float
    sdk: str
    sdk_us_per_event: float | None

    @property
    def times(self) -> str:
        """How many times the SDK's cost is ours."""
        return "" if self.sdk_us_per_event is None else f"{self.sdk_us_per_event / self.us_per_event:.0f}x"


def reduce(stream: Stream, body: bytes) -> Turn:
    """Reduce the body as a live one would be."""
    reducer = ResponseReducer(stream.dialect, RequestFacts(), ResponseFacts(content_type=stream.content_type))
    for start in range(0, len(body), _CHUNK_BYTES):
        reducer.feed(body[start : start + _CHUNK_BYTES])
    turn = reducer.finish(Ending.COMPLETE)
    if not isinstance(turn, Turn) or turn.diagnostics or turn.partial:
        raise SystemExit(f"{stream.name}: the benchmark's own stream does not reduce: {turn}")
    return turn


def cpu_s(run: Callable[[], object], runs: int = _RUNS) -> float:
    """The best CPU time of a few runs, in seconds."""

    def once() -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    return min(once() for _ in range(runs))


def cost(stream: Stream, events: int) -> Cost:
    """Measure one stream of ``events`` words, ours and the SDK's in turns."""
    body = stream.make(events)
    ours = cpu_s(lambda: reduce(stream, body))
    package, theirs = _sdk_cost(stream, body, events)
    return Cost(
        name=stream.name,
        events=events,
        bytes=len(body),
        us_per_event=ours / events * 1e6,
        ms_per_mb=ours / len(body) * _MB * 1e3,
        sdk=package,
        sdk_us_per_event=None if theirs is None else theirs / events * 1e6,
    )


def _sdk_cost(stream: Stream, body: bytes, events: int) -> tuple[str, float | None]:
    try:
        found = decoder(stream.name)
    except AbsentError as absent:
        print(f"{stream.name}: {absent}", file=sys.stderr)
        return "", None
    if found is None:
        return "", None
    package, decode = found
    _check(package, decode, body, stream, events)
    return package, cpu_s(lambda: decode(body, stream.content_type))


def _check(package: str, decode: Decode, body: bytes, stream: Stream, events: int) -> None:
    """Warm the SDK up, and refuse to compare with one that did not read the stream."""
    seen = decode(body, stream.content_type)
    if seen < events:
        raise SystemExit(f"{package} read {seen} of {events} events of {stream.name}")


def growth(stream: Stream) -> dict[int, float]:
    """Milliseconds per MB for each size of body, in bytes."""
    found: dict[int, float] = {}
    for size in _GROWTH_BYTES:
        body = stream.make(_events_of(stream, size))
        repeats = max(1, 200_000 // len(body))

        def run(body: bytes = body, repeats: int = repeats) -> None:
            for _ in range(repeats):
                reduce(stream, body)

        found[size] = cpu_s(run) / repeats / len(body) * _MB * 1e3
    return found


def _events_of(stream: Stream, size: int) -> int:
    """How many events make a body of about this size."""
    empty, some = len(stream.make(0)), len(stream.make(1000))
    return max(1, (size - empty) * 1000 // (some - empty))


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def _costs(streams: Sequence[Stream], events: int, *, as_json: bool) -> str:
    costs = [cost(stream, events) for stream in streams]
    if as_json:
        return json.dumps([asdict(each) for each in costs], indent=2)
    rows = [("stream", "bytes/event", "µs/event", "ms/MB", "SDK", "SDK µs/event", "SDK ÷ Steno")]
    rows.extend(
        (
            each.name,
            f"{each.bytes / each.events:.0f}",
            f"{each.us_per_event:.2f}",
            f"{each.ms_per_mb:.1f}",
            each.sdk,
            "" if each.sdk_us_per_event is None else f"{each.sdk_us_per_event:.0f}",
            each.times,
        )
        for each in costs
    )
    return _table(rows)


def _growths(streams: Sequence[Stream], *, as_json: bool) -> str:
    grown = {stream.name: growth(stream) for stream in streams}
    if as_json:
        return json.dumps(grown, indent=2)
    rows = [("ms per MB at", *(f"{size // 1000} KB" for size in _GROWTH_BYTES))]
    rows.extend((name, *(f"{found[size]:.1f}" for size in _GROWTH_BYTES)) for name, found in grown.items())
    return _table(rows)


def main() -> None:
    """Measure, and print a table (or JSON)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="measure only these streams")
    parser.add_argument("--events", type=int, default=5000, help="text events in each stream")
    parser.add_argument("--growth", action="store_true", help="cost per MB from 1 KB to 20 MB")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    wanted = cast("list[str]", given.names)
    unknown = set(wanted) - {stream.name for stream in STREAMS}
    if unknown:
        parser.error(
            f"no such stream: {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in STREAMS)}"
        )
    streams = [stream for stream in STREAMS if not wanted or stream.name in wanted]
    if cast("bool", given.growth):
        print(_growths(streams, as_json=cast("bool", given.json)))
    else:
        print(_costs(streams, cast("int", given.events), as_json=cast("bool", given.json)))


if __name__ == "__main__":
    main()
