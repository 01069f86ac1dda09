"""A stand-in for an LLM provider: answers Anthropic Messages and OpenAI Chat requests.

It says what it was asked, a word at a time, streamed or in one piece, so that a
person can see one whole turn pass without a key or a network.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, cast

from aiohttp import web

_PAUSE_S = 0.03


async def start_provider(host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve on ``host`` and ``port`` (0: any free one); returns the runner and the port."""
    app = web.Application()
    app.add_routes([web.post("/v1/messages", _messages), web.post("/v1/chat/completions", _chat)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner, int(runner.addresses[0][1])


async def _messages(request: web.Request) -> web.StreamResponse:
    asked = cast("dict[str, object]", await request.json())
    words = _words(asked)
    usage = {"input_tokens": 12, "output_tokens": len(words)}
    head = {"id": "msg_demo", "type": "message", "role": "assistant", "model": asked.get("model", "demo")}
    if not asked.get("stream"):
        content = [{"type": "text", "text": "".join(words)}]
        return web.json_response({**head, "content": content, "stop_reason": "end_turn", "usage": usage})
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "content": [], "usage": {**usage, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in words
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    ]
    return await _stream(
        request, (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    )


async def _chat(request: web.Request) -> web.StreamResponse:
    asked = cast("dict[str, object]", await request.json())
    words = _words(asked)
    usage = {"prompt_tokens": 12, "completion_tokens": len(words), "total_tokens": 12 + len(words)}
    head = {"id": "chatcmpl-demo", "created": 1_790_000_000, "model": asked.get("model", "demo")}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(words)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({**head, "object": "chat.completion", "choices": choices, "usage": usage})
    head["object"] = "chat.completion.chunk"
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    chunks: list[dict[str, object]] = [
        *({**head, "choices": [{"index": 0, "delta": delta}]} for delta in deltas),
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": usage},
    ]
    frames = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return await _stream(request, iter([*frames, "data: [DONE]\n\n"]))


def _words(asked: dict[str, object]) -> list[str]:
    """The answer, in pieces."""
    messages = cast("list[dict[str, object]]", asked.get("messages") or [{}])
    said = messages[-1].get("content")
    return [word + " " for word in f"You said: {said} And I said this, a word at a time.".split(" ")]


async def _stream(request: web.Request, frames: Iterator[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for frame in frames:
        await response.write(frame.encode())
        await asyncio.sleep(_PAUSE_S)
    await response.write_eof()
    return response
