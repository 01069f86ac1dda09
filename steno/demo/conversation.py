"""What ``steno up`` shows: requests through Envoy, and what was stored of each."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, cast

import httpx

AGENT: Final = "steno-demo"
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Question:
    """One request in one format. ``deltas`` says how its stream carries text."""

    name: str
    path: str
    text: str

    def body(self) -> dict[str, object]:
        """The request's JSON."""
        return {
            "model": "demo-model",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": self.text}],
        }


QUESTIONS: Final = (
    Question("Anthropic Messages", "/v1/messages", "Is anybody listening?"),
    Question("OpenAI Chat Completions", "/v1/chat/completions", "And in another tongue?"),
)


async def ask(client: httpx.AsyncClient, envoy: str, question: Question) -> str:
    """Ask through Envoy, print the answer as it comes, and return what the client received."""
    print(f"{question.name}, streamed through {envoy}{question.path}:\n\n  ", end="")
    received: list[str] = []
    headers = {"x-tapes-agent-name": AGENT}
    async with client.stream("POST", envoy + question.path, json=question.body(), headers=headers) as answer:
        async for line in answer.aiter_lines():
            piece = _text_of(line)
            print(piece, end="", flush=True)
            received.append(piece)
    print("\n")
    return "".join(received)


async def stored(client: httpx.AsyncClient, ingest: str, question: Question) -> dict[str, Any] | None:
    """The turn that ingest has of the question, or None when it does not come in time."""
    for _ in range(int(_PATIENCE_S / 0.1)):
        page = (await client.get(f"{ingest}/v1/turns", params={"agent": AGENT})).json()
        for item in page["turns"]:
            turn = (await client.get(f"{ingest}/v1/turns/{item['id']}")).json()
            if turn["request"]["messages"][0]["content"] == question.text:
                return cast("dict[str, Any]", turn)
        await asyncio.sleep(0.1)
    return None


def _text_of(line: str) -> str:
    """The text that one line of a stream carries, in either format."""
    if not line.startswith("data: {"):
        return ""
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    if event.get("type") == "content_block_delta":
        return str(event["delta"]["text"])
    choices: list[dict[str, Any]] = event.get("choices") or []
    return "".join(choice["delta"].get("content") or "" for choice in choices)
