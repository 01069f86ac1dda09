"""The paths on which LLM traffic travels: the table that classification reads.

A route matches the end of a path (query and trailing slash cut off), so any gateway
prefix is allowed (``behaviour.md`` §2). The first match wins: rows that are no turns
stand before the turns whose paths they extend. Each row's source is its provider's API
reference.
"""

import re
from dataclasses import dataclass
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
class Route:
    """One row. ``dialect`` None on a turn path: no reducer speaks it (``unknown_provider``).

    A group ``model`` in the pattern is the (percent-encoded) model. ``streams``: the
    path itself says that the answer is streamed.
    """

    path: re.Pattern[str]
    endpoint: str
    provider: Provider
    dialect: Dialect | None
    kind: Kind
    streams: bool


def _turn(
    path: str, endpoint: str, provider: Provider, dialect: Dialect | None, *, streams: bool = False
) -> Route:
    return Route(re.compile(rf"(?:{path})$"), endpoint, provider, dialect, Kind.TURN, streams)


def _no_turn(path: str, endpoint: str, provider: Provider = Provider.OPENAI) -> Route:
    return Route(re.compile(rf"(?:{path})$"), endpoint, provider, None, Kind.NON_TURN, streams=False)


def _either(path: str, endpoint: str) -> Route:
    return Route(re.compile(rf"(?:{path})$"), endpoint, Provider.OPENAI, None, Kind.AMBIGUOUS, streams=False)


_BEDROCK_MODEL: Final = r"/model/(?P<model>[^/]+)"
_GOOGLE_MODEL: Final = r"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+)"

ROUTES: Final = (
    # Anthropic; also behind Vertex's rawPredict.
    _turn("/v1/messages", "messages", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES),
    _no_turn("/v1/messages/count_tokens", "messages_count_tokens", Provider.ANTHROPIC),
    _no_turn(
        r"/publishers/anthropic/models/count-tokens[^/:]*:rawPredict",
        "messages_count_tokens", Provider.ANTHROPIC,
    ),
    _turn(
        rf"/publishers/anthropic{_GOOGLE_MODEL}:rawPredict",
        "messages", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES,
    ),
    _turn(
        rf"/publishers/anthropic{_GOOGLE_MODEL}:streamRawPredict",
        "messages", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES, streams=True,
    ),
    _turn(
        rf"/publishers/mistralai{_GOOGLE_MODEL}:rawPredict",
        "chat_completions", Provider.MISTRAL, Dialect.OPENAI_CHAT,
    ),
    _turn(
        rf"/publishers/mistralai{_GOOGLE_MODEL}:streamRawPredict",
        "chat_completions", Provider.MISTRAL, Dialect.OPENAI_CHAT, streams=True,
    ),
    _turn(
        rf"/publishers/[^/]+{_GOOGLE_MODEL}:rawPredict",
        "chat_completions", Provider.OPENAI, Dialect.OPENAI_CHAT,
    ),
    _turn(
        rf"/publishers/[^/]+{_GOOGLE_MODEL}:streamRawPredict",
        "chat_completions", Provider.OPENAI, Dialect.OPENAI_CHAT, streams=True,
    ),
    _turn("/v1/complete", "complete", Provider.ANTHROPIC, None),
    # OpenAI, and all who speak its formats.
    _turn("/chat/completions", "chat_completions", Provider.OPENAI, Dialect.OPENAI_CHAT),
    _turn("/inference:complete|/ml/v1/text/chat(?:_stream)?", "chat_completions", Provider.OPENAI,
          Dialect.OPENAI_CHAT),
    _turn("/(?:fim|agents)/completions", "chat_completions", Provider.MISTRAL, Dialect.OPENAI_CHAT),
    _turn("/completions", "completions", Provider.OPENAI, Dialect.OPENAI_COMPLETIONS),
    _turn("/responses", "responses", Provider.OPENAI, Dialect.OPENAI_RESPONSES),
    # Ollama.
    _turn("/api/chat", "ollama_chat", Provider.OLLAMA, Dialect.OLLAMA_CHAT),
    _turn("/api/generate", "ollama_generate", Provider.OLLAMA, Dialect.OLLAMA_GENERATE),
    # Google.
    _turn(rf"{_GOOGLE_MODEL}:generateContent", "generate_content", Provider.GEMINI, Dialect.GEMINI),
    _turn(
        rf"{_GOOGLE_MODEL}:streamGenerateContent",
        "generate_content", Provider.GEMINI, Dialect.GEMINI, streams=True,
    ),
    # AWS Bedrock. Models that make no text are told by their names.
    _no_turn(
        r"/model/[^/]*(?:embed|rerank|stability\.|image-generator|nova-(?:canvas|reel|sonic))[^/]*/[^/]+",
        "bedrock_other", Provider.BEDROCK,
    ),
    _turn(rf"{_BEDROCK_MODEL}/converse", "converse", Provider.BEDROCK, Dialect.BEDROCK_CONVERSE),
    _turn(
        rf"{_BEDROCK_MODEL}/converse-stream",
        "converse", Provider.BEDROCK, Dialect.BEDROCK_CONVERSE, streams=True,
    ),
    _turn(rf"{_BEDROCK_MODEL}/invoke", "invoke_model", Provider.BEDROCK, Dialect.BEDROCK_INVOKE),
    _turn(
        rf"{_BEDROCK_MODEL}/invoke-with-response-stream",
        "invoke_model", Provider.BEDROCK, Dialect.BEDROCK_INVOKE, streams=True,
    ),
    # Cohere.
    _turn("/v2/chat", "cohere_chat", Provider.COHERE, Dialect.COHERE_V2),
    _turn("/v1/generate", "cohere_generate", Provider.COHERE, Dialect.COHERE_V1),
    # What holds no turn, by name, so that it is told from paths that nobody knows.
    _no_turn("/(?:embeddings|embed|api/embed|embed-jobs)|:(?:batch|async)?[eE]mbedContents?", "embeddings"),
    _no_turn("/rerank", "rerank"),
    _no_turn("/realtime(?:/.*)?|/live", "realtime"),
    _no_turn("/models(?:/[^/:]+)?|/api/(?:tags|show|ps|pull|push|create|copy|delete|version)", "models"),
    _no_turn("/files(?:/.*)?|/uploads(?:/.*)?|/vector_stores(?:/.*)?", "files"),
    _no_turn("/batches(?:/.*)?|:batchGenerateContent", "batches"),
    _no_turn("/images/(?:generations|edits|variations)|/videos(?:/.*)?|:predict(?:LongRunning)?", "images"),
    _no_turn("/audio/(?:speech|transcriptions|translations)", "audio"),
    _no_turn("/moderations|/classify", "moderation"),
    _no_turn("/tokenize|/detokenize|:countTokens|:computeTokens|/count-tokens|/input_tokens", "token_count"),
    _no_turn("/fine[_-]tuning/.*|/fine-tunes(?:/.*)?|/evals(?:/.*)?", "training"),
    _no_turn("/assistants(?:/.*)?|/threads(?:/.*)?", "assistants"),
    # One path, many servers: Cohere v1, Writer, Databricks, SageMaker.
    _either("/v1/chat|/invocations", "chat"),
)  # fmt: skip
