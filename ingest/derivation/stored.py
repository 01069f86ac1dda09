"""The members of a stored turn, decoded: under their exact names, however their case was written.

Intake matches names without case (``contracts/wire.md`` §1) and stores what was sent; what it read as
the answer's text must be read so again here. Only members that ingest knows are renamed.
"""

from collections.abc import Mapping
from typing import Final, cast

from msgspec import Struct

from capture import jsontext
from ingest.envelope import MetaFacts, Reduced, ReducedBlock, ReducedCounts, ReducedMessage, SessionFacts
from ingest.members import cased

JsonObject = Mapping[str, object]


def _names(struct: type[Struct], *more: str) -> frozenset[str]:
    return frozenset((*struct.__struct_fields__, *more))


_RESPONSE: Final = _names(Reduced)
_MESSAGE: Final = _names(ReducedMessage)
_BLOCK: Final = _names(ReducedBlock)
_USAGE: Final = _names(ReducedCounts, "reasoning_tokens")
_META: Final = _names(MetaFacts, "canonical", "diagnostics")
_SESSION: Final = _names(SessionFacts)


def as_object(text: bytes) -> JsonObject:
    """A JSON object, or an empty one when there is none. Raises JsonError for what cannot be read."""
    value = jsontext.decode(text) if text else None
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def meta_of(text: bytes) -> JsonObject:
    """The meta object. Raises JsonError."""
    return cased(as_object(text), _META)


def session_of(text: bytes) -> JsonObject:
    """The session envelope. Raises JsonError."""
    return cased(as_object(text), _SESSION)


def response_of(text: bytes) -> JsonObject:
    """The reduced response, with its message, blocks and usage. Raises JsonError."""
    response = cased(as_object(text), _RESPONSE)
    message, usage = response.get("message"), response.get("usage")
    if isinstance(message, dict):
        response = {**response, "message": _message(cast("JsonObject", message))}
    if isinstance(usage, dict):
        response = {**response, "usage": cased(cast("JsonObject", usage), _USAGE)}
    return response


def _message(sent: JsonObject) -> JsonObject:
    message = cased(sent, _MESSAGE)
    content = message.get("content")
    if not isinstance(content, list):
        return message
    blocks = cast("list[object]", content)
    return {**message, "content": [_block(block) for block in blocks]}


def _block(block: object) -> object:
    return cased(cast("JsonObject", block), _BLOCK) if isinstance(block, dict) else block
