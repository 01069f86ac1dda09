"""Threads that decode their first envelopes at the same time: a new process each, because only the first counts."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 6
FIRST = """
import random, sys, threading, time
sys.setswitchinterval(1e-6)
from ingest.access import OPEN
from ingest.intake import Posted, prepare, stamp
BODY = b'''{"provider": "anthropic", "request": {"messages": [{"role": "user", "content": "x"}]},
"response": {"message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
"usage": {"prompt_tokens": 1}}, "meta": {"request_id": "x"}, "session": {"harness_id": "x"}}'''
ready = threading.Barrier(8)
def first():
    ready.wait()
    time.sleep(random.random() * 0.002)
    prepare(Posted(body=BODY), OPEN, "", stamp())
threads = [threading.Thread(target=first) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_the_first_envelopes_may_come_at_once() -> None:
    """msgspec readies a type at its first use, and crashes where two threads do so: it must happen before."""
    processes = [subprocess.Popen([sys.executable, "-c", FIRST], cwd=ROOT) for _ in range(PROCESSES)]
    assert [process.wait(60) for process in processes] == [0] * PROCESSES
