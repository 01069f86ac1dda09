"""What the stub provider says: deterministic Anthropic and OpenAI answers, whole or in frames.

The answer's text is a function of the script alone (``answer_text``), so a test knows
what a captured turn must contain without looking at any wire format.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

HEADER = "x-stub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How to answer one request. Travels in a header, so that each request has its own.

    ``chunks``: text deltas of a streamed answer, each its own SSE frame and its own write.
    ``reset_after`` / ``close_after``: break off with RST / FIN when so many frames are out.
    ``early``: answer without reading the request's body first.
    ``pause_at``/``pause_s``: one long silence in front of that frame; behind the last one where there
    is no such frame, before the message ends.
    ``padding``: bytes added to each delta. ``seed`` makes answers of one test differ.
    """

    chunks: int = 8
    delay_s: float = 0.0
    pause_at: int | None = None
    pause_s: float = 0.0
    gzip: bool = False
    trailers: bool = False
    reset_after: int | None = None
    close_after: int | None = None
    status: int = 200
    early: bool = False
    padding: int = 0
    seed: str = "s"

    def header(self) -> str:
        """This script as the value of ``HEADER``."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, header: str | None) -> "Script":
        """The script of a request; the default one where it has none."""
        return cls(**json.loads(header)) if header else cls()


def deltas(script: Script) -> list[str]:
    """The pieces of the answer's text, non-ASCII among them."""
    return [f"{script.seed}{number}ü{'x' * script.padding} " for number in range(script.chunks)]


def answer_text(script: Script) -> str:
    """The whole text that the model said."""
    return "".join(deltas(script))


def message_request(*, stream: bool, text: str = "hello", model: str = "claude-test") -> bytes:
    """A request to ``/v1/messages``."""
    return _json(
        {"model": model, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": text}]}
    )


def chat_request(*, stream: bool, text: str = "hello", model: str = "gpt-test") -> bytes:
    """A request to ``/v1/chat/completions``."""
    return _json({"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]})


def frames(path: str, script: Script) -> list[bytes]:
    """The SSE frames of a streamed answer."""
    return _anthropic_frames(script) if path.startswith("/v1/messages") else _openai_frames(script)


def whole(path: str, script: Script) -> bytes:
    """The JSON of an answer in one piece."""
    if script.status != 200:
        return _json({"type": "error", "error": {"type": "stub_error", "message": f"status {script.status}"}})
    if path.startswith("/v1/messages"):
        return _json(_anthropic_message(script, answer_text(script)))
    if path.startswith("/v1/chat/completions"):
        return _json(_openai_completion(script))
    return _json({"object": "list", "data": []})


def _anthropic_message(script: Script, text: str | None) -> dict[str, Any]:
    whole = text is not None
    return {
        "id": f"msg_{script.seed}",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [{"type": "text", "text": text}] if whole else [],
        "stop_reason": "end_turn" if whole else None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": script.chunks if whole else 1},
    }


def _anthropic_frames(script: Script) -> list[bytes]:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _anthropic_message(script, None)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": delta}}
            for delta in deltas(script)
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": script.chunks},
        },
        {"type": "message_stop"},
    ]
    return [b"event: " + event["type"].encode() + b"\ndata: " + _json(event) + b"\n\n" for event in events]


def _openai_usage(script: Script) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": script.chunks, "total_tokens": 7 + script.chunks}


def _openai_completion(script: Script) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer_text(script)}
    return {
        "id": f"chatcmpl-{script.seed}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-test",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _openai_usage(script),
    }


def _openai_frames(script: Script) -> list[bytes]:
    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{script.seed}",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "gpt-test",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    chunks = [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": delta}) for delta in deltas(script)),
        {**chunk({}, "stop"), "usage": _openai_usage(script)},
    ]
    return [*(b"data: " + _json(each) + b"\n\n" for each in chunks), b"data: [DONE]\n\n"]


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
