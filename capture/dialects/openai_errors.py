"""The shapes in which the OpenAI family reports an error where an answer was expected.

``{"error": {…}}`` (OpenAI and most), ``{"error": "…", "code": "…"}`` (xAI),
``{"object": "error", …}`` (Mistral, vLLM), ``{"detail": …}`` (FastAPI servers),
``{"error_code", "message"}`` (Databricks), ``{"error": "…", "error_type": "…"}`` (TGI).
"""

from capture.dialects.json_text import text_of
from capture.dialects.members import as_list, as_mapping, as_text
from capture.turn import JsonObject, ProviderError


def error_in(body: JsonObject) -> JsonObject | str | None:
    """The error that a body or an event carries instead of (or beside) an answer, or None."""
    error = body.get("error")
    if isinstance(error, str) and error:
        return body
    if error:
        listed = as_list(error)  # Cloudflare's gateway
        return as_mapping(listed[0] if listed else error) or text_of(error)
    if body.get("object") == "error" or "error_code" in body:
        return body
    if "detail" in body and "choices" not in body:
        return body
    return None


def provider_error(error: JsonObject | str, where: str) -> ProviderError:
    """Name the error. ``where`` is ``stream``, or ``http`` for an answer that is an error."""
    if isinstance(error, str):
        return ProviderError(status=200, type=None, message=error, where=where)
    return ProviderError(status=200, type=_type(error), message=_message(error), where=where)


def _type(error: JsonObject) -> str | None:
    for name in ("type", "status", "error_type", "code", "error_code"):
        word = as_text(error.get(name))
        if word and not word.isdigit():
            return word
    return None


def _message(error: JsonObject) -> str:
    for name in ("message", "error", "detail"):
        text = as_text(error.get(name))
        if text:
            return text
    return text_of(error)
