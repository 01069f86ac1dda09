"""Every recorded request of the shared sample is read: messages, a label, a chain."""

import json
from pathlib import Path
from typing import Final

import pytest

from capture import jsontext
from capture.merkle import build_chain
from capture.requests import Request, label, read
from capture.turn import Dialect
from tests.paths import CORPUS, needs_shared

pytestmark = needs_shared

DIALECTS: Final = {
    "messages": Dialect.ANTHROPIC_MESSAGES,
    "anthropic-rawPredict": Dialect.ANTHROPIC_MESSAGES,
    "chat": Dialect.OPENAI_CHAT,
    "completions-legacy": Dialect.OPENAI_COMPLETIONS,
    "responses": Dialect.OPENAI_RESPONSES,
    "generateContent": Dialect.GEMINI,
    "streamGenerateContent": Dialect.GEMINI,
    "converse": Dialect.BEDROCK_CONVERSE,
    "converse-stream": Dialect.BEDROCK_CONVERSE,
    "invoke": Dialect.BEDROCK_INVOKE,
    "invoke-stream": Dialect.BEDROCK_INVOKE,
    "v1-chat": Dialect.COHERE_V1,
    "v1-generate": Dialect.COHERE_V1,
    "v2-chat": Dialect.COHERE_V2,
}


def dialect_of_case(case: Path) -> Dialect | None:
    meta = json.loads((case / "meta.json").read_text())
    if meta["provider"] == "ollama":
        return Dialect.OLLAMA_CHAT if meta["api"] == "chat" else Dialect.OLLAMA_GENERATE
    return DIALECTS.get(meta["api"])


def cases() -> list[Path]:
    folders = sorted(path.parent for path in CORPUS.glob("*/*/meta.json"))
    return [
        case for case in folders if case.parent.name != "non-turn" and (case / "request.json").stat().st_size
    ]


def read_case(case: Path) -> Request:
    dialect = dialect_of_case(case)
    assert dialect is not None, "an api that no row of this test names"
    return read(dialect, jsontext.decode((case / "request.json").read_bytes()))


NO_USER_TEXT: Final = {
    "chat-chat-streaming-detailed-usage-0-4a0623": "a developer's message alone",
    "completions-legacy-openai-completions-post-48ee296c-0-d29dd3": "the prompt is token numbers",
    "responses-handles-empty-string-content-0-b2623e": "the text is empty",
    "responses-structured-data-basics-image-0-e5ac48": "an image alone",
}
UNPARSED: Final = {
    "generatecontent-test-instrument-google-genai-no-content-0-b9a3b1": "an inline file that is no image",
}


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case.parent.name}/{case.name}")
def test_a_recorded_request_is_read(case: Path) -> None:
    request = read_case(case)
    assert not request.problem
    assert request.messages
    assert all(message.role for message in request.messages)
    kinds = {block.type for message in request.messages for block in message.blocks}
    assert kinds.isdisjoint({"", "unparsed"}) is (case.name not in UNPARSED)
    assert bool(label(request)) is (case.name not in NO_USER_TEXT)
    body = jsontext.decode((case / "request.json").read_bytes())
    assert len(build_chain("", str(dialect_of_case(case)), body, {})) == len(request.messages)


def test_nearly_every_case_has_a_request() -> None:
    assert len(cases()) > 190
