"""T11 of RELIABILITY.md for content codings: a bomb costs at most 128 MiB and 2 s of CPU.

Each bomb is a small body; it is decoded in a process of its own that measures itself.
The time is asserted with room for a busy machine, and reported (``pytest -rP``).
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest
import zstandard

from capture.coding import MAX_DECODED_BYTES
from capture.coding.layer import MAX_MEMBERS
from tests.paths import PROJECT, needs
from tests.unit.capture.coders import ENCODERS, encode
from tests.unit.capture.decode_measured import STATUS

MAX_RSS_MIB: Final = 128
MAX_CPU_S: Final = 2
BUSY_FACTOR: Final = 4

Bomb = tuple[str, str, Callable[[], bytes]]
"""Content coding, how it ends, and how to build it."""

OVER: Final = 2 * MAX_DECODED_BYTES


def over(encoding: str) -> Bomb:
    """Zeros, twice as many as the limit, under one or more codings."""
    return encoding, "oversize", lambda: encode(encoding, bytes(OVER))


def wide_zstd(data: bytes, window_log: int = 25) -> bytes:
    """One frame with a window of 32 MiB that does not say how long its text is."""
    wide = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=0)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    return stream.compress(data) + stream.flush()


def stored_blocks(window_log: int, blocks: int) -> bytes:
    """A frame of uncompressed zero blocks: large itself, for an outer layer to hide."""
    block = (128 * 1024 << 3).to_bytes(3, "little") + bytes(128 * 1024)
    return b"\x28\xb5\x2f\xfd\x00" + bytes(((window_log - 10) << 3,)) + block * blocks + b"\x01\x00\x00"


BOMBS: Final[dict[str, Bomb]] = {
    **{encoding: over(encoding) for encoding in (*ENCODERS, "gzip, gzip", "br, br", "gzip, zstd")},
    "wide zstd": ("zstd", "oversize", lambda: wide_zstd(bytes(OVER))),
    "wide zstd at the limit": ("zstd", "decoded", lambda: wide_zstd(bytes(MAX_DECODED_BYTES))),
    "br at the limit": ("br", "decoded", lambda: encode("br", bytes(MAX_DECODED_BYTES))),
    "wide zstd twice": ("zstd, zstd", "decoded", lambda: wide_zstd(stored_blocks(24, 380), window_log=24)),
    "empty gzip members": ("gzip", "oversize", lambda: gzip.compress(b"") * (MAX_MEMBERS + 1)),
    "empty zstd frames": ("zstd", "oversize", lambda: encode("zstd", b"") * (MAX_MEMBERS + 1)),
    "empty zstd blocks": (
        "zstd",
        "decoded",
        lambda: stored_blocks(17, 0)[:-3] + bytes(3) * 10**6 + b"\x01\0\0",
    ),
}


@needs(STATUS.exists(), "/proc/self/status is absent: peak memory cannot be measured")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_small(name: str) -> None:
    encoding, outcome, build = BOMBS[name]
    child = subprocess.run(
        [sys.executable, "-m", "tests.unit.capture.decode_measured", encoding],
        input=build(),
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        timeout=60,
        check=True,
    )
    report = json.loads(child.stdout)
    sys.stdout.write(f"{name}: {report}\n")
    assert report["outcome"] == outcome
    assert report["rss_mib"] <= MAX_RSS_MIB
    assert report["cpu_s"] <= MAX_CPU_S * BUSY_FACTOR
