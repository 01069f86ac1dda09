"""POST /v1/ingest/batch and /v1/ingest/transcript."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ingest.store.connection import UnavailableError
from tests.unit.ingest.running import JSON, Client, service, turn
from tests.unit.ingest.test_access import bearer, key, keys_file


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def batch(client: Client, turns: list[Any]) -> httpx.Response:
    return await client.post("/v1/ingest/batch", json={"turns": turns})


async def test_each_turn_has_its_own_result(client: Client) -> None:
    answer = await batch(
        client,
        [turn(meta={"request_id": "a"}), turn(provider="no", meta={"request_id": "b"}), 5],
    )
    assert answer.status_code == 202
    value = answer.json()
    assert (value["accepted"], value["rejected"], len(value["errors"])) == (1, 2, 2)
    assert [(result["index"], result["id"], result["status"]) for result in value["results"]] == [
        (0, "a", 202),
        (1, "b", 422),
        (2, "", 400),
    ]
    assert value["results"][0]["error"] == ""
    assert value["results"][2]["error"].startswith("invalid envelope")


async def test_a_refused_turn_is_named_as_long_as_its_envelope_can_be_read(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, key("t", ["a"], "write"))
    async with service(tmp_path, keys_file=keys) as client:
        turns = [turn(meta={"request_id": name, "tenant": name}) for name in ("other", "no/name")]
        answer = await client.post("/v1/ingest/batch", json={"turns": turns}, headers=bearer("t"))
    results = answer.json()["results"]
    assert [(result["id"], result["status"]) for result in results] == [("other", 403), ("no/name", 400)]


async def test_a_turn_of_a_batch_and_the_same_turn_alone_are_duplicates(client: Client) -> None:
    one = json.dumps(turn(meta={"request_id": "a"}))
    await client.turn(one)
    answer = await client.post("/v1/ingest/batch", content=f'{{"turns": [{one}, {one}]}}', headers=JSON)
    assert [result["status"] for result in answer.json()["results"]] == [202, 202]
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_when_all_are_rejected_for_good_the_batch_is_422(client: Client) -> None:
    assert (await batch(client, [turn(provider="no"), {}, 5])).status_code == 422


async def test_when_all_are_rejected_for_now_the_batch_is_503(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise UnavailableError("gone")

    monkeypatch.setattr(type(client.service.store), "put", away)
    answer = await batch(client, [turn(), 5])
    assert answer.status_code == 503
    assert [result["status"] for result in answer.json()["results"]] == [503, 400]


@pytest.mark.parametrize("body", ["{}", '{"turns": []}', '{"turns": {}}', "[]", '{"turns": [1', "nope"])
async def test_what_is_no_batch_is_400(client: Client, body: str) -> None:
    answer = await client.post("/v1/ingest/batch", content=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid envelope")


async def test_a_batch_has_a_limit(client: Client) -> None:
    assert (await batch(client, [1] * 1001)).status_code == 400


async def test_every_turn_of_a_batch_is_counted(client: Client) -> None:
    await batch(client, [turn(str(n)) for n in range(7)])
    metrics = (await client.get("/metrics")).text
    assert 'tapes_ingest_writes_total{provider="anthropic",status="accepted"} 7.0' in metrics


async def test_a_hostile_neighbour_does_not_spoil_a_batch(client: Client) -> None:
    good = json.dumps(turn())
    hostile = '{"provider":"anthropic","request":{"messages":[],"x":"\\ud800","x":1e999},"meta":{},"meta":{}}'
    answer = await client.post("/v1/ingest/batch", content=f'{{"turns": [{hostile}, {good}]}}', headers=JSON)
    assert [result["status"] for result in answer.json()["results"]] == [422, 202]


async def test_a_transcript_is_kept_once(client: Client) -> None:
    body = {"session": {"harness_id": "h", "harness_session_id": "s"}, "records": [{"a": "\ud800"}]}
    content = json.dumps(body)
    answers = [
        (await client.post("/v1/ingest/transcript", content=content, headers=JSON)).json() for _ in range(2)
    ]
    assert [answer["deduped"] for answer in answers] == [False, True]
    assert await client.rows("SELECT source, harness_session_id FROM turns") == [("transcript", "s")]


async def test_a_transcript_of_an_unknown_kind_is_400(client: Client) -> None:
    body: dict[str, Any] = {"session": {"harness_session_id": "s"}, "records": [], "kind": "odd"}
    assert (await client.post("/v1/ingest/transcript", json=body)).status_code == 400
