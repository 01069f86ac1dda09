"""Nodes and their parents: the spine, injected context, echoes, and odd input."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.merkle import Node, build_chain
from capture.turn import Dialect
from tests.unit.capture.merkle.test_canonical_json import DEPTH, anything

ANSWER = {"message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}}


def asked(*messages: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


def test_each_node_hangs_on_the_one_before() -> None:
    nodes = build_chain("anthropic", "", asked(("user", "a"), ("assistant", "b"), ("user", "c")), ANSWER)
    assert [node.role for node in nodes] == ["user", "assistant", "user", "assistant"]
    assert [node.parent for node in nodes] == ["", *(node.hash for node in nodes[:-1])]
    assert nodes[0].blocks == ({"type": "text", "text": "a"},)


def test_injected_context_hangs_beside_the_spine() -> None:
    injected = ("user", "The following skills are available: many")
    nodes = build_chain("anthropic", "", asked(("user", "a"), injected, injected, ("user", "b")), ANSWER)
    first, beside, again, second, answer = nodes
    assert [node.on_spine for node in nodes] == [True, False, False, True, True]
    assert beside.parent == again.parent == second.parent == first.hash
    assert answer.parent == second.hash


def test_the_chain_is_the_same_with_and_without_injected_context() -> None:
    injected = ("system", "Plan mode is active. Wait.")
    plain = build_chain("anthropic", "", asked(("user", "a")), ANSWER)
    told = build_chain("anthropic", "", asked(injected, ("user", "a"), injected), ANSWER)
    assert tuple(node for node in told if node.on_spine) == plain


def test_the_system_prompt_makes_no_node() -> None:
    request = asked(("user", "a"))
    assert build_chain("anthropic", "", {**request, "system": "s"}, ANSWER) == build_chain(
        "anthropic", "", request, ANSWER
    )


def test_a_turn_is_the_prefix_of_the_next_that_echoes_it() -> None:
    call = {"type": "tool_use", "tool_use_id": "t", "tool_name": "Edit", "tool_input": {"a": 1, "all": False}}
    echo = {"type": "tool_use", "id": "t", "name": "Edit", "input": {"a": 1}}
    turn = build_chain(
        "anthropic", "", asked(("user", "a")), {"message": {"role": "assistant", "content": [call]}}
    )
    later: dict[str, object] = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a "}]},
            {"role": "assistant", "content": [echo]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "done"}]},
        ]
    }
    assert hashes(build_chain("anthropic", "", later, ANSWER))[:2] == hashes(turn)


def hashes(nodes: tuple[Node, ...]) -> list[str]:
    return [node.hash for node in nodes]


CUSTOM: dict[str, object] = {
    "type": "custom_tool_call",
    "content": {"type": "custom_tool_call", "id": "c", "call_id": "9", "name": "exec", "input": "ls"},
}


def answered(block: dict[str, object]) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": [block]}}


def test_a_custom_call_hashes_as_its_echo_for_openai_alone() -> None:
    echo = {"input": [CUSTOM["content"]]}
    (rewritten,) = build_chain("openai", "", None, answered(CUSTOM))
    (echoed,) = build_chain("openai", "", echo, {})
    (kept,) = build_chain("anthropic", "", None, answered(CUSTOM))
    assert rewritten == echoed
    assert kept.blocks == (CUSTOM,)


@pytest.mark.parametrize("content", [None, "text", {"input": "without a call_id"}])
def test_a_custom_call_without_its_id_stays_as_it_is(content: object) -> None:
    block: dict[str, object] = {"type": "custom_tool_call", "content": content}
    (node,) = build_chain("openai", "", None, answered(block))
    assert node.blocks == (block,)


@pytest.mark.parametrize("request_body", [None, [], "x", 5, {}, {"messages": "x"}, {"messages": [1, None]}])
def test_without_readable_messages_the_response_is_the_root(request_body: object) -> None:
    (node,) = build_chain("anthropic", "", request_body, ANSWER)
    assert (node.parent, node.role) == ("", "assistant")


def test_without_a_response_the_request_alone_makes_nodes() -> None:
    assert [node.role for node in build_chain("anthropic", "", asked(("user", "a")), {})] == ["user"]


@given(
    st.sampled_from(["anthropic", "openai", "ollama", "x"]),
    st.sampled_from(["", *Dialect]),
    anything,
    anything,
)
def test_no_json_makes_it_fail(provider: str, dialect: str, request_body: object, message: object) -> None:
    for node in build_chain(provider, dialect, request_body, {"message": message}):
        assert len(node.hash) == 64


def test_a_hostile_turn_costs_linear_time() -> None:
    deep: object = {}
    for _ in range(DEPTH):
        deep = {"a": deep}
    many = [{"type": "text", "text": "<session>"}, {"type": "tool_use", "input": {"a": 1}}] * 50_000
    request = {
        "messages": [
            {"role": "user", "content": many},
            {"role": "user", "content": "<session>" * 100_000},
            {"role": "assistant", "content": [{"type": "tool_use", "input": deep}]},
        ]
    }
    began = time.process_time()
    assert len(build_chain("anthropic", "", request, ANSWER)) == 4
    assert time.process_time() - began < 30.0
