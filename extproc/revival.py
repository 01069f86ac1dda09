"""A quarantined turn, made again: after a fix of ours, or with its request as plain text.

    revive(body) → Record (to deliver) | str (why not)

The record has the turn's own id and time, so that ingest takes it once, whenever it comes.
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw

from capture import jsontext
from capture.classify import RequestHead
from capture.coding import CodingError, decode
from capture.dialects.fold import RequestFacts
from capture.envelope import read_envelope
from capture.outcomes import Outcome
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Ending
from extproc import quarantine
from extproc.assemble import TurnIdentity, assemble
from extproc.captured import OK, Captured
from extproc.policy import Policy
from extproc.quarantine import Kept, QuarantineError
from extproc.request_body import RequestBody
from ingest_client.payload import MarshalError, embed
from ingest_client.sink import Record

_HINT: Final = "--request-as-text sends it as a JSON string"


def revive(body: bytes, *, request_as_text: bool = False) -> Record | str:
    """The turn of a quarantine document, ready to be delivered; or one line that says why there is none.

    ``request_as_text``: a request that is not JSON is sent as a JSON string.
    An over-long turn is given back as it is: sending it is then a decision, and ingest's
    own limit (``ingest.max_body``) the judge.
    """
    try:
        kept = quarantine.read(body)
    except QuarantineError as error:
        return str(error)
    request = kept.request.data
    if request is None:
        return f"the request was no text and its {kept.request.withheld_bytes} bytes were not kept"
    if kept.payload is not UNSET:
        return _with_request(kept, kept.payload, request, request_as_text=request_as_text)
    return _assembled_again(kept, request, request_as_text=request_as_text)


def _with_request(kept: Kept, payload: Raw, request: bytes, *, request_as_text: bool) -> Record | str:
    """Put the request back into the turn that was kept without it."""
    try:
        embedded = embed(_decoded(kept, request))
    except (CodingError, MarshalError) as error:
        if not request_as_text:
            return f"{error}; {_HINT}"
        embedded = Raw(_as_text(request))
    members = msgspec.json.decode(payload, type=dict[str, Raw])
    members["request"] = embedded
    return Record(
        turn_id=kept.turn_id,
        tenant=kept.tenant,
        body=msgspec.json.encode(members),
        created_at_ns=kept.started_at_ns,
    )


def _decoded(kept: Kept, request: bytes) -> bytes:
    """The request without its coding, which this version may know. Raises CodingError."""
    if kept.quarantined is not Outcome.REQUEST_DECODE:
        return request
    decoded, _ = decode(kept.request_headers.get("content-encoding", ""), request)
    return decoded


def _assembled_again(kept: Kept, request: bytes, *, request_as_text: bool) -> Record | str:
    """Go the way of the exchange again, with what this version makes of it."""
    made = assemble(_captured(kept, request), TurnIdentity(kept.turn_id))
    if request_as_text and isinstance(made, Record) and made.quarantine is not None and not _is_json(request):
        plain = _captured(kept, _as_text(request), without="content-encoding")
        made = assemble(plain, TurnIdentity(kept.turn_id))
    if isinstance(made, Outcome):
        return f"it is no turn: {made.value}"
    if made.quarantine is None:
        return made
    hint = "" if request_as_text or _is_json(request) else f"; {_HINT}"
    return f"{made.quarantine.outcome.value}: {made.quarantine.reason}{hint}"


def _captured(kept: Kept, request: bytes, *, without: str = "") -> Captured:
    headers = {name: value for name, value in kept.request_headers.items() if name != without}
    head = RequestHead(method=kept.method, host=kept.host, path=kept.path, headers=headers)
    answer = (kept.response.data if kept.response is not None else None) or b""
    started, ended = quarantine.began_and_ended(kept)
    body = RequestBody(len(request))
    body.append(request)
    return Captured(
        policy=Policy(tenant=kept.tenant, errors=True, quarantine_raw=kept.raw),
        head=head,
        classification=kept.classification,
        envelope=read_envelope(headers),
        started=started,
        request=body,
        response_headers=kept.response_headers,
        status=kept.status,
        response_bytes=len(answer),
        reducer=_reducer(kept, answer) if kept.status == OK else None,
        error_body=bytearray(b"" if kept.status == OK else answer),
        request_ended=True,
        ending=Ending.COMPLETE,
        ended=ended,
    )


def _reducer(kept: Kept, answer: bytes) -> ResponseReducer | None:
    """The answer is kept without its coding, so the reducer hears of none."""
    if kept.classification.dialect is None:
        return None
    reducer = ResponseReducer(
        kept.classification.dialect,
        RequestFacts(path=kept.path, model=kept.classification.path_model),
        ResponseFacts(content_type=kept.response_headers.get("content-type", "")),
    )
    reducer.feed(answer)
    return reducer


def _as_text(request: bytes) -> bytes:
    return msgspec.json.encode(request.decode("utf-8", "replace"))


def _is_json(request: bytes) -> bool:
    try:
        jsontext.decode(request)
    except jsontext.JsonError:
        return False
    return True
