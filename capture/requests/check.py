"""Whether a request can be parsed as the contract's ingest does (``wire.md`` §4).

Stricter than reading: a reader takes what it can from any body, this refuses the body
whose members have the wrong type. Ollama documents a schema as ``format`` and a number
as ``keep_alive``; the contract would refuse both, this does not.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from capture.dialects.members import as_mapping

_Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Message(Struct):
    role: str | None = None
    content: object = None


class _AnthropicRequest(Struct):
    model: str | None = None
    messages: list[_Message | None] | None = None
    system: str | list[object] | None = None
    max_tokens: _Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: _Whole | None = None
    stop_sequences: list[str | None] | None = None
    stream: bool | None = None
    tools: list[object] | None = None


class _ChatRequest(Struct):
    model: str | None = None
    messages: list[_Message | None] | None = None
    stream: bool | None = None


class _ResponsesRequest(Struct):
    input: str | list[object]
    model: str | None = None
    stream: bool | None = None


class _OllamaRequest(Struct):
    model: str | None = None
    messages: list[_Message | None] | None = None
    stream: bool | None = None
    tools: list[object] | None = None
    options: dict[str, object] | None = None
    format: str | dict[str, object] | None = None
    keep_alive: str | float | None = None


_SHAPES: Final[Mapping[str, type]] = {"anthropic": _AnthropicRequest, "ollama": _OllamaRequest}


def check(provider: str, body: object) -> str | None:
    """Why a decoded request body cannot be parsed, or None when it can.

    JSON null parses everywhere. A provider that the contract does not name needs an
    object and no more.
    """
    if body is None:
        return None
    shape = _openai_shape(body) if provider == "openai" else _SHAPES.get(provider, dict[str, object])
    try:
        msgspec.convert(body, type=shape)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _openai_shape(body: object) -> type:
    members = as_mapping(body) or {}
    responses = members.get("input") is not None and members.get("messages") is None
    return _ResponsesRequest if responses else _ChatRequest
