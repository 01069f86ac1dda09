"""One LLM turn as Envoy shows it: the serialised messages of one ext_proc stream.

A request of 2 KB, then an OpenAI stream whose frames are of equal size: 200 bytes is what OpenAI itself
sends for a token. The words differ, so that nothing is cached for being equal.
"""

import json
from dataclasses import dataclass
from typing import Final

from extproc.pb.ext_proc_pb2 import HeaderValue, ProcessingMode, ProcessingRequest, ProtocolConfiguration

PATH: Final = "/v1/chat/completions"
_STREAMED: Final = ProcessingMode.STREAMED


@dataclass(frozen=True, slots=True)
class Turn:
    """``opening``: the messages before the answer's body. ``chunks``: one for each piece of it, the
    empty last one included. All are serialised ``ProcessingRequest``s.
    """

    opening: tuple[bytes, ...]
    chunks: tuple[bytes, ...]


def request_body(size_bytes: int = 2048) -> bytes:
    """A request for a streamed answer, padded to a size."""
    empty = _request("")
    return _request("q" * (size_bytes - len(empty)))


def sse_frames(chunks: int, chunk_bytes: int = 200) -> list[bytes]:
    """An answer: ``chunks`` deltas of exactly ``chunk_bytes`` (at least 180), and what ends a stream."""
    last = _chunk({}, "chatcmpl-", "stop") + b"data: [DONE]\n\n"
    return [*(_delta(number, chunk_bytes) for number in range(chunks)), last]


def make_turn(chunks: int, chunk_bytes: int = 200, *, observe: bool = True) -> Turn:
    """A whole turn. ``observe``: a copy that waits for no answer; else Envoy's STREAMED mode."""
    request = request_body()
    head = _headers(
        {
            ":method": "POST", ":path": PATH, ":authority": "api.openai.com", ":scheme": "https",
            "content-type": "application/json", "content-length": str(len(request)),
            "user-agent": "bench/1.0", "x-request-id": "3f7a4a34-9b1c-4c86-8f4e-5a3d0f3b6f10",
            "x-forwarded-proto": "http",
        }
    )  # fmt: skip
    answer = _headers({":status": "200", "content-type": "text/event-stream", "server": "envoy"})
    first = ProcessingRequest(observability_mode=observe)
    first.request_headers.headers.headers.extend(head)
    if not observe:
        first.protocol_config.CopyFrom(
            ProtocolConfiguration(request_body_mode=_STREAMED, response_body_mode=_STREAMED)
        )
    begun = ProcessingRequest(observability_mode=observe)
    begun.response_headers.headers.headers.extend(answer)
    opening = (
        first.SerializeToString(),
        _request_chunk(request, observe=observe),
        _request_chunk(b"", observe=observe, last=True),
        begun.SerializeToString(),
    )
    body = [_response_chunk(frame, observe=observe) for frame in sse_frames(chunks, chunk_bytes)]
    return Turn(opening, (*body, _response_chunk(b"", observe=observe, last=True)))


def _request(text: str) -> bytes:
    document = {
        "model": "gpt", "max_tokens": 1024, "stream": True, "messages": [{"role": "user", "content": text}]
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")).encode()


def _chunk(delta: dict[str, str], identity: str, finish: str | None = None) -> bytes:
    event = {
        "id": identity, "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def _delta(number: int, size_bytes: int) -> bytes:
    said = {"content": f" word{number}"}
    room = size_bytes - len(_chunk(said, "chatcmpl-"))
    return _chunk(said, "chatcmpl-" + "x" * room)


def _headers(fields: dict[str, str]) -> list[HeaderValue]:
    return [HeaderValue(key=name, raw_value=value.encode()) for name, value in fields.items()]


def _request_chunk(data: bytes, *, observe: bool, last: bool = False) -> bytes:
    message = ProcessingRequest(observability_mode=observe)
    message.request_body.body = data
    message.request_body.end_of_stream = last
    return message.SerializeToString()


def _response_chunk(data: bytes, *, observe: bool, last: bool = False) -> bytes:
    message = ProcessingRequest(observability_mode=observe)
    message.response_body.body = data
    message.response_body.end_of_stream = last
    return message.SerializeToString()
