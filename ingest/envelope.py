"""The envelope of ``POST /v1/ingest``: its members, typed as the contract types them.

Everything answered 400 is decided here (``contracts/wire.md`` §1, §2, §5, §6), and
nothing else: an envelope that decodes may still hold a turn that cannot be processed
(:mod:`ingest.judgement`), and is then stored all the same.

``request``, ``response``, ``meta`` and ``session`` are kept as the bytes that came.
"""

import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from capture import jsontext
from ingest.members import MembersError, elements, fold, split

_NULL: Final = b"null"
_INT64: Final = 1 << 63


class EnvelopeError(ValueError):
    """The body is no envelope (400); the text says what is wrong with it."""


class ReducedBlock(Struct, frozen=True, forbid_unknown_fields=True):
    """A content block, as far as ingest looks into it: ``content`` is for derivation."""

    type: str | None = None
    text: str | None = None
    image_url: str | None = None
    image_base64: str | None = None
    media_type: str | None = None
    tool_use_id: str | None = None
    tool_name: str | None = None
    tool_input: dict[str, object] | None = None
    tool_result_id: str | None = None
    tool_output: str | None = None
    is_error: bool | None = None
    thinking: str | None = None
    thinking_signature: str | None = None
    content: Raw | None = None


class ReducedMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """Role and blocks of the reduced response."""

    role: str | None = None
    content: list[ReducedBlock | None] | None = None


class ReducedCounts(Struct, frozen=True, forbid_unknown_fields=True):
    """The usage object; every count is an integer, written as one."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    total_duration_ns: int | None = None
    prompt_duration_ns: int | None = None


class Reduced(Struct, frozen=True, forbid_unknown_fields=True):
    """The reduced response, typed (``wire.md`` §3). Absent and null are the same.

    It and its parts know no other members, so that what decodes at once needs no look at the case of its
    names: what has others is folded first, which leaves them out.
    """

    model: str | None = None
    created_at: datetime | None = None
    message: ReducedMessage | None = None
    done: bool | None = None
    stop_reason: str | None = None
    usage: ReducedCounts | None = None
    extra: dict[str, object] | None = None
    raw_response: Raw | None = None


class MetaFacts(Struct, frozen=True):
    """The members of ``meta`` that ingest type-checks (``wire.md`` §5) or uses."""

    request_id: str | None = None
    content_type: str | None = None
    thread_id: str | None = None
    method: str | None = None
    path: str | None = None
    endpoint: str | None = None
    model: str | None = None
    model_family: str | None = None
    stream: str | None = None
    content_encoding: str | None = None
    upstream_status: int | None = None
    upstream_status_class: str | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    elapsed_seconds: float | None = None
    upstream_request_id: str | None = None
    ts_request: str | None = None
    captured_at: str | None = None
    tenant: str | None = None
    project: str | None = None
    client_request_id: str | None = None
    dialect: str | None = None
    partial: bool | None = None
    interrupted: bool | None = None
    truncated: bool | None = None


class SessionFacts(Struct, frozen=True):
    """The session envelope (``wire.md`` §6)."""

    org_id: str | None = None
    auth_subject: str | None = None
    harness_id: str | None = None
    harness_session_id: str | None = None
    harness_version: str | None = None
    cwd: str | None = None
    name: str | None = None
    parent_harness_session_id: str | None = None
    harness_metadata: dict[str, object] | None = None


class Envelope(Struct, frozen=True, kw_only=True):
    """A decoded envelope.

    ``request`` is empty when the member is missing (a null is ``b"null"``);
    ``response`` is empty when missing or null. ``session`` is None without the member.
    """

    provider: str
    agent_name: str
    request: bytes
    response: bytes
    reduced: Reduced
    raw_response: bytes
    raw_response_encoding: str
    raw_response_withheld: bool
    meta: bytes
    facts: MetaFacts
    session: bytes
    session_facts: SessionFacts | None


_MEMBERS: Final = (
    "provider",
    "agent_name",
    "request",
    "response",
    "raw_response",
    "raw_response_encoding",
    "raw_response_withheld",
    "meta",
    "session",
)
_STRING: Final = msgspec.json.Decoder(str | None)
_BOOL: Final = msgspec.json.Decoder(bool | None)
_REDUCED: Final = msgspec.json.Decoder(Reduced)
_READERS: Final[Mapping[type[Struct], msgspec.json.Decoder[Struct]]] = {
    struct: msgspec.json.Decoder(struct) for struct in (Reduced, MetaFacts, SessionFacts)
}
"""Made here and not at the first envelope: msgspec 0.22 readies a struct type when it is first decoded,
and a thread that meets a type which another one is about to ready brings the process down."""
_PARTS: Final[Mapping[type[Struct], Mapping[str, type[Struct]]]] = {
    Reduced: {"message": ReducedMessage, "usage": ReducedCounts},
    ReducedMessage: {"content": ReducedBlock},
}
"""The members that are objects, or lists of them, whose members' names match without case as well."""
_UNREAD: Final = frozenset(("raw_response", "content"))
"""Members of any type."""
T = TypeVar("T", bound=Struct)


def decode(body: bytes) -> Envelope:
    """Read one envelope. Raises :class:`EnvelopeError`, and nothing else."""
    try:
        members = {} if body.strip(b" \t\r\n") == _NULL else fold(split(body), _MEMBERS)
    except MembersError as error:
        raise EnvelopeError(str(error)) from error
    meta = _present(members, "meta")
    session = _present(members, "session")
    response = _present(members, "response")
    return Envelope(
        provider=text_member(members, "provider"),
        agent_name=text_member(members, "agent_name"),
        request=members.get("request", b""),
        response=response,
        reduced=read_reduced(response),
        raw_response=_base64(text_member(members, "raw_response")),
        raw_response_encoding=text_member(members, "raw_response_encoding"),
        raw_response_withheld=_flag(members, "raw_response_withheld"),
        meta=meta or b"{}",
        facts=_bounded(_typed(meta, MetaFacts, "meta"), "meta"),
        session=session,
        session_facts=session_facts(session) if session else None,
    )


def read_reduced(response: bytes) -> Reduced:
    """Read a reduced response. Raises :class:`EnvelopeError`."""
    if not response:
        return Reduced()
    try:
        return _REDUCED.decode(response)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _typed(response, Reduced, "response")


def session_facts(session: bytes) -> SessionFacts:
    """Read a session object and check its rules. Raises :class:`EnvelopeError`."""
    facts = _typed(session, SessionFacts, "session")
    if facts.parent_harness_session_id == "":
        raise EnvelopeError("session.parent_harness_session_id is present but empty: leave it out instead")
    return facts


def _present(members: dict[str, bytes], name: str) -> bytes:
    value = members.get(name, b"")
    return b"" if value == _NULL else value


def text_member(members: Mapping[str, bytes], name: str) -> str:
    """A string member; absent and null are empty. Raises :class:`EnvelopeError`."""
    raw = members.get(name)
    if raw is None:
        return ""
    try:
        return _STRING.decode(raw) or ""
    except (msgspec.MsgspecError, UnicodeError):
        value = _tolerant(raw, name)
        if isinstance(value, str):
            return value
        raise EnvelopeError(f"{name} must be a string") from None


def _flag(members: dict[str, bytes], name: str) -> bool:
    raw = members.get(name)
    if raw is None:
        return False
    try:
        return bool(_BOOL.decode(raw))
    except msgspec.MsgspecError as error:
        raise EnvelopeError(f"{name} must be a boolean") from error


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
    except ValueError as error:  # binascii.Error, and text outside ASCII
        raise EnvelopeError(f"raw_response is not standard base64 with padding: {error}") from error


def _tolerant(raw: bytes, name: str) -> object:
    try:
        return jsontext.decode(raw)
    except jsontext.JsonError as error:
        raise EnvelopeError(f"{name}: {error}") from error


def _typed(raw: bytes, struct: type[T], name: str) -> T:
    """``raw`` as ``struct``; absent is the empty one. Members match without case."""
    if not raw:
        return struct()
    try:
        return _convert(_cased(raw, struct, name), struct)
    except msgspec.ValidationError as error:
        raise EnvelopeError(f"{name}: {error}") from error


def _cased(raw: bytes, struct: type[Struct], name: str) -> bytes:
    """``raw`` with its members' names in the case of the contract."""
    try:
        members = split(raw)
    except MembersError as error:
        raise EnvelopeError(f"{name} must be an object: {error}") from error
    known = frozenset(struct.__struct_fields__)
    if struct in _PARTS:
        return _folded(members, struct)
    if not any(member not in known and member.lower() in known for member in members):
        return raw
    return _joined(fold(members, known))


def _folded(members: dict[str, bytes], struct: type[Struct]) -> bytes:
    """The members of ``struct`` that are read, and of its parts, under their exact names."""
    typed = {name for name in struct.__struct_fields__ if name not in _UNREAD or name in _parts(struct)}
    folded = fold(members, typed)
    return _joined({name: _part(value, _parts(struct).get(name)) for name, value in folded.items()})


def _parts(struct: type[Struct]) -> Mapping[str, type[Struct]]:
    return _PARTS.get(struct, {})


def _part(value: bytes, struct: type[Struct] | None) -> bytes:
    """A part with its names folded; what is of another type is left to be told so."""
    if struct is None:
        return value
    try:
        if not value.startswith(b"["):
            return _object(value, struct)
        return b"[" + b",".join(_object(element, struct) for element in elements(value)) + b"]"
    except MembersError:
        return value


def _object(value: bytes, struct: type[Struct]) -> bytes:
    return _folded(split(value), struct) if value.startswith(b"{") else value


def _joined(members: Mapping[str, bytes]) -> bytes:
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members.items()) + b"}"


def _convert(raw: bytes, struct: type[T]) -> T:
    try:
        return cast("T", _READERS[struct].decode(raw))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.convert(_tolerant(raw, struct.__name__), struct)


def _bounded(facts: MetaFacts, name: str) -> MetaFacts:
    for member in ("upstream_status", "request_bytes", "response_bytes"):
        value: int | None = getattr(facts, member)
        if value is not None and not -_INT64 <= value < _INT64:
            raise EnvelopeError(f"{name}.{member} is beyond 64 bits")
    return facts
