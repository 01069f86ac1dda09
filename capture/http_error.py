"""An answer with an error status, as a turn: empty, with the provider's error (CANONICAL.md)."""

from collections.abc import Mapping
from typing import Final

from capture import jsontext
from capture.dialects.members import as_list, as_mapping, as_text
from capture.turn import Choice, Dialect, JsonObject, ProviderError, Result, Turn, Usage, WireFacts

_AMAZON_ERROR: Final = "x-amzn-errortype"


def error_turn(dialect: Dialect, status: int, body: bytes, headers: Mapping[str, str]) -> Turn:
    """The turn of an HTTP error. ``body`` is the decoded answer; ``headers`` names are in
    lower case (Bedrock names the error type only there).
    """
    error = provider_error(status, body, headers)
    return Turn(
        dialect=dialect,
        model="",
        response_id=None,
        role="assistant",
        blocks=(),
        choices=(Choice(result=Result.ERROR),),
        usage=Usage(),
        partial=False,
        wire=WireFacts(
            done=True,
            stop_reason="error",
            extra={"error": {"type": error.type or "", "message": error.message}},
        ),
        provider_error=error,
    )


def provider_error(status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """The error that an HTTP answer carries, whatever the provider's shape for it."""
    try:
        document = jsontext.decode(body)
    except jsontext.JsonError:
        document = None
    listed = as_list(document)
    members = as_mapping(listed[0] if listed else document)
    header_type = headers.get(_AMAZON_ERROR, "").partition(":")[0] or None
    if members is None:
        return ProviderError(
            status=status, type=header_type, message=body.decode("utf-8", "replace"), where="http"
        )
    error = as_mapping(members.get("error")) or members
    return ProviderError(
        status=status,
        type=_error_type(error, members) or header_type,
        message=_message(error, members, body),
        where="http",
    )


def _error_type(error: JsonObject, members: JsonObject) -> str | None:
    """The error object's type, else Google's status, Cohere's error_type, or a code that is a word."""
    for word in (error.get("type"), error.get("status"), members.get("error_type"), error.get("code")):
        if isinstance(word, str) and word and not word.isdigit():
            return word
    return None


def _message(error: JsonObject, members: JsonObject, body: bytes) -> str:
    for text in (error.get("message"), members.get("message"), members.get("error"), members.get("detail")):
        if as_text(text):
            return as_text(text)
    return body.decode("utf-8", "replace")
