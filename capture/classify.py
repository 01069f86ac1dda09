"""What an exchange is, from its request head: provider, endpoint, dialect, turn or not.

The contract's rules (``behaviour.md`` §2) come first: the path is cut at ``?``, its
trailing ``/`` dropped, and compared by suffix, so any gateway prefix is allowed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from capture.turn import Dialect


@unique
class Provider(StrEnum):
    """The providers that the wire names (DESIGN §3.14). OpenAI-compatible vendors are
    ``openai`` here and name themselves as vendor.
    """

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    OLLAMA = "ollama"
    GEMINI = "gemini"
    BEDROCK = "bedrock"
    COHERE = "cohere"
    MISTRAL = "mistral"


@unique
class Kind(StrEnum):
    """Whether there can be a turn in the exchange."""

    TURN = "turn"
    NON_TURN = "non_turn"
    AMBIGUOUS = "ambiguous"
    """The request body must tell."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What classification reads: pseudo-headers as received, header names in lower case."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the exchange is. ``provider`` is a :class:`Provider`'s value, or an operator's
    own name from the backend map; ``vendor`` names who really answers, when known;
    ``path_model`` is the model that the path names. ``dialect`` is None when Steno has
    no reducer for it (``unknown_provider``) or there is no turn.
    """

    kind: Kind
    provider: str
    endpoint: str
    dialect: Dialect | None
    vendor: str = ""
    path_model: str = ""


@dataclass(frozen=True, slots=True)
class _Route:
    suffix: re.Pattern[str]
    endpoint: str
    provider: Provider
    dialect: Dialect | None
    kind: Kind = Kind.TURN


def _route(
    suffix: str, endpoint: str, provider: Provider, dialect: Dialect | None, kind: Kind = Kind.TURN
) -> _Route:
    return _Route(re.compile(rf"(?:{suffix})$"), endpoint, provider, dialect, kind)


_ROUTES: Final = (
    _route("/v1/messages", "messages", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES),
    _route("/v1/messages/count_tokens", "messages_count_tokens", Provider.ANTHROPIC, None, Kind.NON_TURN),
    _route("/v1/responses|/codex/responses", "responses", Provider.OPENAI, Dialect.OPENAI_RESPONSES),
    _route("/v1/chat/completions", "chat_completions", Provider.OPENAI, Dialect.OPENAI_CHAT),
    _route("/api/chat", "ollama_chat", Provider.OLLAMA, Dialect.OLLAMA_CHAT),
)
_OTHER: Final = Classification(
    kind=Kind.NON_TURN, provider=Provider.ANTHROPIC, endpoint="other", dialect=None
)


def classify(head: RequestHead, backends: Mapping[str, str]) -> Classification:
    """Classify a request. ``backends`` maps a gateway's backend name (the header
    ``x-ai-eg-selected-backend``) to the provider it is: the operator's word wins.
    """
    path = head.path.partition("?")[0].rstrip("/")
    found = next((route for route in _ROUTES if route.suffix.search(path)), None)
    mapped = backends.get(head.headers.get("x-ai-eg-selected-backend", ""))
    if found is None:
        return _OTHER
    provider = mapped or found.provider.value
    return Classification(
        kind=found.kind if head.method.upper() in ("", "POST") else Kind.NON_TURN,
        provider=provider,
        endpoint=found.endpoint,
        dialect=found.dialect if provider == found.provider else None,
    )


def settle(classification: Classification, request_body: object) -> Classification:
    """Decide an ambiguous exchange by its decoded request body (None when it is not JSON)."""
    del request_body
    return classification
