"""Which requests the contract's ingest parses (``wire.md`` §4)."""

import json
from typing import Any

import pytest

from capture.dialects.members import as_mapping
from capture.requests import check
from tests.paths import CORPORA, needs_shared


@pytest.mark.parametrize("provider", ["anthropic", "openai", "ollama", "gemini"])
@pytest.mark.parametrize("body", [None, {}])
def test_no_body_and_an_empty_object_parse(provider: str, body: object) -> None:
    assert check(provider, body) is None


@pytest.mark.parametrize("provider", ["anthropic", "openai", "ollama", "gemini"])
@pytest.mark.parametrize("body", ["text", [], 5, True])
def test_what_is_no_object_does_not_parse(provider: str, body: object) -> None:
    assert check(provider, body)


@pytest.mark.parametrize(
    "member",
    [
        {"model": 5},
        {"messages": {}},
        {"messages": ["hi"]},
        {"messages": [{"role": 1}]},
        {"system": 5},
        {"max_tokens": 1.0},
        {"max_tokens": 2**63},
        {"max_tokens": True},
        {"temperature": "hot"},
        {"top_p": "0.5"},
        {"top_k": 1.5},
        {"stop_sequences": "stop"},
        {"stop_sequences": [1]},
        {"stream": "true"},
        {"tools": {}},
    ],
)
def test_an_anthropic_member_of_a_wrong_type_does_not_parse(member: dict[str, object]) -> None:
    reason = check("anthropic", member)
    assert reason
    assert next(iter(member)) in reason


def test_null_stands_for_any_absent_member() -> None:
    members = [
        "model",
        "messages",
        "system",
        "max_tokens",
        "temperature",
        "stop_sequences",
        "stream",
        "tools",
    ]
    assert check("anthropic", dict.fromkeys(members)) is None
    assert check("anthropic", {"messages": [None], "temperature": 1, "unknown": object}) is None


@pytest.mark.parametrize(
    ("body", "parses"),
    [
        ({"input": "hi"}, True),
        ({"input": []}, True),
        ({"input": 5}, False),
        ({"input": {}}, False),
        ({"input": 5, "messages": None}, False),
        ({"input": None}, True),
        ({"input": 5, "messages": []}, True),
        ({"messages": "hi"}, False),
        ({"model": 1}, False),
        ({"model": 1, "input": ""}, False),
    ],
)
def test_the_members_tell_which_form_of_openai_is_checked(body: dict[str, object], parses: bool) -> None:
    assert (check("openai", body) is None) is parses


@pytest.mark.parametrize(
    ("body", "parses"),
    [
        ({"format": "json", "keep_alive": "5m", "options": {"seed": 1}}, True),
        ({"format": {"type": "object"}, "keep_alive": -1}, True),
        ({"format": 5}, False),
        ({"keep_alive": []}, False),
        ({"options": "fast"}, False),
    ],
)
def test_ollamas_own_forms_parse(body: dict[str, object], parses: bool) -> None:
    assert (check("ollama", body) is None) is parses


def ingest_vectors() -> list[dict[str, Any]]:
    path = CORPORA / "ingest-vectors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@needs_shared
def test_the_contracts_cases_parse_or_not_as_the_reference_says() -> None:
    parsed = refused = 0
    for vector in ingest_vectors():
        error = str(vector["expect"].get("observed_error"))
        if vector["path"] != "/v1/ingest" or vector["expect"]["status"] not in {202, 422}:
            continue
        turn = envelope(vector)
        if "request" not in turn or "unsupported provider" in error:
            continue
        refuses = "cannot parse request" in error
        assert (check(turn["provider"], turn["request"]) is not None) is refuses, vector["name"]
        parsed, refused = parsed + (not refuses), refused + refuses
    assert (parsed, refused) >= (30, 4)


def envelope(vector: dict[str, Any]) -> dict[str, Any]:
    try:
        turn = as_mapping(json.loads(vector.get("body") or "null")) or {}
    except ValueError:  # the vectors about broken envelopes
        turn = {}
    return {name.lower(): value for name, value in turn.items()}
