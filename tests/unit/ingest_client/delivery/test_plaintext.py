"""A stranger's words: one line, bounded, without secrets."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.plaintext import MAX_CHARS, readable


@given(st.one_of(st.binary(max_size=5000), st.text(max_size=5000)))
def test_whatever_comes_becomes_one_bounded_line_without_control_characters(raw: bytes | str) -> None:
    text = readable(raw)
    assert len(text) <= MAX_CHARS
    assert not any(unicodedata.category(character) == "Cc" for character in text)
    assert "\u2028" not in text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-REDACTED",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9",
        "xoxb-1234567890-abcdefghij",
    ],
)
def test_secrets_of_known_shape_do_not_pass(secret: str) -> None:
    for text in (f"bad key {secret}!", f"{'x' * 495} {secret}", f'{{"authorization": "Bearer {secret}"}}'):
        assert secret[8:20] not in readable(text)


def test_a_token_of_ours_does_not_pass_whatever_its_shape() -> None:
    assert readable("you sent correct-horse", secrets=("correct-horse",)) == "you sent [redacted]"


def test_credentials_in_a_url_do_not_pass() -> None:
    assert readable("see https://me:hunter2@example.test/x") == "see https://[redacted]@example.test/x"


def test_ordinary_words_stay_as_they_are() -> None:
    words = "unprocessable turn: response.message.content is empty; tokens 12, see docs/errors.md"
    assert readable(words) == words


def test_a_long_text_says_that_it_was_cut() -> None:
    assert readable("word " * 1000).endswith("…")
