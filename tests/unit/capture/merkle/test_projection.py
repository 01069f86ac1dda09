"""What the hash covers: pruning, what is left out, and that nothing makes it fail."""

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from capture.dialects.members import as_mapping
from capture.merkle import canonical_node, node_hash
from capture.merkle.projection import prune
from capture.turn import JsonObject
from tests.unit.capture.merkle.test_canonical_json import DEPTH, any_text, anything

objects = st.dictionaries(any_text, anything, max_size=5)
MEMBERS = ["type", "text", "tool_input", "tool_output", "thinking", "is_error", "content", "image_url", "x"]
blocks = st.lists(st.dictionaries(st.sampled_from(MEMBERS), anything | objects, max_size=6), max_size=4)


@given(any_text, any_text, blocks)
def test_hashing_never_fails(parent: str, role: str, content: list[dict[str, object]]) -> None:
    assert re.fullmatch("[0-9a-f]{64}", node_hash(parent, role, content))


@given(objects)
def test_pruning_twice_is_pruning_once(members: dict[str, object]) -> None:
    assert prune(prune(members)) == prune(members)


@given(objects)
def test_pruning_leaves_no_empty_member(members: dict[str, object]) -> None:
    left: list[JsonObject] = [prune(members)]
    while left:
        values = left.pop().values()
        assert all(values)
        left += (mapping for value in values if (mapping := as_mapping(value)) is not None)


@given(objects)
def test_pruning_changes_nothing_in_place(members: dict[str, object]) -> None:
    before = repr(members)
    prune(members)
    assert repr(members) == before


@given(blocks)
def test_the_order_of_members_does_not_matter(content: list[dict[str, object]]) -> None:
    turned = [dict(reversed(block.items())) for block in content]
    assert node_hash("", "user", content) == node_hash("", "user", turned)


@given(objects, st.dictionaries(st.text("abc"), st.sampled_from([None, False, 0, 0.0, "", [], {}])))
def test_empty_arguments_do_not_change_the_hash(given_: dict[str, object], empty: dict[str, object]) -> None:
    def call(arguments: dict[str, object]) -> list[dict[str, object]]:
        return [{"type": "tool_use", "tool_input": arguments}]

    padded = {**empty, **given_}
    assert node_hash("", "assistant", call(padded)) == node_hash("", "assistant", call(given_))


def hashed(*content: dict[str, Any]) -> str:
    return node_hash("", "user", content)


def test_a_signature_is_not_hashed() -> None:
    bare = {"type": "thinking", "thinking": "t"}
    assert hashed({**bare, "thinking_signature": "s"}) == hashed(bare)


def test_what_tells_two_messages_apart_is_hashed() -> None:
    text = {"type": "text", "text": "t"}
    other = [
        node_hash("", "assistant", [text]),
        node_hash("p", "user", [text]),
        hashed(),
        hashed({"type": "text", "text": "u"}),
        hashed({"type": "refusal", "text": "t"}),
        hashed({**text, "is_error": True}),
        hashed({**text, "image_url": "u"}),
        hashed({**text, "thinking": "t"}),
        hashed({**text, "content": 0}),
        hashed({**text, "tool_input": {"a": 1}}),
        hashed(text, text),
    ]
    assert len({hashed(text), *other}) == len(other) + 1


def test_members_of_a_wrong_type_are_left_out() -> None:
    odd: dict[str, object] = {
        "type": 5,
        "text": ["t"],
        "tool_output": 1,
        "tool_input": [1],
        "is_error": "true",
        "thinking": {},
    }
    assert canonical_node("", "user", [odd]) == canonical_node("", "user", [{}])


def test_depth_is_hashed_to_the_bottom() -> None:
    def deep(bottom: object) -> object:
        for _ in range(DEPTH):
            bottom = {"a": bottom}
        return bottom

    one, two = ([{"type": "tool_use", "tool_input": deep(leaf), "content": deep(leaf)}] for leaf in (1, 2))
    assert node_hash("", "user", one) != node_hash("", "user", two)
    assert canonical_node("", "user", [{"tool_input": deep(0)}]) == canonical_node("", "user", [{}])
