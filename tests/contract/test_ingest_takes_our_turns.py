"""No answer that a provider gave is unprocessable to our ingest when our own sidecar posts it."""

from pathlib import Path

import msgspec
import pytest

from capture.canonical import ViewFacts, view
from capture.turn import Turn
from capture.wire_response import reduced_response
from ingest.access import OPEN
from ingest.intake import Posted, Prepared, Stamp, prepare
from tests.contract.test_corpus import case_of, named, turns
from tests.paths import needs_shared

pytestmark = needs_shared


@pytest.mark.parametrize("folder", turns(), ids=named)
def test_every_recorded_exchange_is_taken(folder: Path) -> None:
    """Also those without content: all tokens went into reasoning, the prompt was blocked, the call failed.

    The requests are not at issue here: of Gemini, any object is one.
    """
    case = case_of(folder)
    turn = case.reduce()
    assert isinstance(turn, Turn)
    facts = ViewFacts(
        provider="", endpoint="", stream=bool(case.meta["stream"]), request_model=case.request_model
    )
    envelope = {
        "provider": "gemini",
        "request": case.request,
        "response": reduced_response(turn, reduced_at="2026-01-01T00:00:00Z"),
        "meta": {"partial": turn.partial, "canonical": view(turn, facts)},
    }
    taken = prepare(Posted(body=msgspec.json.encode(envelope)), OPEN, "", Stamp(0, bytes(10)))
    assert isinstance(taken, Prepared)
    assert taken.turn.reason == ""
