"""Reduce one bomb of ``tests.chaos.reduction_bombs`` and say what it cost, as JSON on stdout.

    python -m tests.chaos.reduce_measured 'events: anthropic' 5000000

``rss_mib`` is the growth of the peak resident set over the state before the first byte
was fed, ``cpu_s`` the CPU time of reduction alone.
"""

import json
import sys
import time

from capture.canonical import ViewFacts, view
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Ending, Turn
from tests.chaos.reduction_bombs import BOMBS
from tests.unit.capture.decode_measured import peak_rss_mib


def main() -> None:
    """Reduce, measure, report."""
    bomb, count = BOMBS[sys.argv[1]], int(sys.argv[2])
    reduce_one(sys.argv[1], 10)  # what every reduction needs once
    rss_mib = peak_rss_mib()
    reducer = ResponseReducer(bomb.dialect, RequestFacts(), ResponseFacts(content_type=bomb.content_type))
    cpu_s = 0.0
    for piece in bomb.pieces(count):
        started = time.process_time()
        reducer.feed(piece)
        cpu_s += time.process_time() - started
    started = time.process_time()
    turn = reducer.finish(Ending.COMPLETE)
    cpu_s += time.process_time() - started
    report: dict[str, object] = {
        "outcome": type(turn).__name__,
        "rss_mib": round(peak_rss_mib() - rss_mib, 1),
        "cpu_s": round(cpu_s, 3),
    }
    if isinstance(turn, Turn):
        report["characters"] = len(turn.choices[0].text)
        report["arguments"] = [len(json.dumps(call.arguments)) for call in turn.choices[0].tool_calls][:2]
        report["shown"] = len(json.dumps(view(turn, ViewFacts(provider="p", endpoint="e", stream=True)))) > 0
    sys.stdout.write(json.dumps(report))


def reduce_one(name: str, count: int) -> None:
    """Reduce a small one of the same kind."""
    bomb = BOMBS[name]
    reducer = ResponseReducer(bomb.dialect, RequestFacts(), ResponseFacts(content_type=bomb.content_type))
    for piece in bomb.pieces(count):
        reducer.feed(piece)
    reducer.finish(Ending.COMPLETE)


if __name__ == "__main__":
    main()
