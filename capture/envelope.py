"""Who made a call, as its client says in ``x-tapes-*`` headers (``contracts/wire.md`` §6, §9).

Rules that hold for every value: the first occurrence of a header wins; a malformed
percent escape keeps the raw text; a decoded value with a control character is
empty; metadata that is not strict unpadded base64url of a JSON object is dropped.
None of it is fatal.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import unquote

from capture import jsontext
from capture.turn import JsonObject

PREFIX: Final = "x-tapes-"
OWN_PREFIX: Final = "x-steno-"

_MALFORMED_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The session block. ``harness_id`` is ``unknown`` when the client named none."""

    org_id: str = ""
    auth_subject: str = ""
    harness_id: str = "unknown"
    harness_session_id: str = ""
    harness_version: str = ""
    cwd: str = ""
    name: str = ""
    parent_harness_session_id: str = ""
    harness_metadata: JsonObject = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Everything the request headers say about the caller. ``session`` is None when no
    ``x-tapes-*`` header came, whatever the identity headers say.
    """

    agent_name: str
    session: Session | None
    thread_id: str
    request_id: str


def read_envelope(headers: Mapping[str, str]) -> Envelope:
    """Read the envelope from request headers (names in lower case, first occurrence)."""
    given = headers.get
    return Envelope(
        agent_name=given("x-tapes-agent-name", ""),
        session=read_session(headers) if any(name.startswith(PREFIX) for name in headers) else None,
        thread_id=_thread_id(headers),
        request_id=given("x-request-id", ""),
    )


def is_internal(name: str) -> bool:
    """True for headers that are meant for capture and must not reach the provider."""
    lowered = name.lower()
    return lowered.startswith((PREFIX, OWN_PREFIX))


def read_session(headers: Mapping[str, str]) -> Session:
    """Read the session block from request headers (names in lower case, first occurrence)."""
    given = headers.get
    return Session(
        org_id=given("x-paper-auth-org-id", ""),
        auth_subject=given("x-paper-auth-subject", ""),
        harness_id=given("x-tapes-harness-id", "") or "unknown",
        harness_session_id=given("x-tapes-harness-session-id", ""),
        harness_version=given("x-tapes-harness-version", ""),
        cwd=_percent_decoded(given("x-tapes-cwd", "")),
        name=_percent_decoded(given("x-tapes-session-name", "")),
        parent_harness_session_id=given("x-tapes-parent-harness-session-id", ""),
        harness_metadata=_metadata(given("x-tapes-harness-metadata", "")),
    )


def _thread_id(headers: Mapping[str, str]) -> str:
    """A sub-thread's id, or empty for the main thread (``behaviour.md`` §2)."""
    agent = headers.get("x-claude-code-agent-id", "")
    if agent:
        return agent
    thread, session = headers.get("thread-id", ""), headers.get("session-id", "")
    return thread if thread and session and thread != session else ""


def _percent_decoded(value: str) -> str:
    """Undo path-segment escapes (``+`` stays ``+``)."""
    if not _MALFORMED_ESCAPE.search(value):
        value = unquote(value, errors="replace")
    return "" if _CONTROL.search(value) else value


def _metadata(value: str) -> JsonObject:
    if not _BASE64URL.fullmatch(value) or len(value) % 4 == 1:
        return {}
    try:
        decoded = jsontext.decode(base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True))
    except (jsontext.JsonError, binascii.Error):
        return {}
    return cast("JsonObject", decoded) if isinstance(decoded, dict) else {}
