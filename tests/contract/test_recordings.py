"""The recorded session's hashes: 17 Anthropic turns whose main chain is one prefix chain.

Sixteen request bodies are left out of the corpus; of those turns the response's node
is hashed with the parent that is told. The request that is there is hashed whole.
"""

import base64
import json
from typing import Any

import pytest

from capture import jsontext
from capture.merkle import build_chain, canonical_node, node_hash
from tests.paths import CORPORA, needs_shared

pytestmark = needs_shared

Recording = dict[str, Any]


def recordings() -> list[Recording]:
    path = CORPORA / "recordings-expected.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(recording: Recording) -> str:
    return str(recording["case"]).rpartition("-")[2]


RECORDINGS = recordings()


def request_of(recording: Recording) -> Recording:
    request: Recording = json.loads((CORPORA / "recordings" / recording["case"] / "request.json").read_text())
    return request


@pytest.mark.parametrize("recording", RECORDINGS, ids=named)
def test_a_recorded_response_hashes_to_its_node(recording: Recording) -> None:
    message = recording["reduced_response"]["message"]
    node = recording["nodes"][-1]
    parent = node["parent_hash"]
    assert node_hash(parent, message["role"], message["content"]) == node["hash"] == recording["hashes"][-1]
    assert len(canonical_node(parent, message["role"], message["content"])) == node["canonical_len"]


def test_the_recorded_request_gives_the_whole_chain() -> None:
    (recording,) = (r for r in RECORDINGS if not request_of(r).get("body_omitted"))
    body = jsontext.decode(base64.b64decode(request_of(recording)["body_b64"]))
    nodes = build_chain("anthropic", "", body, recording["reduced_response"])
    assert [node.hash for node in nodes] == recording["hashes"]
    assert [node.parent for node in nodes] == [node.get("parent_hash", "") for node in recording["nodes"]]


def test_all_seventeen_are_there() -> None:
    assert len(RECORDINGS) == 17
