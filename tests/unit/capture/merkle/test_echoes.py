"""An answer and its echo in the next recorded request are one node, whatever the dialect.

Not so by the contract's own mapping: a Responses answer of several items (each comes
back as a message of its own), and thinking that chat clients do not send back.
"""

import json
from pathlib import Path

import pytest

from capture import jsontext
from capture.dialects.fold import RequestFacts
from capture.merkle import Node, build_chain
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import reduced_response
from tests.paths import CORPUS, needs_shared

pytestmark = needs_shared

CHAT, RESPONSES, GEMINI = Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES, Dialect.GEMINI
ECHOES = [
    (CHAT, "groq/chat-tool-streaming-0-2f01d5", "groq/chat-tool-streaming-1-54bfc7"),
    (
        CHAT,
        "mistral/chat-testexec-mistral-toolcall-0-339738",
        "mistral/chat-testexec-mistral-toolcall-1-15eced",
    ),
    (
        RESPONSES,
        "openrouter/responses-test-tool-calls-1-495fa6",
        "openrouter/responses-test-tool-calls-2-968766",
    ),
    (
        GEMINI,
        "vertex/generatecontent-test-function-call-choice-0-1baa14",
        "vertex/generatecontent-test-tool-events-no-content-0-4d94f0",
    ),
]


def chain_of(dialect: Dialect, case: Path) -> tuple[Node, ...]:
    meta = json.loads((case / "meta.json").read_text())
    reducer = ResponseReducer(
        dialect, RequestFacts(), ResponseFacts(content_type=meta["response_content_type"])
    )
    (response,) = case.glob("response.*")
    reducer.feed(response.read_bytes())
    turn = reducer.finish(Ending.COMPLETE)
    assert isinstance(turn, Turn)
    request = jsontext.decode((case / "request.json").read_bytes())
    return build_chain("", dialect, request, reduced_response(turn))


@pytest.mark.parametrize(("dialect", "first", "second"), ECHOES)
def test_a_recorded_turn_is_the_beginning_of_the_next(dialect: Dialect, first: str, second: str) -> None:
    turn = chain_of(dialect, CORPUS / first)
    later = chain_of(dialect, CORPUS / second)
    assert [node.hash for node in later[: len(turn)]] == [node.hash for node in turn]
