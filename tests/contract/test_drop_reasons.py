"""The drop-reason corpus: names, classes, and the gates that are pure functions."""

import json
from pathlib import Path

import pytest

from capture.classify import Classifier, RequestHead, classify
from capture.outcomes import Outcome, Owner
from capture.routes import Kind
from tests.paths import CORPORA, needs_shared
from tests.unit.extproc.playbook import ending, request, request_headers, response, response_headers

CASES = sorted((CORPORA / "drop-reason" / "cases").glob("*.json"))

# Paths that the reference takes for no turn, because it knows only its own; they are turns
# to us (or the reverse), for the reason given.
TURNS_TO_US: dict[str, str] = {}


@needs_shared
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_every_reason_of_the_contract_is_an_outcome_with_its_owner(case: Path) -> None:
    vector = json.loads(case.read_text())
    owner = Owner.POLICY if vector["class"] == "policy" else Owner.PLUMBING
    assert Outcome(vector["name"]).owner is owner


@needs_shared
def test_non_turn_requests_are_those_of_the_corpus() -> None:
    vector = json.loads((CORPORA / "drop-reason" / "cases" / "non_turn_request.json").read_text())
    for example in vector["examples"]:
        asked = example["request"]
        if asked["path"] in TURNS_TO_US:
            continue
        found = classify(RequestHead(asked["method"], "", asked["path"]), Classifier())
        assert (found.kind is not Kind.NON_TURN) == (example["expect"] == "eligible"), example


@needs_shared
def test_upstream_statuses_pass_as_the_corpus_says() -> None:
    vector = json.loads((CORPORA / "drop-reason" / "cases" / "upstream_status.json").read_text())
    for example in vector["examples"]:
        status = str(example["response"]["status"])
        made = ending(request_headers(), request(), response_headers(status), response())
        assert (made is Outcome.UPSTREAM_STATUS) == (example["expect"] == "dropped"), example


def test_the_corpus_is_there_when_shared_is() -> None:
    """An empty parametrisation would pass silently."""
    assert not CORPORA.is_dir() or len(CASES) == 15
