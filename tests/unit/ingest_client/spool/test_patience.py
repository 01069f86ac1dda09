"""Jobs that wait for company: with whom they go, when, and that nothing waits at the end."""

import asyncio
from pathlib import Path

import pytest

from ingest_client.spool import Spool, SpoolSettings
from ingest_client.spool.jobs import Job
from ingest_client.spool.patience import MANY, Patience
from tests.unit.ingest_client.spool.parts import START, Clock, turn

LARGE = 1 << 30
FOR_EVER_S = 86_400.0
"""Patience ends on a grid of the loop's clock: one of a minute would end in the midst of one test in hundreds."""


def _nothing(_: object) -> None:
    return None


def job() -> Job:
    return Job(run=_nothing, writes=True, done=_nothing)


def test_jobs_wait_in_order_until_it_is_over() -> None:
    gone: list[Job] = []
    patience, first, second = Patience(gone.append, none=False), job(), job()
    patience.wait(first, 1)
    patience.wait(second, 1)
    assert gone == []
    patience.over()
    patience.over()
    assert gone == [first, second]


@pytest.mark.parametrize("items", [1, MANY // 2, MANY])
def test_many_items_need_no_company(items: int) -> None:
    gone: list[Job] = []
    patience = Patience(gone.append, none=False)
    for _ in range(MANY // items - 1):
        patience.wait(job(), items)
    assert gone == []
    patience.wait(job(), items)
    assert len(gone) == MANY // items


@pytest.mark.parametrize("ends", [False, True])
def test_where_there_is_no_patience_nothing_waits(ends: bool) -> None:
    gone: list[Job] = []
    patience = Patience(gone.append, none=not ends)
    if ends:
        patience.wait(job(), 1)
        patience.end()
    patience.wait(job(), 1)
    assert len(gone) == 1 + ends


async def open_spool(root: Path, patience_s: float) -> Spool:
    """With one turn, claimed."""
    settings = SpoolSettings(patience_s=patience_s, reserve_bytes=0)
    spool = await Spool.open(root, settings, clock=Clock())
    spool.ledger.observe()
    await spool.keep(turn("first"))
    (claimed,) = await spool.claim(1, LARGE, START, per_tenant=1)
    assert claimed.seq == 1
    return spool


async def test_an_acknowledgement_goes_with_the_next_turn(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path, patience_s=FOR_EVER_S)
    acknowledged = asyncio.ensure_future(spool.acknowledge([1]))
    await asyncio.sleep(0.1)
    assert not acknowledged.done()
    spool.ledger.observe()
    commits = spool.condition.commits
    await spool.keep(turn("second"))
    await acknowledged
    assert spool.condition.commits == commits + 1
    assert (spool.ledger.delivered, spool.ledger.spooled) == (1, 1)
    await spool.close(60)


async def test_without_a_turn_it_goes_after_a_while(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path, patience_s=0.1)
    async with asyncio.timeout(30):
        await spool.acknowledge([1])
    assert spool.ledger.delivered == 1
    await spool.close(60)


async def test_a_stop_waits_for_no_company(tmp_path: Path) -> None:
    spool = await open_spool(tmp_path, patience_s=FOR_EVER_S)
    acknowledged = asyncio.ensure_future(spool.acknowledge([1]))
    await asyncio.sleep(0)
    spool.hurry()
    async with asyncio.timeout(30):
        await acknowledged
        await spool.forget("nobody")
    await spool.close(60)
