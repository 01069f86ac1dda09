"""What an exchange is, from its request head: provider, endpoint, dialect, turn or not.

In the order of their say: the operator's overrides, the gateway's own header, the
path (``capture.routes``), the host (``capture.hosts``), and for paths that several
servers share, the shape of the request body. What no row names is no turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from capture.dialects.members import as_mapping
from capture.hosts import host_of
from capture.routes import ROUTES, Kind, Provider, Route
from capture.turn import Dialect

BACKEND_HEADER: Final = "x-ai-eg-selected-backend"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What classification reads: pseudo-headers as received, header names in lower case."""

    method: str
    host: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An operator's word: paths that end in ``path`` (on hosts that end in ``host``, empty
    for all) speak ``dialect`` and are counted under ``provider``.
    """

    path: str
    dialect: Dialect
    provider: str
    host: str = ""
    vendor: str = ""


@dataclass(frozen=True, slots=True)
class Classifier:
    """The operator's words. ``backends`` maps a gateway's backend name to its provider."""

    backends: Mapping[str, str] = field(default_factory=dict[str, str])
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the exchange is. ``provider`` is a :class:`Provider`'s value, or an operator's
    own name; ``vendor`` names who really answers, when known; ``path_model`` is the
    model that the path names; ``path_streams``: the path says that the answer is
    streamed. ``dialect`` is None when Steno has no reducer for it
    (``unknown_provider``) or there is no turn.
    """

    kind: Kind
    provider: str
    endpoint: str
    dialect: Dialect | None
    vendor: str = ""
    path_model: str = ""
    path_streams: bool = False


# The contract's default provider for a path that it does not know.
_OTHER: Final = Classification(
    kind=Kind.NON_TURN, provider=Provider.ANTHROPIC.value, endpoint="other", dialect=None
)

# OpenAI's formats are many providers' second language; every other format is its owner's.
_SHARED: Final = frozenset({Dialect.OPENAI_CHAT, Dialect.OPENAI_COMPLETIONS})


def classify(head: RequestHead, classifier: Classifier) -> Classification:
    """Classify a request by its head."""
    path = head.path.partition("?")[0].rstrip("/")
    posted = head.method.upper() in ("", "POST")
    for override in classifier.overrides:
        if path.endswith(override.path) and _on_host(head.host, override.host):
            return _overridden(override, posted=posted)
    for route in ROUTES:
        found = route.path.search(path)
        if found is not None:
            model = unquote(found.groupdict().get("model") or "")
            return _routed(route, head, classifier, posted=posted, model=model)
    return _OTHER


def settle(classification: Classification, request_body: object) -> Classification:
    """Decide an ambiguous exchange by its decoded request body (None when it is not JSON)."""
    if classification.kind is not Kind.AMBIGUOUS:
        return classification
    members = as_mapping(request_body) or {}
    if isinstance(members.get("messages"), list):
        return replace(
            classification, kind=Kind.TURN, dialect=Dialect.OPENAI_CHAT, endpoint="chat_completions"
        )
    if isinstance(members.get("message"), str):
        return replace(
            classification, kind=Kind.TURN, dialect=Dialect.COHERE_V1, endpoint="cohere_chat",
            provider=Provider.COHERE.value,
        )  # fmt: skip
    if isinstance(members.get("prompt"), str | list):
        return replace(
            classification, kind=Kind.TURN, dialect=Dialect.OPENAI_COMPLETIONS, endpoint="completions"
        )
    return replace(classification, kind=Kind.NON_TURN)


def _routed(
    route: Route, head: RequestHead, classifier: Classifier, *, posted: bool, model: str
) -> Classification:
    host = host_of(head.host)
    own = host.provider if host is not None and host.provider is not None else route.provider
    if route.dialect is Dialect.COHERE_V2 or route.provider is not Provider.OPENAI:
        own = route.provider
    provider = classifier.backends.get(head.headers.get(BACKEND_HEADER, "")) or own.value
    speaks = provider == own.value or (route.dialect in _SHARED and provider in _PROVIDERS)
    return Classification(
        kind=route.kind if posted else Kind.NON_TURN,
        provider=provider,
        endpoint=route.endpoint,
        dialect=route.dialect if speaks else None,
        vendor=host.vendor if host is not None else "",
        path_model=model,
        path_streams=route.streams,
    )


_PROVIDERS: Final = frozenset(provider.value for provider in Provider)


def _overridden(override: Override, *, posted: bool) -> Classification:
    return Classification(
        kind=Kind.TURN if posted else Kind.NON_TURN,
        provider=override.provider,
        endpoint="override",
        dialect=override.dialect,
        vendor=override.vendor,
    )


def _on_host(authority: str, suffix: str) -> bool:
    return authority.lower().partition(":")[0].endswith(suffix.lower())
