"""An answer's own format, by its first event."""

import pytest

from capture.dialects.signature import spoken
from capture.turn import Dialect

FIRST = {
    Dialect.ANTHROPIC_MESSAGES: b'{"type":"message_start","message":{"id":"m","type":"message"}}',
    Dialect.OPENAI_RESPONSES: b'{"type": "response.created", "response": {"object": "response"}}',
    Dialect.OPENAI_CHAT: b'{"id":"c","object":"chat.completion.chunk","choices":[]}',
    Dialect.OPENAI_COMPLETIONS: b'{"id":"c","object":"text_completion","choices":[]}',
}


@pytest.mark.parametrize("declared", [Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_CHAT])
@pytest.mark.parametrize("real", list(FIRST))
def test_a_translated_answer_is_known_by_its_first_event(declared: Dialect, real: Dialect) -> None:
    assert spoken(FIRST[real], declared) is real


@pytest.mark.parametrize("declared", list(Dialect))
def test_an_answer_without_any_signature_is_what_it_was_declared_to_be(declared: Dialect) -> None:
    assert spoken(b'{"error": {"message": "x"}}', declared) is declared


def test_text_that_quotes_another_format_decides_nothing() -> None:
    quoting = b'{"choices":[{"delta":{"content":"\\"object\\": \\"response\\", \\"type\\": \\"message\\""}}]}'
    assert spoken(quoting, Dialect.OPENAI_CHAT) is Dialect.OPENAI_CHAT
