"""The recorded exchanges of the shared corpus, each reduced to the view its ``canonical`` states.

``CANONICAL.md`` beside the corpus has the rules, and says what ``also_right`` and
``not_known`` mean. The dialect of a case is named by its ``api`` here; that the
exchange classifies to it, ``test_reduce_command`` shows.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import pytest

from capture.canonical import ViewFacts, view
from capture.dialects.fold import RequestFacts
from capture.http_error import error_turn
from capture.reduce import Reduced, ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from tests.paths import CORPUS, needs_shared

pytestmark = needs_shared

Json = dict[str, Any]

CASES: Final = sorted(path.parent for path in CORPUS.glob("*/*/meta.json"))
CASE_COUNT: Final = 221

DIALECT_OF_API: Final = {
    "messages": Dialect.ANTHROPIC_MESSAGES,
    "anthropic-rawPredict": Dialect.ANTHROPIC_MESSAGES,
    "chat": Dialect.OPENAI_CHAT,
    "completions-legacy": Dialect.OPENAI_COMPLETIONS,
    "responses": Dialect.OPENAI_RESPONSES,
    "generateContent": Dialect.GEMINI,
    "streamGenerateContent": Dialect.GEMINI,
    "converse": Dialect.BEDROCK_CONVERSE,
    "converse-stream": Dialect.BEDROCK_CONVERSE,
    "invoke": Dialect.BEDROCK_INVOKE,
    "invoke-stream": Dialect.BEDROCK_INVOKE,
    "v1-chat": Dialect.COHERE_V1,
    "v1-generate": Dialect.COHERE_V1,
    "v2-chat": Dialect.COHERE_V2,
}
OLLAMA_DIALECT_OF_API: Final = {"chat": Dialect.OLLAMA_CHAT, "generate": Dialect.OLLAMA_GENERATE}


class Case:
    """One folder of the corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = _json(folder / "meta.json")
        self.expected = _json(folder / "expected.json")
        self.body = (folder / self.meta["response_file"]).read_bytes()
        self.request = _json(folder / "request.json")

    @property
    def dialect(self) -> Dialect | None:
        """None where there is no turn."""
        table = OLLAMA_DIALECT_OF_API if self.meta["provider"] == "ollama" else DIALECT_OF_API
        return table.get(self.meta["api"])

    @property
    def request_model(self) -> str:
        """The model that the request's body names."""
        return str(self.request.get("model") or "")

    @property
    def is_stream(self) -> bool:
        """Whether the response is one, and no error document instead."""
        return self.meta["status"] == 200 and bool(self.meta["stream"])

    def reduce(self, chunk_bytes: int = 1 << 30, end: int | None = None) -> Reduced:
        """The turn of the response up to ``end``, fed in pieces of ``chunk_bytes``."""
        dialect = self.dialect
        assert dialect is not None
        if self.meta["status"] != 200:
            return error_turn(dialect, self.meta["status"], self.body, {})
        request = RequestFacts(path=self.meta["endpoint_path"], model=self.request_model)
        response = ResponseFacts(content_type=self.meta["response_content_type"])
        reducer = ResponseReducer(dialect, request, response)
        body = self.body[:end]
        for start in range(0, len(body), chunk_bytes):
            reducer.feed(body[start : start + chunk_bytes])
        return reducer.finish(Ending.COMPLETE)


def _json(path: Path) -> Json:
    text = path.read_text() if path.exists() else ""
    value: object = json.loads(text) if text.strip() else {}
    return cast("Json", value) if isinstance(value, dict) else {}


@cache
def case_of(folder: Path) -> Case:
    """Read each folder once."""
    return Case(folder)


def turns(dialects: set[Dialect] | None = None) -> list[Path]:
    """The folders of cases that hold a turn, of ``dialects`` or of all."""
    cases = [case_of(folder) for folder in CASES]
    return [
        case.folder
        for case in cases
        if case.expected["canonical"] is not None and (dialects is None or case.dialect in dialects)
    ]


def streams() -> list[Path]:
    """The folders of cases whose response is a stream."""
    return [folder for folder in turns() if case_of(folder).is_stream]


def named(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def differences(case: Case, shown: Json) -> Iterator[str]:
    """The members of ``canonical`` that the view contradicts."""
    expected = case.expected
    unknown = set(cast("list[str]", expected.get("not_known") or []))
    also_right = cast("dict[str, list[Any]]", expected.get("also_right") or {})
    for name, wanted in expected["canonical"].items():
        if name in unknown:
            continue
        yield from _compare(name, wanted, shown.get(name), also_right)


def _compare(path: str, wanted: object, told: object, also_right: dict[str, list[Any]]) -> Iterator[str]:
    if told == wanted and type(told) is type(wanted):
        return
    if any(_is_right(other, wanted, told) for other in also_right.get(path, ())):
        return
    if path in {"usage", "provider_error"} and isinstance(wanted, dict) and isinstance(told, dict):
        shown = cast("Json", told)
        for name, value in cast("Json", wanted).items():
            yield from _compare(f"{path}.{name}", value, shown.get(name), also_right)
        return
    yield f"{path}: wanted {wanted!r}, got {told!r}"


def _is_right(other: object, wanted: object, told: object) -> bool:
    if other == "*":
        return True
    if other == "json" and isinstance(told, str) and isinstance(wanted, str):
        return bool(json.loads(told) == json.loads(wanted))
    return other == told


@pytest.mark.parametrize("folder", turns(), ids=named)
def test_a_recorded_exchange_reduces_to_its_canonical_view(folder: Path) -> None:
    """Every member of ``canonical`` is told, but those that no SDK knows."""
    case = case_of(folder)
    turn = case.reduce()
    assert isinstance(turn, Turn), turn
    facts = ViewFacts(
        provider="", endpoint="", stream=bool(case.meta["stream"]), request_model=case.request_model
    )
    assert list(differences(case, view(turn, facts))) == []


@pytest.mark.parametrize("chunk_bytes", [1000, 16_384])
@pytest.mark.parametrize("folder", turns(), ids=named)
def test_a_recorded_exchange_reduces_alike_in_pieces(folder: Path, chunk_bytes: int) -> None:
    """The chunks in which a response arrives leave no trace in its turn."""
    case = case_of(folder)
    assert case.reduce(chunk_bytes) == case.reduce()


CUTS: Final = 12


@pytest.mark.parametrize("folder", streams(), ids=named)
def test_a_recorded_stream_cut_anywhere_tells_a_prefix(folder: Path) -> None:
    """Of every choice's text and thinking: nothing is told twice, nothing is made up."""
    case = case_of(folder)
    whole = case.reduce()
    assert isinstance(whole, Turn)
    told = {choice.index: choice for choice in whole.choices}
    for cut in range(1, CUTS):
        turn = case.reduce(end=len(case.body) * cut // CUTS)
        assert isinstance(turn, Turn)
        for choice in turn.choices:
            assert told[choice.index].text.startswith(choice.text)
            assert told[choice.index].thinking.startswith(choice.thinking)


def test_every_turn_of_the_corpus_has_a_dialect() -> None:
    """So that no case escapes the comparison."""
    assert {named(folder) for folder in turns() if case_of(folder).dialect is None} == set()


def test_the_corpus_is_whole() -> None:
    """A case that vanishes would pass unseen."""
    assert len(CASES) == CASE_COUNT
