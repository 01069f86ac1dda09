"""A worker that keeps nothing on disk says in its last ledger what it takes along."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from capture.outcomes import Outcome
from extproc.generation import last_metrics_file
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept
from tests.unit.extproc.test_durable import worker_in
from tests.unit.ingest_client.spool.parts import turn


async def test_a_stop_counts_what_was_in_memory_alone_as_lost_in_the_last_ledger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``memory_only`` and an ingest that refuses: no turn is forgotten, none is called spooled for ever."""
    worker = worker_in(tmp_path, memory_only=True)
    await worker.start()
    assert worker._spool is not None
    for number in range(3):
        worker._ledger.observe()
        assert await worker._spool.keep(turn(str(number))) == Kept()
    worker._ledger.observe()
    assert (worker._ledger.open, worker._ledger.spooled) == (1, 3)
    stopping = asyncio.Event()
    stopping.set()
    await asyncio.wait_for(worker.run(stopping, asyncio.Event()), 60)
    assert worker._ledger == Ledger(observed=4, ended=Counter({Outcome.VOLUME_DISCARDED: 4}))
    (line,) = [each for each in caplog.records if "memory" in each.message]
    assert (line.levelname, vars(line)["volume_discarded"], vars(line)["ledger"]["imbalance"]) == (
        "ERROR",
        4,
        0,
    )
    worker.leave_metrics()
    page = last_metrics_file(worker.admin_socket).read_text()
    assert 'steno_exchanges{state="spooled"} 0.0' in page
    assert 'steno_exchanges{state="lost"} 4.0' in page
    assert 'steno_exchange_outcomes{outcome="volume_discarded",state="lost"} 4.0' in page
