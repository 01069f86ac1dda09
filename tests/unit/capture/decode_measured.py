"""Decode the body on standard input and say what it cost: one JSON object on standard output.

    python -m tests.unit.capture.decode_measured 'gzip, zstd' < body

``rss_mib`` is the growth of the peak resident set over the state before the first byte
was fed (of this process image: ``ru_maxrss`` would still count the parent's memory),
``cpu_s`` the CPU time, ``outcome`` the reason of the refusal or ``decoded``.
"""

import json
import re
import sys
import time
from pathlib import Path

from capture.coding import CodingError, decoder

CHUNK_BYTES = 16 * 1024
STATUS = Path("/proc/self/status")


def peak_rss_mib() -> float:
    """The high-water mark of resident memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) / 1024


def decode(encoding: str, body: bytes) -> str:
    """Decode as the reducer does: in batches, keeping none of the text."""
    content = decoder(encoding)
    try:
        for start in range(0, len(body), CHUNK_BYTES):
            content.feed(body[start : start + CHUNK_BYTES])
        content.finish()
    except CodingError as error:
        return error.reason
    return "decoded"


def main() -> None:
    """Decode, measure, report."""
    body = sys.stdin.buffer.read()
    rss_mib, cpu_s = peak_rss_mib(), time.process_time()
    outcome = decode(sys.argv[1], body)
    report = {
        "outcome": outcome,
        "rss_mib": round(peak_rss_mib() - rss_mib, 1),
        "cpu_s": round(time.process_time() - cpu_s, 3),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
