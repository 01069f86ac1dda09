"""What is kept of a turn that could not be made: one JSON document, to be read by a person and revived.

The format (version 1). Members at their default are left out.

    quarantined        the outcome: request_decode, response_decode, reducer_error or marshal_error
    version            1; a newer one is refused
    reason             one line for a person
    raw                true: the originals (``quarantine_raw``), as base64; else text, with what looks
                       like a credential replaced (``capture.redact.text``)
    turn_id, tenant    the turn's name and owner, which revival keeps
    started_at_ns, elapsed_ns, method, host, path, status, request_headers, response_headers
                       the exchange; credentials in headers and path are replaced always
    classification     whose exchange it was taken for
    request            {"text": …} | {"base64": …} | {"withheld_bytes": n}: of ``marshal_error`` without its
                       content coding, else as it came
    response           the same: the whole answer, without its content coding, where it was not a stream
    payload            where the answer could be reduced (``marshal_error``, ``request_decode``): the
                       whole turn as it would be sent, its request null

Withheld are bytes that are no text, unless raw: nobody could say what secrets they hold; and those
that no process could assemble, raw or not.
``extproc.revival`` makes a turn of it again.
"""

import base64
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from capture import jsontext, redact
from capture.classify import Classification
from capture.outcomes import Outcome
from extproc.captured import Captured, Instant

VERSION: Final = 1

_READABLE_SHARE: Final = 8
"""Bytes of which more than one character in so many is unreadable are no text."""


class QuarantineError(Exception):
    """The body is no quarantine document that this version can read; the message says why."""


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes of an exchange, in one of three forms."""

    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    withheld_bytes: int = 0

    @property
    def data(self) -> bytes | None:
        """The bytes; None when they were withheld."""
        if self.text is not UNSET:
            return self.text.encode()
        if self.base64 is not UNSET:
            return base64.b64decode(self.base64)
        return None


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document; the module says what each member is."""

    quarantined: Outcome
    version: int
    reason: str
    raw: bool = False
    turn_id: str
    tenant: str
    started_at_ns: int
    elapsed_ns: int = 0
    method: str = ""
    host: str = ""
    path: str = ""
    status: int | None = None
    request_headers: Mapping[str, str]
    response_headers: Mapping[str, str]
    classification: Classification
    request: Part
    response: Part | None = None
    payload: Raw | UnsetType = UNSET


def write(
    captured: Captured,
    turn_id: str,
    outcome: Outcome,
    reason: str,
    *,
    request: bytes | None = None,
    payload: bytes | None = None,
    withhold: bool = False,
) -> bytes:
    """The document. ``request``: without its coding, where that could be undone; ``payload``: the
    turn without its request, where the turn could be written. ``withhold``: no body, only its size: there
    is nobody to search it.
    """
    raw = captured.policy.quarantine_raw
    ended = captured.ended or captured.started
    kept = Kept(
        quarantined=outcome,
        version=VERSION,
        reason=redact.text(jsontext.scrub_text(reason)),
        raw=raw,
        turn_id=turn_id,
        tenant=captured.policy.tenant,
        started_at_ns=captured.started.wall_ns,
        elapsed_ns=ended.monotonic_ns - captured.started.monotonic_ns,
        method=jsontext.scrub_text(captured.head.method),
        host=jsontext.scrub_text(captured.head.host),
        path=jsontext.scrub_text(redact.path(captured.head.path)),
        status=captured.status,
        request_headers=_headers(captured.head.headers),
        response_headers=_headers(captured.response_headers),
        classification=captured.classification,
        request=Part(withheld_bytes=captured.request.kept_bytes)
        if withhold
        else _part(captured.request.joined() if request is None else request, raw=raw),
        response=_withheld_response(captured) if withhold else _response(captured, raw=raw),
        payload=UNSET if payload is None else Raw(payload if raw else _redacted(payload)),
    )
    return msgspec.json.encode(kept)


def read(body: bytes) -> Kept:
    """Read a document. Raises :class:`QuarantineError`."""
    try:
        kept = msgspec.json.decode(body, type=Kept)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise QuarantineError(f"this is no quarantined turn: {error}") from error
    if kept.version > VERSION:
        raise QuarantineError(f"version {kept.version} of the format is newer than this program's {VERSION}")
    return kept


def began_and_ended(kept: Kept) -> tuple[Instant, Instant]:
    """The exchange's times."""
    return (
        Instant(kept.started_at_ns, 0),
        Instant(kept.started_at_ns + kept.elapsed_ns, kept.elapsed_ns),
    )


def _response(captured: Captured, *, raw: bool) -> Part | None:
    answer = captured.reducer.document if captured.reducer is not None else bytes(captured.error_body)
    return _part(answer, raw=raw) if answer else None


def _withheld_response(captured: Captured) -> Part | None:
    reducer = captured.reducer
    size = len(captured.error_body) if reducer is None else 0 if reducer.is_stream else reducer.decoded_bytes
    return Part(withheld_bytes=size) if size else None


def _part(data: bytes, *, raw: bool) -> Part:
    if raw:
        return Part(base64=base64.b64encode(data).decode())
    text = data.decode("utf-8", "replace")
    if text.count("\N{REPLACEMENT CHARACTER}") * _READABLE_SHARE > len(text):
        return Part(withheld_bytes=len(data))
    return Part(text=redact.text(text))


def _redacted(payload: bytes) -> bytes:
    return redact.text(payload.decode()).encode()


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {
        jsontext.scrub_text(name): jsontext.scrub_text(value) for name, value in redact.headers(given).items()
    }
