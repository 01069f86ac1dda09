"""POST /v1/ingest: what is stored, what is refused, and what a repeated id means."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from ingest.store.connection import UnavailableError
from tests.unit.ingest.running import Client, service, turn


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def test_a_turn_is_in_the_database_when_202_is_answered(client: Client) -> None:
    answer = await client.turn(turn(agent_name="a"))
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert await client.rows("SELECT id, agent_name, tenant, state FROM turns") == [
        (answer.headers["steno-turn-id"], "a", "default", "accepted")
    ]


async def test_the_same_id_and_body_is_a_duplicate(client: Client) -> None:
    first = await client.turn(turn(meta={"request_id": "r"}))
    again = await client.turn(turn(meta={"request_id": "r"}))
    assert again.status_code == 202
    assert again.headers["steno-duplicate"] == "true"
    assert again.headers["steno-turn-id"] == first.headers["steno-turn-id"]
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_a_compressed_repetition_is_a_duplicate_too(client: Client) -> None:
    body = json.dumps(turn(meta={"request_id": "r"})).encode()
    await client.turn(body)
    assert (await client.turn(gzip.compress(body), content_encoding="gzip")).headers["steno-duplicate"]
    assert (await client.turn(zlib.compress(body), content_encoding="deflate")).headers["steno-duplicate"]


async def test_a_client_that_repeats_its_request_id_loses_nothing(client: Client) -> None:
    """Defect 3 of the reference: the second exchange under one x-request-id vanished."""
    await client.turn(turn("one", meta={"request_id": "r"}))
    second = await client.turn(turn("two", meta={"request_id": "r"}))
    assert second.status_code == 202
    assert second.headers["steno-request-id-reused"] == "true"
    assert await client.rows("SELECT reused FROM turns ORDER BY seq") == [(0,), (1,)]
    again = await client.turn(turn("two", meta={"request_id": "r"}))
    assert again.headers["steno-turn-id"] == second.headers["steno-turn-id"]
    assert await client.rows("SELECT count(*) FROM turns") == [(2,)]


async def test_a_key_in_the_header_is_one_turn_only(client: Client) -> None:
    first = await client.turn(turn("one"), idempotency_key="k")
    other = await client.turn(turn("two"), idempotency_key="k")
    assert (first.status_code, other.status_code) == (202, 422)
    assert "used before with another body" in other.json()["error"]
    assert other.json()["action"].startswith("send it under another key"), "this one is refused for ever"
    assert await client.rows("SELECT state FROM turns ORDER BY seq") == [("accepted",), ("rejected",)]
    assert (await client.turn(turn("one"), idempotency_key="k")).headers["steno-duplicate"] == "true"


async def test_a_422_never_burns_an_id(client: Client) -> None:
    """Defect 3 of the reference: a corrected retry was answered 202 and lost."""
    wrong = await client.turn(turn(provider="nobody", meta={"request_id": "r"}))
    corrected = await client.turn(turn(meta={"request_id": "r"}))
    assert (wrong.status_code, corrected.status_code) == (422, 202)
    assert "steno-duplicate" not in corrected.headers
    rows = await client.rows("SELECT state, provider FROM turns ORDER BY seq")
    assert rows == [("rejected", "nobody"), ("accepted", "anthropic")]


async def test_a_422_repeated_is_kept_once(client: Client) -> None:
    for _ in range(3):
        assert (await client.turn(turn(provider="nobody", meta={"request_id": "r"}))).status_code == 422
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_one_id_in_two_tenants_is_two_turns(client: Client) -> None:
    for tenant in ("a", "b"):
        answer = await client.turn(turn(meta={"request_id": "r", "tenant": tenant}))
        assert "steno-duplicate" not in answer.headers
    assert await client.rows("SELECT tenant FROM turns ORDER BY seq") == [("a",), ("b",)]


@pytest.mark.parametrize("tenant", ["", "../x", "a b", "x" * 129, "a\n", "ü"])
async def test_a_tenant_name_is_a_plain_word(client: Client, tenant: str) -> None:
    """An empty name is no name: the default."""
    answer = await client.turn(turn(meta={"tenant": tenant}))
    assert answer.status_code == (400 if tenant else 202)


async def test_requests_at_the_same_time_share_commits_and_all_are_kept(client: Client) -> None:
    answers = await asyncio.gather(
        *(client.turn(turn(str(n), meta={"request_id": str(n % 50)})) for n in range(200))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert await client.rows("SELECT count(*) FROM turns") == [(200,)]
    assert await client.rows("SELECT count(*) FROM turns WHERE reused = 1") == [(150,)]


async def test_the_same_turn_posted_at_once_by_many_is_stored_once(client: Client) -> None:
    answers = await asyncio.gather(*(client.turn(turn(), idempotency_key="k") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.headers["steno-turn-id"] for answer in answers}) == 1
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_202_is_not_said_when_the_store_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defect 2 of the reference: a turn that could not be stored was acknowledged."""

    async def away(*_: object) -> None:
        raise UnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(client.service.store), "put", away)
        answer = await client.turn(turn(meta={"request_id": "r"}))
    assert answer.status_code == 503
    assert answer.json()["error"].startswith(
        "downstream failure: the store is away or full; nothing was stored"
    )
    assert answer.headers["retry-after"]
    assert (await client.turn(turn(meta={"request_id": "r"}))).status_code == 202


async def test_a_full_queue_is_502(tmp_path: Path) -> None:
    async with service(tmp_path, queue_jobs=1) as client:
        answers = await asyncio.gather(*(client.turn(turn(str(n))) for n in range(10)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {202, 502}
        assert await client.rows("SELECT count(*) FROM turns") == [(statuses.count(202),)]
        refused = next(answer for answer in answers if answer.status_code == 502)
        assert refused.json()["error"].startswith("downstream failure")


async def test_a_body_over_the_limit_is_413_and_the_connection_closes(tmp_path: Path) -> None:
    async with service(tmp_path, max_body_bytes=1024) as client:
        answer = await client.turn(turn("x" * 2000))
        assert answer.status_code == 413
        assert answer.json()["error"] == "request body exceeds the ingest size limit"
        assert answer.headers["connection"] == "close"


async def test_a_small_body_that_unfolds_beyond_the_limit_is_413(tmp_path: Path) -> None:
    async with service(tmp_path, max_body_bytes=4096) as client:
        bomb = gzip.compress(json.dumps(turn("x" * 1_000_000)).encode())
        assert len(bomb) < 4096
        assert (await client.turn(bomb, content_encoding="gzip")).status_code == 413


async def test_a_coding_that_is_damaged_is_400(client: Client) -> None:
    body = gzip.compress(json.dumps(turn()).encode())
    for damaged in (body[:-9], b"junk"):
        answer = await client.turn(damaged, content_encoding="gzip")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("invalid envelope")


async def test_every_answer_is_counted_with_a_closed_provider(client: Client) -> None:
    """Defect 12 of the reference: any provider name became a label."""
    await client.turn(turn())
    await client.turn(turn(provider="made-up"))
    await client.turn("nope")
    metrics = (await client.get("/metrics")).text
    assert 'tapes_ingest_writes_total{provider="anthropic",status="accepted"} 1.0' in metrics
    assert 'tapes_ingest_writes_total{provider="other",status="unknown_provider"} 1.0' in metrics
    assert 'tapes_ingest_writes_total{provider="unknown",status="reject_envelope"} 1.0' in metrics
    assert "made-up" not in metrics
    for name in ("dag_write_seconds", "worker_queue_depth", "body_bytes"):
        assert f"tapes_ingest_{name}" in metrics


async def test_what_waits_at_the_end_is_committed(tmp_path: Path) -> None:
    async with service(tmp_path) as client:
        posts = [asyncio.ensure_future(client.turn(turn(str(n)))) for n in range(30)]
        await asyncio.sleep(0)
        answers = await asyncio.gather(*posts)
    accepted = sum(answer.status_code == 202 for answer in answers)
    async with service(tmp_path) as client:
        assert await client.rows("SELECT count(*) FROM turns") == [(accepted,)]
