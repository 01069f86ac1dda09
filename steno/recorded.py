"""A recorded exchange: read from files, and reduced as a live one would be.

    case folder | bare file  →  Recorded  →  turn's view | excluded | error

What it is (provider, dialect, turn or not) comes from the request's path and host and,
where those leave it open, from its body: by the same classification, in the same order
of gates, as in the sidecar. Only an answer with an error status is always shown.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from capture import jsontext
from capture.canonical import ViewFacts, view
from capture.classify import Classification, Classifier, RequestHead, classify, settle
from capture.coding import CodingError, decode
from capture.dialects.fold import RequestFacts
from capture.dialects.members import as_int, as_mapping, as_text
from capture.estimate import estimate
from capture.http_error import error_turn
from capture.outcomes import Outcome
from capture.reduce import Reduced, ResponseFacts, ResponseReducer, Undecodable
from capture.requests import read
from capture.routes import Kind
from capture.turn import Dialect, Ending, Refused

META: Final = "meta.json"

_OK: Final = 200
_CLASSIFIER: Final = Classifier()
_CHUNK_BYTES: Final = 64 * 1024

_TYPE_OF_SUFFIX: Final = {
    ".sse": "text/event-stream",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".eventstream": "application/vnd.amazon.eventstream",
}


class UnreadableError(Exception):
    """An input could not be read; the text says what is missing or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One exchange. Bodies are as recorded: ``content_encoding`` is still to be undone on
    the response; the request has none. ``status`` is the HTTP status.
    """

    path: str
    host: str = ""
    status: int = _OK
    content_type: str = ""
    content_encoding: str = ""
    request: bytes = b""
    response: bytes


def read_case(folder: Path) -> Recorded:
    """Read a folder with ``meta.json``, ``request.json`` and ``response.*``. Raises UnreadableError."""
    meta = _meta(folder / META)
    response = _response_file(folder, as_text(meta.get("response_file")))
    request = folder / "request.json"
    status = as_int(meta.get("status"))
    return Recorded(
        path=as_text(meta.get("endpoint_path")),
        host=as_text(meta.get("host")),
        status=_OK if status is None else status,
        content_type=as_text(meta.get("response_content_type")) or type_of(response),
        request=_bytes(request) if request.exists() else b"",
        response=_bytes(response),
    )


def read_file(file: Path, given: Mapping[str, str], status: int, request: Path | None) -> Recorded:
    """Read a bare response body; ``given`` has what the file cannot say (``path``, ``host``,
    ``content_type``, ``content_encoding``). Raises UnreadableError.
    """
    if not given.get("path"):
        raise UnreadableError("a bare file needs --path, the path of its request (as /v1/messages)")
    return Recorded(
        path=given["path"],
        host=given.get("host", ""),
        status=status,
        content_type=given.get("content_type") or type_of(file),
        content_encoding=given.get("content_encoding", ""),
        request=_bytes(request) if request is not None else b"",
        response=_bytes(file),
    )


def type_of(file: Path) -> str:
    """The content type that a file's name suggests, or empty."""
    return _TYPE_OF_SUFFIX.get(file.suffix.lower(), "")


def _meta(file: Path) -> Mapping[str, object]:
    try:
        meta: object = json.loads(_bytes(file))
    except ValueError as error:
        raise UnreadableError(f"{file} is not JSON: {error}") from error
    members = as_mapping(meta)
    if members is None:
        raise UnreadableError(f"{file} is not a JSON object")
    return members


def _response_file(folder: Path, named: str) -> Path:
    if named:
        return folder / named
    found = sorted(folder.glob("response.*"))
    if len(found) != 1:
        raise UnreadableError(f"{folder} has {len(found)} files named response.*, not one")
    return found[0]


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnreadableError(f"{file} cannot be read: {error.strerror or error}") from error


# -- reduction -------------------------------------------------------------------


def shown(recorded: Recorded) -> dict[str, object]:
    """What there is to show: one of the members ``turn``, ``excluded`` and ``error``.

    ``turn`` is the canonical view; beside its members stands ``estimate`` where the
    provider sent no usage. ``excluded`` is an outcome's name, ``error`` begins with one.
    """
    body = _request_value(recorded.request)
    found = _classified(recorded, body)
    if found.kind is not Kind.TURN:
        return {"excluded": Outcome.NON_TURN_REQUEST.value}
    if not recorded.response and recorded.status == _OK:
        return {"excluded": Outcome.EMPTY_RESPONSE.value}
    if found.dialect is None:
        return {"excluded": Outcome.UNKNOWN_PROVIDER.value}
    return _turn(recorded, found, found.dialect, body)


def _classified(recorded: Recorded, body: object) -> Classification:
    head = RequestHead("POST", recorded.host, recorded.path)
    return settle(classify(head, _CLASSIFIER), body)


def _turn(recorded: Recorded, found: Classification, dialect: Dialect, body: object) -> dict[str, object]:
    turn, streamed = _reduced(recorded, found, dialect)
    if isinstance(turn, Undecodable):
        return {"error": f"{Outcome.RESPONSE_DECODE.value}: {turn.reason}"}
    if isinstance(turn, Refused):
        return {"error": f"{Outcome.REDUCER_ERROR.value}: {turn.reason}"}
    request = read(dialect, body)
    facts = ViewFacts(
        provider=found.provider,
        endpoint=found.endpoint,
        stream=streamed or found.path_streams or request.stream is True,
        request_model=request.model or found.path_model,
    )
    rendered = view(turn, facts)
    guess = estimate(request, turn)
    if guess is not None:
        rendered["estimate"] = asdict(guess)
    return {"turn": rendered}


def _reduced(recorded: Recorded, found: Classification, dialect: Dialect) -> tuple[Reduced, bool]:
    """The reduction, and whether the answer was framed as a stream."""
    if recorded.status != _OK:
        try:
            body, _ = decode(recorded.content_encoding, recorded.response)
        except CodingError as error:
            return Undecodable(str(error)), False
        return error_turn(dialect, recorded.status, body, {}), False
    reducer = ResponseReducer(
        dialect,
        RequestFacts(path=recorded.path, model=found.path_model),
        ResponseFacts(content_type=recorded.content_type, content_encoding=recorded.content_encoding),
    )
    for start in range(0, len(recorded.response), _CHUNK_BYTES):
        reducer.feed(recorded.response[start : start + _CHUNK_BYTES])
    return reducer.finish(Ending.COMPLETE), reducer.is_stream


def _request_value(body: bytes) -> object:
    """The request's JSON; None where there is none."""
    try:
        return jsontext.decode(body)
    except jsontext.JsonError:
        return cast("object", None)
