"""Fuzz targets of the dialects: nothing raises, any chunking gives the same turn, and both views are JSON.

A target's input is a whole body under one of the content types that may announce it; its
seeds are real shapes, streamed and one-shot.
"""

import json

from bench.streams import STREAMS
from capture.canonical import ViewFacts, view
from capture.dialects.fold import RequestFacts
from capture.merkle import node_hash
from capture.reduce import Reduced, ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import reduced_response, wire_block
from tests.fuzz.target import Target, in_chunks

CONTENT_TYPES = (
    "",
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
)
FACTS = ViewFacts(provider="p", endpoint="e", stream=True)


def _reduced(dialect: Dialect, content_type: str, chunks: list[bytes]) -> Reduced:
    reducer = ResponseReducer(dialect, RequestFacts(), ResponseFacts(content_type=content_type))
    for chunk in chunks:
        reducer.feed(chunk)
    return reducer.finish(Ending.COMPLETE)


def _check(dialect: Dialect, choice: int, body: bytes) -> None:
    content_type = CONTENT_TYPES[choice % len(CONTENT_TYPES)]
    whole = _reduced(dialect, content_type, [body])
    assert whole == _reduced(dialect, content_type, in_chunks(body, 1 + choice // len(CONTENT_TYPES)))
    if isinstance(whole, Turn):
        json.dumps(view(whole, FACTS)).encode()
        reduced_response(whole)
        node_hash("", whole.role, [wire_block(block) for block in whole.blocks])


DOCUMENTS: dict[Dialect, bytes] = {
    Dialect.ANTHROPIC_MESSAGES: b'{"type":"message","content":[{"type":"tool_use","id":"t","name":"f","input":{}}],'
    b'"stop_reason":"tool_use","usage":{"input_tokens":1}}',
    Dialect.OPENAI_CHAT: b'{"choices":[{"index":0,"message":{"content":"a","tool_calls":[{"id":"t","function":'
    b'{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}',
    Dialect.OPENAI_COMPLETIONS: b'{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}',
    Dialect.OPENAI_RESPONSES: b'{"object":"response","status":"completed","output":[{"type":"function_call",'
    b'"call_id":"c","name":"f","arguments":"{}"},{"type":"reasoning","summary":[{"text":"s"}]}]}',
    Dialect.GEMINI: b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":2}]}',
    Dialect.BEDROCK_CONVERSE: b'{"output":{"message":{"content":[{"text":"a"},{"toolUse":{"name":"f","input":{}}}]}},'
    b'"stopReason":"end_turn"}',
    Dialect.BEDROCK_INVOKE: b'{"generation":"a","stop_reason":"stop","prompt_token_count":1}',
    Dialect.COHERE_V1: b'{"text":"a","tool_calls":[{"name":"f","parameters":{}}],"generations":[{"text":"b"}],"meta":{}}',
    Dialect.COHERE_V2: b'{"message":{"content":[{"type":"thinking","thinking":"t"}],"tool_plan":"p"},"finish_reason":"X"}',
    Dialect.OLLAMA_CHAT: b'{"message":{"content":"a","tool_calls":[{"function":{"name":"f"}}]},"done":true,"eval_count":1}',
    Dialect.OLLAMA_GENERATE: b'{"response":"a","done":true}\n{"error":"e"}',
}  # fmt: skip


def _target(dialect: Dialect) -> Target:
    def check(choice: int, body: bytes) -> None:
        _check(dialect, choice, body)

    streams = [stream.make(2) for stream in STREAMS if stream.dialect is dialect]
    return Target(check, (*streams, DOCUMENTS[dialect], b'{"error":{"message":"m"}}'))


TARGETS = {f"dialect_{dialect}": _target(dialect) for dialect in Dialect}
