"""The TurnPayload: the wire contract between a sidecar and an ingest service.

Members, defaults and order are those of ``contracts/wire.md`` §2, §3, §5 and §6;
what is ours beyond the contract rides in ``meta`` (unknown members are kept by the
peer). ``omit_defaults`` is the contract's "left out when empty".
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

MAX_BODY_BYTES: Final = 33_554_432 + 11_184_810 + 4_194_304
"""Largest body an ingest takes (``wire.md`` §1)."""


class Session(Struct, kw_only=True, omit_defaults=True):
    """Who made the call, from the client's ``x-tapes-*`` headers (``wire.md`` §6)."""

    org_id: str
    auth_subject: str
    harness_id: str
    harness_session_id: str = ""
    harness_version: str = ""
    cwd: str = ""
    name: str = ""
    parent_harness_session_id: str = ""
    harness_metadata: dict[str, object] = {}


class Meta(Struct, kw_only=True, omit_defaults=True):
    """Facts about the exchange (``wire.md`` §5), then ours.

    ``stream`` is ``"true"``, ``"false"`` or ``"unknown"``: a string in the contract.
    ``ts_request`` and ``captured_at`` are RFC 3339 times in UTC. ``partial``,
    ``interrupted`` and ``truncated`` are attributes of a turn, not outcomes.
    """

    request_id: str = ""
    content_type: str = ""
    thread_id: str = ""
    method: str = ""
    path: str = ""
    endpoint: str = ""
    model: str = ""
    model_family: str = ""
    stream: str = ""
    content_encoding: str = ""
    upstream_status: int = 0
    upstream_status_class: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    elapsed_seconds: float = 0.0
    ts_request: str = ""
    captured_at: str = ""
    # Ours.
    tenant: str = ""
    client_request_id: str = ""
    dialect: str = ""
    vendor: str = ""
    host: str = ""
    partial: bool = False
    interrupted: bool = False
    truncated: bool = False
    canonical: dict[str, object] | None = None


class TurnPayload(Struct, kw_only=True, omit_defaults=True):
    """The body of ``POST /v1/ingest``.

    ``request`` is the client's request, content-decoded and validated, embedded as
    JSON without being built again; ``Raw(b"null")`` stands for no request body.
    ``response`` is the reduced response (``capture.wire_response``); null only in raw
    mode. ``session`` is left out when the client
    sent no ``x-tapes-*`` header.
    """

    provider: str
    agent_name: str = ""
    request: Raw
    response: dict[str, object] | None
    raw_response: str = ""
    raw_response_encoding: str = ""
    raw_response_withheld: bool = False
    meta: Meta
    session: Session | UnsetType = UNSET


class MarshalError(Exception):
    """The turn cannot be written as one JSON text. Never swallowed: it is quarantined."""


class TooLongError(MarshalError):
    """The text is longer than an ingest takes."""


_ENCODER: Final = msgspec.json.Encoder()


def embed(body: bytes) -> Raw:
    """A JSON body, validated and ready to be embedded as it is; no body is ``null``.

    Bytes that are not UTF-8 become U+FFFD (the contract's own repair). Raises
    :class:`MarshalError` when the body is not exactly one JSON value, is nested too
    deeply, or escapes an unpaired surrogate, which no strict reader takes.
    """
    if not body:
        return Raw(b"null")
    text = body if body.isascii() else body.decode("utf-8", "replace").encode()
    try:
        return msgspec.json.decode(text, type=Raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MarshalError(f"the request is not one JSON value that can be embedded: {error}") from error


def marshal(payload: TurnPayload, max_bytes: int | None = MAX_BODY_BYTES) -> bytes:
    """Write the payload as JSON. Raises :class:`MarshalError` with the reason.

    A body over ``max_bytes`` is refused (None: never): no ingest would take it. An empty
    embedded request would be written as nothing at all, and the POST would carry broken
    JSON (``Raw(b"")``): it is refused here, before anything is sent.
    """
    if not payload.request:
        raise MarshalError("the request is empty: embed null for a missing body")
    try:
        body = _ENCODER.encode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError) as error:
        raise MarshalError(str(error) or type(error).__name__) from error
    if max_bytes is not None and len(body) > max_bytes:
        raise TooLongError(f"the turn has {len(body)} bytes, more than the {max_bytes} an ingest takes")
    return body
