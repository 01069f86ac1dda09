"""Raw-only turns: what their metadata says of times is used, or left out and told; it never costs a turn."""

import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ingest import intake
from ingest.rawonly import STAMPS
from tests.unit.ingest.running import Client, service, turn

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


def raw_only(**meta: Any) -> dict[str, Any]:
    """A turn with the bytes of its answer and without a reduction."""
    raw = base64.b64encode(json.dumps(ANSWER).encode()).decode()
    said = turn(meta={"content_type": "application/json"} | meta, raw_response=raw)
    del said["response"]
    return said


async def made(client: Client, **meta: Any) -> str:
    """When the service says the turn was made."""
    answer = await client.turn(raw_only(**meta))
    assert answer.status_code == 202, answer.text
    detail = (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).json()
    return str(detail["response"].get("created_at"))


ODD = {
    "before the first year in UTC": {"captured_at": "0001-01-01T00:00:00+23:00"},
    "after the last year in UTC": {"captured_at": "9999-12-31T23:59:59-23:00"},
    "after the last year with what elapsed": {
        "ts_request": "9999-12-31T23:59:59Z",
        "elapsed_seconds": 604_000,
    },
    "a week": {"captured_at": "2026-W05-1T00:00:00Z"},
    "no zone": {"captured_at": "2026-01-31T00:00:00"},
    "digits of another script": {"captured_at": "٢٠٢٦-01-31T00:00:00Z"},
    "no time": {"captured_at": "soon", "ts_request": "later"},
    "elapsed without end": {"elapsed_seconds": 1e308},
}


@pytest.mark.parametrize("meta", ODD.values(), ids=ODD.keys())
async def test_a_time_that_cannot_be_used_is_left_out_and_told(
    client: Client, caplog: pytest.LogCaptureFixture, meta: dict[str, Any]
) -> None:
    """It once cost the turn, and its whole batch, a 500 for ever."""
    answer = await client.turn(raw_only(request_id="r", **meta))
    assert answer.status_code == 202, answer.text
    told = caplog.text.count("is no time that can be used")
    assert told == len([name for name in meta if name != "elapsed_seconds" or meta[name] > 1e6])
    metrics = (await client.get("/metrics")).text
    row = 'tapes_ingest_rawonly_stamp_total{field="created_at",provider="anthropic",source="fallback"} 1.0'
    assert row in metrics


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"captured_at": "0020-01-01T00:00:00Z"}, "0020-01-01T00:00:00Z"),
        ({"captured_at": "2026-01-02T03:04:05.250+02:00"}, "2026-01-02T01:04:05.25Z"),
        ({"captured_at": "never", "ts_request": "2026-01-02T03:04:05z"}, "2026-01-02T03:04:05Z"),
        ({"ts_request": "2026-01-02T03:04:05Z", "elapsed_seconds": 1.5}, "2026-01-02T03:04:06.5Z"),
    ],
)
async def test_a_time_that_can_be_used_is(client: Client, meta: dict[str, Any], expected: str) -> None:
    assert await made(client, **meta) == expected


async def test_every_source_of_a_time_is_counted_from_the_start(client: Client) -> None:
    def row(field: str, source: str, count: int) -> str:
        name = "tapes_ingest_rawonly_stamp_total"
        return f'{name}{{field="{field}",provider="anthropic",source="{source}"}} {count}.0'

    metrics = (await client.get("/metrics")).text
    assert all(row(field, source, 0) in metrics for field, source in STAMPS)
    await client.turn(raw_only())
    metrics = (await client.get("/metrics")).text
    for field, source in STAMPS:
        assert row(field, source, int(source == "fallback")) in metrics


async def test_a_turn_that_meets_a_bug_costs_its_batch_nothing_and_is_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = intake.prepare

    def broken(posted: intake.Posted, *rest: Any, **named: Any) -> object:
        if b"poison" in posted.body:
            raise ZeroDivisionError
        return prepare(posted, *rest, **named)

    monkeypatch.setattr(intake, "prepare", broken)
    turns = [turn("a"), turn("poison"), turn("b")]
    answer = await client.post("/v1/ingest/batch", json={"turns": turns})
    assert [result["status"] for result in answer.json()["results"]] == [202, 500, 202]
    alone = await client.turn(turn("poison"))
    assert alone.status_code == 500
    assert alone.json()["action"].startswith("send it again after a while; if it is refused again")
    metrics = (await client.get("/metrics")).text
    assert 'tapes_ingest_writes_total{provider="unknown",status="internal_error"} 2.0' in metrics
    assert await client.rows("SELECT count(*) FROM turns") == [(2,)]


async def test_a_transcript_that_meets_a_bug_is_counted_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(intake, "prepare_transcript", broken)
    body: dict[str, Any] = {"session": {"harness_session_id": "s"}, "records": []}
    assert (await client.post("/v1/ingest/transcript", json=body)).status_code == 500
    metrics = (await client.get("/metrics")).text
    assert 'tapes_ingest_writes_total{provider="unknown",status="internal_error"} 1.0' in metrics


async def test_a_bug_of_the_store_is_500_for_each_turn_and_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OverflowError("beyond 64 bits")

    monkeypatch.setattr(type(client.service.store), "put", broken)
    answer = await client.post(
        "/v1/ingest/batch", json={"turns": [turn(meta={"request_id": "r"}), turn("b")]}
    )
    assert [(result["status"], result["id"]) for result in answer.json()["results"]] == [
        (500, "r"),
        (500, ""),
    ]
    assert answer.status_code == 503
    metrics = (await client.get("/metrics")).text
    assert 'tapes_ingest_writes_total{provider="anthropic",status="internal_error"} 2.0' in metrics
