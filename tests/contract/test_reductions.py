"""The contract's reduction vectors: response bytes in, the reduced response out.

``README.md`` beside the vectors lists the texts that are not to be compared.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
import pytest

from capture.dialects.fold import RequestFacts
from capture.merkle import node_hash
from capture.reduce import Reduced, ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Refused, Turn
from capture.wire_response import reduced_response
from tests.paths import CORPORA, needs_shared

pytestmark = needs_shared

Vector = dict[str, Any]

VECTOR_COUNT: Final = 76
DIALECT_OF: Final = {"anthropic": Dialect.ANTHROPIC_MESSAGES, "openai": Dialect.OPENAI_RESPONSES}

ONE_TURN_GROUPS: Final = frozenset(
    {"a-text", "a-tools", "a-thinking", "a-redacted", "a-websearch", "a-stopseq", "o-full", "o-custom"}
)
"""Groups whose members are stream and one-shot forms of one turn."""


def vectors() -> Iterator[Vector]:
    path = CORPORA / "hash-vectors.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return (vector for line in lines if (vector := json.loads(line))["kind"] == "reduction")


VECTORS: Final = list(vectors())
REDUCED: Final = [vector for vector in VECTORS if "reduced_response" in vector]


def named(vector: Vector) -> str:
    return str(vector["name"])


def body_of(vector: Vector) -> bytes:
    """The response body: literal, or a template with a generated filling."""
    if "body" in vector:
        return str(vector["body"]).encode()
    return str(vector["body_template"]).replace("@@1MIB@@", "x" * 1_048_576).encode()


def reduce(vector: Vector, chunk_bytes: int = 1 << 30) -> Reduced:
    facts = ResponseFacts(content_type=vector["content_type"])
    reducer = ResponseReducer(DIALECT_OF[vector["provider"]], RequestFacts(), facts)
    body = body_of(vector)
    for start in range(0, len(body), chunk_bytes):
        reducer.feed(body[start : start + chunk_bytes])
    return reducer.finish(Ending.COMPLETE)


def rendered(turn: Turn) -> Vector:
    """As it goes over the wire, read back."""
    return cast("Vector", json.loads(msgspec.json.encode(reduced_response(turn))))


def comparable(response: Vector) -> Vector:
    """Without the texts that every implementation words for itself."""
    shown = cast("Vector", json.loads(json.dumps(response)))
    extra = cast("Vector", shown.get("extra", {}))
    if extra.get("error", {}).get("type") == "reducer_parse_error":
        extra["error"]["message"] = "…"
    for failure in extra.get("tool_input_parse_errors", ()):
        failure["error"] = "…"
    if "reducer_error" in extra and "partial" not in extra:  # a failure of the reader
        extra["reducer_error"] = "…"
    return shown


LONE_SURROGATE: Final = "o-lone-surrogate-raw"
"""A deliberate difference: the reference keeps an unpaired surrogate and cannot hash it;
ours stands U+FFFD in its place.
"""


def expected(vector: Vector) -> Vector:
    response = json.dumps(vector["reduced_response"])
    if vector["name"] == LONE_SURROGATE:
        response = response.replace("\\ud800", "\\ufffd")
    return comparable(json.loads(response))


@pytest.mark.parametrize("chunk_bytes", [1 << 30, 7])
@pytest.mark.parametrize("vector", REDUCED, ids=named)
def test_a_response_reduces_as_the_contract_says(vector: Vector, chunk_bytes: int) -> None:
    """Whole and in pieces; the clock's member is the renderer's to fill."""
    if chunk_bytes < len(body_of(vector)) and "body_template" in vector:
        chunk_bytes = 65_536
    turn = reduce(vector, chunk_bytes)
    assert isinstance(turn, Turn), turn
    assert comparable(rendered(turn)) == expected(vector)
    assert turn.wire.dated_by_clock == bool(vector.get("created_at_is_reduction_time"))


REFUSED: Final = [vector for vector in VECTORS if vector.get("expect_error")]

SNIFFED: Final = "a-empty-ct-sse-body"
"""A deliberate difference: the reference reads a stream without a content type as one JSON
value and drops the turn; recordings show such streams, and ours looks at the first bytes.
"""


def test_a_stream_without_a_content_type_is_still_read() -> None:
    """The listed difference is exactly that."""
    (vector,) = (vector for vector in REFUSED if vector["name"] == SNIFFED)
    turn = reduce(vector)
    assert isinstance(turn, Turn)
    assert not turn.partial


@pytest.mark.parametrize("vector", [v for v in REFUSED if v["name"] != SNIFFED], ids=named)
def test_a_body_that_the_contract_refuses_is_refused(vector: Vector) -> None:
    """As a value, with its reason."""
    refusal = reduce(vector)
    assert isinstance(refusal, Refused)
    assert refusal.reason


@pytest.mark.parametrize("vector", [v for v in REDUCED if "root_hash" in v], ids=named)
def test_a_reduction_has_the_hash_of_the_contract(vector: Vector) -> None:
    """From our own reduction, through the payload's JSON."""
    turn = reduce(vector)
    assert isinstance(turn, Turn)
    message = rendered(turn)["message"]
    assert node_hash("", message["role"], message["content"]) == vector["root_hash"]


def test_streamed_and_one_shot_forms_of_one_turn_have_one_hash() -> None:
    """Every group of forms is met, and gives one hash."""
    hashes: dict[str, set[str]] = {}
    for vector in REDUCED:
        if vector.get("group") in ONE_TURN_GROUPS:
            turn = reduce(vector)
            assert isinstance(turn, Turn)
            message = rendered(turn)["message"]
            found = node_hash("", message["role"], message["content"])
            hashes.setdefault(vector["group"], set()).add(found)
    assert {group: len(found) for group, found in hashes.items()} == dict.fromkeys(ONE_TURN_GROUPS, 1)


def test_every_vector_is_used() -> None:
    """A vector is either reduced or refused."""
    assert len(VECTORS) == VECTOR_COUNT
    assert len(REDUCED) + len(REFUSED) == VECTOR_COUNT
