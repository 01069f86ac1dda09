"""Labels and the token estimate."""

import pytest

from capture.requests import Request, RequestMessage, estimate_tokens, label
from capture.turn import Block


def said(*texts: str, role: str = "user") -> RequestMessage:
    return RequestMessage(role=role, blocks=tuple(Block(type="text", text=text) for text in texts))


def test_the_label_is_the_first_thing_the_user_said_on_one_line() -> None:
    request = Request(
        messages=(said("You help.", role="system"), said("  Fix\n\tthe\u3000test "), said("Then rest"))
    )
    assert label(request) == "Fix the test"


def test_injected_context_and_reminders_are_passed_over() -> None:
    request = Request(
        messages=(
            said("# MCP Server Instructions\nmany"),
            said("<system-reminder>clock</system-reminder>", "<command-name>x</command-name> go on"),
        )
    )
    assert label(request) == "go on"


def test_a_request_of_nothing_but_tags_is_labelled_with_them() -> None:
    assert label(Request(messages=(said("<session>name it</session>"),))) == "<session>name it</session>"


def test_a_label_has_at_most_200_characters() -> None:
    assert label(Request(messages=(said("x" * 300),))) == "x" * 200


def test_without_a_user_text_the_label_is_empty() -> None:
    image = RequestMessage(role="user", blocks=(Block(type="image", text="not said"),))
    assert label(Request(messages=(image, said("answer", role="assistant")))) == ""


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_four_characters_are_about_a_token(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
