"""How each dialect's requests are read: the counterpart of the dialects' own catalog.

A test asserts that every ``Dialect`` has its row.
"""

from collections.abc import Callable, Mapping
from typing import Final

from capture.dialects.members import as_mapping
from capture.requests import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
    prompts,
)
from capture.requests.request import Request
from capture.turn import Dialect, JsonObject

Reader = Callable[[JsonObject], Request]

CATALOG: Final[Mapping[Dialect, Reader]] = {
    Dialect.ANTHROPIC_MESSAGES: anthropic.read,
    Dialect.OPENAI_CHAT: openai_chat.read,
    Dialect.OPENAI_COMPLETIONS: prompts.read_completions,
    Dialect.OPENAI_RESPONSES: openai_responses.read,
    Dialect.GEMINI: gemini.read,
    Dialect.BEDROCK_CONVERSE: bedrock.read_converse,
    Dialect.BEDROCK_INVOKE: bedrock.read_invoke,
    Dialect.COHERE_V1: cohere.read_v1,
    Dialect.COHERE_V2: cohere.read_v2,
    Dialect.OLLAMA_CHAT: ollama.read_chat,
    Dialect.OLLAMA_GENERATE: ollama.read_generate,
}


def read(dialect: Dialect, body: object) -> Request:
    """Read a decoded request body. Never raises: what is no request says so in ``problem``.

    None (JSON null, the contract's sign for no body) is a request without messages.
    """
    if body is None:
        return Request()
    members = as_mapping(body)
    if members is None:
        return Request(problem=f"the request is a JSON {_KINDS.get(type(body), 'value')}, not an object")
    return CATALOG[dialect](members)


_KINDS: Final[Mapping[type, str]] = {
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
}


def dialect_of(provider: str, dialect: str, body: object) -> Dialect:
    """The dialect of a stored request: as named, else by provider and shape (``wire.md`` §4)."""
    if dialect in _NAMED:
        return Dialect(dialect)
    members = as_mapping(body) or {}
    shape = _BY_PROVIDER.get(provider, _by_shape)
    return shape(members)


_NAMED: Final = frozenset(Dialect)


def _openai(body: JsonObject) -> Dialect:
    if body.get("messages") is not None:
        return Dialect.OPENAI_CHAT
    if body.get("input") is not None:
        return Dialect.OPENAI_RESPONSES
    return Dialect.OPENAI_COMPLETIONS if "prompt" in body else Dialect.OPENAI_CHAT


def _ollama(body: JsonObject) -> Dialect:
    prompted = body.get("messages") is None and "prompt" in body
    return Dialect.OLLAMA_GENERATE if prompted else Dialect.OLLAMA_CHAT


def _cohere(body: JsonObject) -> Dialect:
    return Dialect.COHERE_V2 if body.get("messages") is not None else Dialect.COHERE_V1


def _by_shape(body: JsonObject) -> Dialect:
    if "contents" in body:
        return Dialect.GEMINI
    if "anthropic_version" in body or "inputText" in body or "inferenceConfig" in body:
        return Dialect.BEDROCK_INVOKE
    return _openai(body)


_BY_PROVIDER: Final[Mapping[str, Callable[[JsonObject], Dialect]]] = {
    "anthropic": lambda _body: Dialect.ANTHROPIC_MESSAGES,
    "openai": _openai,
    "mistral": _openai,
    "ollama": _ollama,
    "cohere": _cohere,
    "gemini": lambda _body: Dialect.GEMINI,
    "bedrock": lambda _body: Dialect.BEDROCK_INVOKE,
}
