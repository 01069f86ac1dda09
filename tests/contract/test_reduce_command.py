"""The recorded exchanges of the shared corpus through ``steno reduce``: classification included.

``test_corpus`` names each case's dialect itself and compares reductions. Here nothing is
given but what the command reads from the folder, as a live exchange would show it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from steno.cli import main
from steno.recorded import read_case, shown
from tests.contract.test_corpus import CASE_COUNT, CASES, case_of, differences, named
from tests.paths import CORPUS, needs_shared

pytestmark = needs_shared


def expected_exclusions() -> Iterator[Path]:
    return (folder for folder in CASES if case_of(folder).expected["canonical"] is None)


@pytest.mark.parametrize("folder", CASES, ids=named)
def test_a_recorded_exchange_is_classified_and_reduced_to_its_canonical_view(folder: Path) -> None:
    """Of every folder, or it is excluded as the corpus says."""
    case = case_of(folder)
    told = shown(read_case(folder))
    if case.expected["canonical"] is None:
        assert told == {"excluded": "non_turn_request"}
    else:
        assert list(told) == ["turn"]
        assert list(differences(case, cast("dict[str, Any]", told["turn"]))) == []


def test_the_command_tells_every_case_of_the_corpus_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """One call, one JSON line each, sorted, and nothing on stderr."""
    assert main(["reduce", str(CORPUS)]) == 0
    written = capfdbinary.readouterr()
    told = [json.loads(line) for line in written.out.splitlines()]
    assert [line["case"] for line in told] == [str(folder) for folder in CASES]
    assert len(told) == CASE_COUNT
    excluded = [line["case"] for line in told if "excluded" in line]
    assert excluded == [str(folder) for folder in expected_exclusions()]
    assert written.err == b""
    assert [line for line in told if "error" in line] == []
