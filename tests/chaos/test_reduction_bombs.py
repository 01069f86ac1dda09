"""T11 of RELIABILITY.md for dialects: answers made to be expensive stay small.

Each is reduced in a process of its own that measures itself. Memory is asserted; CPU
time is reported (``pytest -rP``) and asserted with room for a busy machine, so that
what grows faster than its input is caught.
"""

import json
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.chaos.reduction_bombs import DEPTHS, EVENTS, FRAGMENTS
from tests.paths import PROJECT, needs
from tests.unit.capture.decode_measured import STATUS

pytestmark = [
    needs(STATUS.exists(), "/proc/self/status is absent: peak memory cannot be measured"),
    pytest.mark.timeout(600),  # what is promised is CPU time; a busy machine gives little of it
]

MAX_RSS_MIB: Final = 128
MAX_CPU_S: Final = 2
BUSY_FACTOR: Final = 8

FIVE_MILLION: Final = 5_000_000
MILLION: Final = 1_000_000
DEPTH: Final = 100_000

# The dialects that most traffic speaks meet all five million; the others a tenth, for time.
FULL: Final = {"events: anthropic", "events: openai chat", "events: ollama chat"}


def measured(name: str, count: int) -> dict[str, Any]:
    """What the reduction of this bomb cost."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.chaos.reduce_measured", name, str(count)],
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        timeout=560,
        check=True,
    )
    report: dict[str, Any] = json.loads(child.stdout)
    sys.stdout.write(f"{name} x {count}: {report}\n")
    return report


@pytest.mark.parametrize("name", EVENTS)
def test_memory_follows_the_text_and_not_the_events(name: str) -> None:
    count = FIVE_MILLION if name in FULL else FIVE_MILLION // 10
    report = measured(name, count)
    assert report["outcome"] == "Turn"
    assert report["characters"] == len(" word0") * (count + 1)
    assert report["rss_mib"] <= MAX_RSS_MIB


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_million_tool_fragments_are_one_call(name: str) -> None:
    report = measured(name, MILLION)
    assert report["outcome"] == "Turn"
    assert report["arguments"] == [len(json.dumps({"a": "abcd" * (MILLION + 1)}))]
    assert report["rss_mib"] <= MAX_RSS_MIB
    assert report["cpu_s"] <= MAX_CPU_S * BUSY_FACTOR


@pytest.mark.parametrize("name", DEPTHS)
def test_json_of_any_depth_is_survived(name: str) -> None:
    """Deeper than any decoder goes: the event, the document or the arguments are damage."""
    report = measured(name, DEPTH)
    assert report["outcome"] in {"Turn", "Refused"}
    assert report["rss_mib"] <= MAX_RSS_MIB
    assert report["cpu_s"] <= MAX_CPU_S


def test_calls_cost_what_they_hold() -> None:
    """A hundred thousand whole calls are a hundred thousand results: all are there."""
    report = measured("calls: ollama chat", MILLION // 10)
    assert report["outcome"] == "Turn"
    assert report["rss_mib"] <= MAX_RSS_MIB
