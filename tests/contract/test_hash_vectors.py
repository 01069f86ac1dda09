"""The contract's hash vectors: bytes hashed, hashes, and whole chains."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from capture.merkle import build_chain, canonical_node, node_hash
from tests.paths import CORPORA, needs_shared

pytestmark = needs_shared

Vector = dict[str, Any]

BETTER_THAN_THE_REFERENCE = {
    "content-duplicate-keys": "the reference ends its process; ours: the last member wins",
    "content-lone-surrogate": "the reference ends its process; ours: U+FFFD stands for the surrogate",
}
"""Deliberate differences: ours has a hash where the reference has none."""


def vectors(kind: str) -> Iterator[Vector]:
    path = CORPORA / "hash-vectors.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return (vector for line in lines if (vector := json.loads(line))["kind"] == kind)


def named(vector: Vector) -> str:
    return str(vector["name"])


def blocks(bucket: Mapping[str, Any]) -> list[Mapping[str, object]]:
    return cast("list[Mapping[str, object]]", bucket["content"] or [])


BUCKETS = list(vectors("bucket"))
REDUCTIONS = [vector for vector in vectors("reduction") if "reduced_response" in vector]


@pytest.mark.parametrize("vector", [v for v in BUCKETS if "error" not in v], ids=named)
def test_a_bucket_gives_the_bytes_and_the_hash_of_the_contract(vector: Vector) -> None:
    bucket = vector["bucket"]
    canonical = canonical_node(vector["parent"], bucket["role"], blocks(bucket))
    assert canonical.decode() == vector["canonical"]
    assert canonical == base64.b64decode(vector["canonical_b64"])
    assert node_hash(vector["parent"], bucket["role"], blocks(bucket)) == vector["hash"]


def test_what_the_reference_cannot_hash_is_exactly_the_listed_differences() -> None:
    assert {v["name"] for v in BUCKETS if "error" in v} == set(BETTER_THAN_THE_REFERENCE)


@pytest.mark.parametrize("vector", [v for v in BUCKETS if "error" in v], ids=named)
def test_a_bucket_that_the_reference_dies_of_has_a_hash(vector: Vector) -> None:
    bucket = vector["bucket"]
    content = {
        "content-duplicate-keys": {"a": 2},
        "content-lone-surrogate": {"a": "\ufffd"},
    }[vector["name"]]
    meant = [{"type": "x", "content": content}]
    assert node_hash("", bucket["role"], blocks(bucket)) == node_hash("", bucket["role"], meant)


@pytest.mark.parametrize("vector", [v for v in REDUCTIONS if "root_hash" in v], ids=named)
def test_a_reduced_response_gives_the_root_hash_of_the_contract(vector: Vector) -> None:
    message = vector["reduced_response"]["message"]  # as stored: before a chain rewrites custom tools
    assert canonical_node("", message["role"], blocks(message)).decode() == vector["root_canonical"]
    assert node_hash("", message["role"], blocks(message)) == vector["root_hash"]


@pytest.mark.parametrize("vector", [v for v in REDUCTIONS if "chain" in v], ids=named)
def test_a_turn_gives_the_chain_of_the_contract(vector: Vector) -> None:
    nodes = build_chain(vector["provider"], "", vector["request"], vector["reduced_response"])
    told = [
        {"hash": node.hash, "parent_hash": node.parent, "role": node.role, "on_spine": node.on_spine}
        for node in nodes
    ]
    wanted = [
        {
            "hash": node["hash"],
            "parent_hash": node.get("parent_hash", ""),
            "role": node["role"],
            "on_spine": node["on_spine"],
        }
        for node in vector["chain"]
    ]
    assert told == wanted
    lengths = [len(canonical_node(node.parent, node.role, node.blocks)) for node in nodes]
    assert lengths == [node["canonical_len"] for node in vector["chain"]]


def test_streamed_and_one_shot_forms_of_a_turn_have_one_hash() -> None:
    groups: dict[str, set[str]] = {}
    for vector in REDUCTIONS:
        if vector.get("group") in ONE_TURN_GROUPS:
            last = build_chain(vector["provider"], "", None, vector["reduced_response"])[-1]
            groups.setdefault(vector["group"], set()).add(last.hash)
    assert set(groups) == ONE_TURN_GROUPS
    assert {name for name, hashes in groups.items() if len(hashes) != 1} == set()


ONE_TURN_GROUPS = {
    "a-text",
    "a-tools",
    "a-thinking",
    "a-redacted",
    "a-websearch",
    "a-stopseq",
    "o-full",
    "o-custom",
}


def test_a_response_with_an_unpaired_surrogate_has_a_hash() -> None:
    (vector,) = [v for v in REDUCTIONS if "hash_error" in v]
    (node,) = build_chain(vector["provider"], "", None, vector["reduced_response"])
    assert "\ufffd" in canonical_node("", node.role, node.blocks).decode()


def test_every_vector_is_used() -> None:
    assert len(BUCKETS) == 84
    assert sum("root_hash" in v for v in REDUCTIONS) == 70
    assert len(REDUCTIONS) + sum("expect_error" in v for v in vectors("reduction")) == 76
