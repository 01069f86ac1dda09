"""Cohere's token counts and errors, alike in both versions of its API (CANONICAL.md).

``billed_units`` are what is charged for, not what was read or written: they are never
token counts. The tokens of images are counted apart from those of text.
"""

from collections.abc import Mapping
from dataclasses import replace

from capture.dialects.members import as_int, as_mapping
from capture.dialects.wire_usage import total_of
from capture.http_error import provider_error
from capture.turn import ProviderError, Usage


def usage_of(sent: Mapping[str, object] | None) -> Usage:
    """Normalise v2's ``usage`` or v1's ``meta``."""
    if not sent:
        return Usage()
    tokens = as_mapping(sent.get("tokens")) or {}
    given = as_int(tokens.get("input_tokens"))
    images = as_int(tokens.get("image_tokens"))
    prompt = given if images is None else images + (given or 0)
    generated = as_int(tokens.get("output_tokens"))
    return Usage(
        input_tokens=prompt,
        output_tokens=generated,
        total_tokens=total_of(None, prompt, generated),
        cache_read_tokens=as_int(sent.get("cached_tokens")),
        reasoning_tokens=as_int(tokens.get("reasoning_tokens")),
        raw=sent,
    )


def error_of(text: bytes, *, in_stream: bool) -> ProviderError:
    """The error that an event or a whole answer of status 200 carries."""
    where = "stream" if in_stream else "http"
    return replace(provider_error(200, text, {}), where=where)
