"""The deriver gives way: while turns come it takes few at a time, and rests between them."""

import time
from pathlib import Path

import pytest

from ingest import deriver
from ingest.deriver import Deriver, derive_all
from ingest.store import derived
from tests.unit.ingest.running import Client, service, turn

SMALL = 32
TURNS = SMALL + 8


async def backlog(client: Client) -> int:
    """How many turns wait."""
    return (await client.service.store.read(derived.backlog))[0]


async def post(client: Client, count: int) -> None:
    """Store turns that nobody derives."""
    turns = [turn(f"question {number}") for number in range(count)]
    assert (await client.post("/v1/ingest/batch", json={"turns": turns})).status_code == 202


def deriver_of(client: Client) -> Deriver:
    """A deriver of its own for a service that derives nothing: it has not heard of what is stored."""
    return Deriver(client.service.store, client.service.metrics, lambda _: None)


async def test_while_turns_come_a_batch_is_small(tmp_path: Path) -> None:
    async with service(tmp_path, derive=False) as client:
        await post(client, TURNS)
        one = deriver_of(client)
        one.wake()
        assert await one.step()
        assert await backlog(client) == TURNS - SMALL


async def test_a_backlog_that_nobody_adds_to_is_derived_in_large_batches(tmp_path: Path) -> None:
    async with service(tmp_path, derive=False) as client:
        await post(client, TURNS)
        assert await deriver_of(client).step()
        assert await backlog(client) == 0


@pytest.mark.parametrize("gently", [True, False])
async def test_each_turn_is_followed_by_a_rest_as_long_as_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gently: bool
) -> None:
    """Otherwise a batch holds up every answer meanwhile: p99 was 80 to 160 ms at 400 turns a second."""
    async with service(tmp_path, derive=False) as client:
        await post(client, 3)
        batch = await client.service.store.read(lambda connection: derived.pending(connection, 3))
    times = iter((0.0, 0.002, 10.0, 10.004, 20.0, 29.0))
    rests: list[float] = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(time, "sleep", rests.append)
    results, failures, _ = derive_all(batch, gently=gently)
    monkeypatch.undo()
    assert (len(results), failures) == (3, [])
    longest = 0.05
    assert rests == (pytest.approx([0.002, 0.004, longest]) if gently else [])


async def test_while_turns_come_they_share_what_a_batch_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather_s = 0.2
    monkeypatch.setattr(deriver, "_GATHER_S", gather_s)
    async with service(tmp_path, derive=False) as client:
        await post(client, 2)
        one = deriver_of(client)
        one.wake()
        began = time.monotonic()
        assert await one.step()
        assert time.monotonic() - began >= gather_s


async def test_a_lone_turn_waits_for_no_company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary asks for its nodes at once."""
    monkeypatch.setattr(deriver, "_GATHER_S", 30.0)
    async with service(tmp_path) as client:
        await client.turn(turn())
        assert await client.service.deriver.settled(20.0)
        assert await backlog(client) == 0
