"""Can the turn be processed? The 422 half of the contract, as pure functions.

Order and rules: ``contracts/wire.md`` §4 and §7 (provider, request, reduced response).
A turn that fails is kept all the same; its reason is part of the answer and of the row.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from capture import jsontext
from ingest.envelope import Envelope
from ingest.members import MembersError, fold, split


class _Message(Struct, frozen=True):
    role: str | None = None
    content: object = None


class _AnthropicRequest(Struct, frozen=True):
    model: str | None = None
    messages: list[_Message | None] | None = None
    system: str | list[object] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[object] | None = None


class _ChatRequest(Struct, frozen=True):
    model: str | None = None
    messages: list[_Message | None] | None = None
    stream: bool | None = None


class _ResponsesRequest(Struct, frozen=True):
    input: str | list[object]
    model: str | None = None
    stream: bool | None = None


class _OllamaRequest(Struct, frozen=True):
    model: str | None = None
    messages: list[_Message | None] | None = None
    stream: bool | None = None
    tools: list[object] | None = None
    options: dict[str, object] | None = None
    # format and keep_alive are unchecked: Ollama itself takes a schema and a number there.


_SHAPES: Final = (_AnthropicRequest, _ChatRequest, _ResponsesRequest, _OllamaRequest, dict[str, object])
_READERS: Final[Mapping[object, msgspec.json.Decoder[object]]] = {
    shape: msgspec.json.Decoder(shape | None) for shape in _SHAPES
}
"""Made once, for the reason that :mod:`ingest.envelope` gives for its own."""


def _check(request: bytes, shape: type[object]) -> None:
    """Raise msgspec.ValidationError or JsonError unless ``request`` has ``shape`` (or is null)."""
    try:
        _READERS[shape].decode(request)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        msgspec.convert(jsontext.decode(request), type=shape | None)


def _anthropic(request: bytes) -> None:
    _check(request, _AnthropicRequest)


def _openai(request: bytes) -> None:
    _check(request, _ResponsesRequest if is_responses_form(request) else _ChatRequest)


def is_responses_form(request: bytes) -> bool:
    """Whether an OpenAI request is of the Responses kind: ``input`` given, ``messages`` not."""
    try:
        members = split(request)
    except MembersError:
        return False
    return members.get("input", b"null") != b"null" and members.get("messages", b"null") == b"null"


def _ollama(request: bytes) -> None:
    _check(request, _OllamaRequest)


def _any_object(request: bytes) -> None:
    _check(request, dict[str, object])


PROVIDERS: Final[dict[str, Callable[[bytes], None]]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "ollama": _ollama,
    "gemini": _any_object,
    "bedrock": _any_object,
    "cohere": _any_object,
    "mistral": _openai,
}
"""Provider names of the wire (DESIGN §3.14) and the check of their requests. The
contract's reference knows the first three: a deliberate difference."""


def unprocessable(envelope: Envelope) -> str | None:
    """Why the turn cannot be processed, or None when it can."""
    check = PROVIDERS.get(envelope.provider)
    if check is None:
        return f'unsupported provider "{envelope.provider}" (supported: [{" ".join(PROVIDERS)}])'
    if not envelope.request:
        return "cannot parse request: the request member is missing (send null for no body)"
    try:
        check(envelope.request)
    except (msgspec.ValidationError, jsontext.JsonError) as error:
        return f"cannot parse request: {error}"
    return _unusable(envelope)


def _unusable(envelope: Envelope) -> str | None:
    """What the reduced response lacks, or None."""
    message = envelope.reduced.message
    if message is None or not message.role:
        return "invalid reduced response: missing response.message.role"
    if not message.content and not _may_be_empty(envelope):
        return "invalid reduced response: missing response.message.content"
    for index, block in enumerate(message.content or ()):
        if block is None or not block.type:
            return f"invalid reduced response: missing response.message.content[{index}].type"
    return None


def _may_be_empty(envelope: Envelope) -> bool:
    """Whether an answer without content says why it has none.

    One that was cut (``meta.partial``, ``interrupted``) may not have come to it. Of a whole one, whose tokens
    all went into reasoning, or whose prompt was blocked, the producer's own view (``meta.canonical``) tells.
    """
    if envelope.facts.interrupted or envelope.facts.partial:
        return True
    return fold(split(envelope.meta), ("canonical",)).get("canonical", b"").startswith(b"{")
