"""A process that keeps turns is killed at random moments; everything it said was kept is there.

The short form runs in CI. The full one: ``STENO_KILLS=200 pytest tests/chaos/test_spool_kills.py``.
(kill -9 does not test fsync; the power cuts of ``tests/property/test_spool_machine.py`` do.)
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest_client.ledger import Ledger
from ingest_client.spool import Spool, SpoolSettings
from tests.paths import PROJECT

KILLS = int(os.environ.get("STENO_KILLS", "10"))
SETTINGS = SpoolSettings(wal_soft_bytes=1 << 18, quota_age_s=0)

CHILD = """
import asyncio, os, sys, time
from pathlib import Path
from ingest_client.sink import Kept, Record
from ingest_client.spool import Spool, SpoolSettings

async def main():
    spool = await Spool.open(Path(sys.argv[1]), SpoolSettings(wal_soft_bytes=1 << 18, quota_age_s=0))
    print("up", flush=True)

    async def caller(which):
        number = 0
        while True:
            number += 1
            name = f"{sys.argv[2]}-{which}-{number}"
            spool.ledger.observe()
            body = os.urandom(3000)
            kept = await spool.keep(
                Record(turn_id=name, tenant="a", body=body, created_at_ns=time.time_ns())
            )
            assert isinstance(kept, Kept), kept
            print("kept", name, flush=True)

    async def deliver():
        while True:
            await spool.wait_for_work()
            for turn in await spool.claim(5, 1 << 30, time.time_ns(), per_tenant=5):
                if turn.seq % 3 == 0:
                    print("sent", turn.turn_id, flush=True)
                    await spool.acknowledge([turn.seq])
                    print("done", turn.turn_id, flush=True)

    await asyncio.gather(*(caller(which) for which in range(8)), deliver())

asyncio.run(main())
"""


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_what_was_kept_survives_every_kill_and_what_was_delivered_does_not_come_back(
    tmp_path: Path,
) -> None:
    """And the balance closes over all the generations."""
    root = tmp_path / "spool"
    root.mkdir()
    kept: set[str] = set()
    sent: set[str] = set()
    done: set[str] = set()
    chooser = random.Random(7)
    for kill in range(KILLS):
        output = await asyncio.to_thread(_run_and_kill, root, kill, chooser.uniform(0.05, 0.6))
        for line in output.splitlines():
            word, _, name = line.partition(" ")
            {"kept": kept, "sent": sent, "done": done}[word].add(name)
    spool = await Spool.open(root, SETTINGS, ledger=(ledger := Ledger()))
    found = {each.turn_id for each in await spool.claim(10**6, 1 << 40, 2**62, per_tenant=10**6)}
    assert len(kept) > KILLS
    assert kept - sent <= found
    assert not found & done
    assert ledger.imbalance == 0
    assert ledger.open == 0
    assert ledger.spooled == len(found)
    assert len(done) <= ledger.delivered <= len(sent)
    await spool.close(30)


def _run_and_kill(root: Path, number: int, seconds: float) -> str:
    """Kill it so many seconds after it has kept its first turn; what it said. To a file: a pipe would lose
    what was read ahead with its first lines, and hold it up while nobody reads.
    """
    said = root.with_name(f"said-{number}")
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root), str(number)], stdout=output, cwd=PROJECT
        )
    while b"\nkept" not in said.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    first, *lines = said.read_text().rpartition("\n")[0].splitlines()  # the last line may be half of one
    assert first == "up"
    return "\n".join(lines)
