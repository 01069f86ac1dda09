"""Turns that bring the upstream's bytes: the view is made of these, and not of the contract's few counts."""

import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.ingest.running import Client, service, turn

ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "model": "o1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"},
    ],
    "usage": {
        "prompt_tokens": 20,
        "completion_tokens": 300,
        "total_tokens": 320,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 256},
    },
}


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


def raw_only(provider: str, raw: bytes, **meta: Any) -> dict[str, Any]:
    sent = turn(provider=provider, raw_response=base64.b64encode(raw).decode(), meta=meta)
    return {name: member for name, member in sent.items() if name != "response"}


async def item_of(client: Client, sent: dict[str, Any]) -> Any:
    answer = await client.turn(sent)
    assert answer.status_code == 202, answer.text
    assert await client.service.deriver.settled(30)
    shown = (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).json()
    assert shown["canonical"]["usage"].items() >= shown["turn"]["usage"].items()
    assert shown["canonical"]["text"] == shown["turn"]["text"]
    return shown["turn"]


async def test_every_count_of_a_raw_only_turn_is_kept(client: Client) -> None:
    item = await item_of(
        client, raw_only("openai", json.dumps(ANSWER).encode(), content_type="application/json")
    )
    assert item["usage"] == {
        "input_tokens": 20,
        "output_tokens": 300,
        "total_tokens": 320,
        "cache_read_tokens": 8,
        "cache_write_tokens": None,
        "reasoning_tokens": 256,
    }
    assert (item["operation"], item["text"], item["model"]) == ("generate", "42", "o1")


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_bytes_say_whether_the_answer_was_streamed(client: Client, streamed: bool) -> None:
    """Where the request does not: Gemini, Bedrock and Ollama say it in the path, or by default."""
    message = {"role": "assistant", "content": "hi"}
    first = json.dumps({"model": "m", "message": message, "done": False}) + "\n"
    last = json.dumps({"model": "m", "message": message, "done": True, "done_reason": "stop"})
    text = f"{first}{last}\n" if streamed else last
    content_type = "application/x-ndjson" if streamed else "application/json"
    sent = raw_only("ollama", text.encode(), content_type=content_type, path="/api/chat")
    item = await item_of(client, sent)
    assert item["operation"] == ("stream" if streamed else "generate")


async def test_bytes_that_are_not_of_the_reduced_answer_do_not_count(client: Client) -> None:
    """What a producer made of an answer stands, if it is something else than what is made of it here."""
    sent = raw_only("openai", json.dumps(ANSWER).encode(), content_type="application/json")
    message = {"role": "assistant", "content": [{"type": "text", "text": "another"}]}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    response = {"model": "m", "message": message, "usage": usage, "done": True, "stop_reason": "stop"}
    item = await item_of(client, sent | {"response": response})
    assert (item["text"], item["usage"]["total_tokens"], item["usage"]["reasoning_tokens"]) == (
        "another",
        3,
        None,
    )


async def test_the_producers_own_view_counts_most(client: Client) -> None:
    sent = raw_only("openai", json.dumps(ANSWER).encode(), content_type="application/json")
    seen = {"text": "theirs", "result": "stop", "usage": {"input_tokens": 7}}
    sent["meta"]["canonical"] = seen
    answer = await client.turn(sent)
    assert await client.service.deriver.settled(30)
    shown = (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).json()
    assert (shown["canonical"], shown["turn"]["text"]) == (seen, "theirs")
