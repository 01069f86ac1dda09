"""Tags and injected context: the contract's rules, and linear cost on hostile text."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.requests.harness import (
    INJECTED_OPENINGS,
    STRIPPED_TAGS,
    WHITE_SPACE,
    is_injected,
    normalise,
    strip_tags,
)
from capture.turn import Block

MEGABYTE = 2**20
QUADRATIC_WOULD_TAKE_MINUTES_S = 5.0


def stripped_plainly(text: str) -> str:
    """The rule as it is told, at whatever cost."""
    for tag in STRIPPED_TAGS:
        while (start := text.find(f"<{tag}>")) >= 0:
            end = text.find(f"</{tag}>", start)
            text = text[:start] if end < 0 else text[:start] + text[end + len(f"</{tag}>") :]
    return text


FRAGMENTS = st.sampled_from(
    ["<session>", "</session>", "<ses", "<s", "sion>", "ession>", "<event>", "</event>", "<", ">", "a", " "]
)


@given(st.lists(FRAGMENTS, max_size=40).map("".join))
def test_tags_go_as_the_plain_rule_says(text: str) -> None:
    assert strip_tags(text) == stripped_plainly(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a<ses<session>x</session>sion>y</session>b", "ab"),
        ("<ses<session></session>sion>", ""),
        ("<<event></event>event>x</event>y", "y"),
        ("</session>a", "</session>a"),
        ("a < b", "a < b"),
    ],
)
def test_an_opening_that_a_removal_spells_counts_too(text: str, kept: str) -> None:
    assert strip_tags(text) == kept == stripped_plainly(text)


HOSTILE = {
    "openings": "<session>" * (MEGABYTE // 9),
    "spans": "<session></session>" * (MEGABYTE // 19),
    "spans and text": "a<session></session>" * (MEGABYTE // 20),
    "closings": "</session>" * (MEGABYTE // 10),
    "brackets": "<" * MEGABYTE,
    "beginnings": "<sessio" * (MEGABYTE // 7),
    "openings that removals spell": "<s" * (MEGABYTE // 20)
    + "<session></session>"
    + "ession></session>" * (MEGABYTE // 20),
    "openings that removals spell, in pieces": "<s<session></session>" * (MEGABYTE // 40)
    + "ession></session>" * (MEGABYTE // 40),
    "blanks": " " * MEGABYTE,
    "blanks and tabs without a line end": "x" + " \t" * (MEGABYTE // 2) + "x",
    "line ends": "\n" * MEGABYTE,
    "blank lines": " \n" * (MEGABYTE // 2),
    "carriage returns": "\r" * MEGABYTE,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_hostile_text_costs_linear_time(text: str) -> None:
    began = time.process_time()
    normalise(strip_tags(text))
    assert time.process_time() - began < QUADRATIC_WOULD_TAKE_MINUTES_S


def test_white_space_is_the_unicode_property() -> None:
    separators = "\x1c\x1d\x1e\x1f"  # space for Python, not for Unicode
    spaces = {character for character in map(chr, range(0x110000)) if character.isspace()}
    assert set(WHITE_SPACE) == spaces - set(separators)


@given(st.text(alphabet="ab \t\r\n\x0b\u3000\x1c"))
def test_white_space_folds_as_the_plain_rules_say(text: str) -> None:
    told = re.sub(r"[ \t]+\n", "\n", text.replace("\r\n", "\n"))
    told = re.sub(r"\n{2,}", "\n", told).strip("\t\n\x0b\x0c\r \u3000")
    assert normalise(text) == told


def text_blocks(*texts: str) -> list[Block]:
    return [Block(type="text", text=text) for text in texts]


@pytest.mark.parametrize("opening", INJECTED_OPENINGS)
def test_a_message_that_opens_like_injected_context_is(opening: str) -> None:
    assert is_injected("user", text_blocks(f"\n {opening} and more"))
    assert is_injected("system", [Block(type="", text=opening)])


def test_other_messages_are_not_injected() -> None:
    opening = INJECTED_OPENINGS[0]
    assert not is_injected("assistant", text_blocks(opening))
    assert not is_injected("user", text_blocks(f"I read: {opening}"))
    assert not is_injected("user", [*text_blocks(opening), Block(type="image", image_url="u")])
    assert not is_injected("user", [])
