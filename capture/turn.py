"""The turn: what one exchange reduces to, before anybody renders it.

Two renderings read it and nothing else: the provider-neutral view
(``capture.canonical``, DESIGN §6) and the contract's reduced response
(``capture.wire_response``, ``contracts/wire.md`` §3). Where the contract says
something the neutral view does not (its own stop words, its usage arithmetic,
its ``extra``), a dialect states it in :class:`WireFacts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

JsonObject = Mapping[str, object]


@unique
class Dialect(StrEnum):
    """One provider wire format. The catalog has one module for each."""

    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPENAI_CHAT = "openai_chat"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_RESPONSES = "openai_responses"
    GEMINI = "gemini"
    BEDROCK_CONVERSE = "bedrock_converse"
    BEDROCK_INVOKE = "bedrock_invoke"
    COHERE_V1 = "cohere_v1"
    COHERE_V2 = "cohere_v2"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"


@unique
class Ending(StrEnum):
    """How the response body stood when the turn was read off."""

    COMPLETE = "complete"
    """end_of_stream (or trailers) was seen."""
    CUT = "cut"
    """The stream ended without it: client gone, upstream reset, cancel, crash."""
    OPEN = "open"
    """Still running: a checkpoint."""


@unique
class Result(StrEnum):
    """Why the model stopped, in one vocabulary for all providers (DESIGN §6)."""

    STOP = "stop"
    MAX_TOKENS = "max_tokens"
    TOOL_CALL = "tool_call"
    BLOCKED = "blocked"
    REFUSAL = "refusal"
    MAX_ITERATIONS = "max_iterations"
    ERROR = "error"
    INCOMPLETE = "incomplete"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One content block, in the members of ``contracts/wire.md`` §3.

    A member at its default is left out of every rendering. ``content`` is any
    JSON value. Blocks are what the contract carries and the Merkle hash covers;
    the neutral view reads :class:`Choice` instead.
    """

    type: str
    text: str = ""
    image_url: str = ""
    image_base64: str = ""
    media_type: str = ""
    tool_use_id: str = ""
    tool_name: str = ""
    tool_input: JsonObject | None = None
    tool_result_id: str = ""
    tool_output: str = ""
    is_error: bool = False
    thinking: str = ""
    thinking_signature: str = ""
    content: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call the client must run.

    ``arguments`` is the parsed JSON object. When the text is no JSON object it is
    None and ``raw_arguments`` has the text as sent (CANONICAL.md).
    """

    id: str | None
    name: str
    arguments: JsonObject | None
    raw_arguments: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer, in the neutral view's members (DESIGN §6).

    ``stop_reason`` is the provider's own word as sent, or None. ``refusal`` is
    None unless the model refused in words of its own.
    """

    index: int = 0
    text: str = ""
    thinking: str = ""
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: str | None = None
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts, normalised: ``input_tokens`` is the whole prompt, cached part
    included; ``output_tokens`` all that was generated, reasoning included; the
    others are parts of those. None: the provider did not send it (never 0 then).
    ``raw`` is the provider's object as it came.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderError:
    """An error the provider sent: as the HTTP answer, or inside a stream that began well."""

    status: int
    type: str | None
    message: str
    where: str
    """``http`` or ``stream``."""


@unique
class Damage(StrEnum):
    """What can be wrong with provider data without costing the turn."""

    UNPARSEABLE_EVENT = "unparseable_event"
    UNKNOWN_EVENT = "unknown_event"
    UNPARSEABLE_TOOL_INPUT = "unparseable_tool_input"
    UNKNOWN_CONTENT = "unknown_content"
    BAD_CRC = "bad_crc"
    TRUNCATED_CODING = "truncated_coding"
    TRUNCATED_FRAME = "truncated_frame"
    OVERSIZE_FRAME = "oversize_frame"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One kind of damage, how often it was met, and one short example or reason."""

    damage: Damage
    count: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireUsage:
    """The contract's usage object (``wire.md`` §3); a 0 is left out."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFacts:
    """What only the contract's reduced response says about a turn.

    ``created_at`` is an RFC 3339 string, or empty. ``dated_by_clock`` asks the
    renderer to put the time of reduction there (Anthropic sends none).
    ``document`` is the decoded one-shot body (``raw_response`` of ``wire.md`` §3,
    Anthropic only), or empty.
    """

    done: bool
    stop_reason: str = ""
    created_at: str = ""
    dated_by_clock: bool = False
    usage: WireUsage | None = None
    extra: JsonObject = field(default_factory=dict[str, object])
    document: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The reduced product of one exchange.

    ``blocks`` are those of the first choice, in the order of the contract.
    ``choices`` is never empty: the first is the answer, the others its
    alternatives. ``model`` is empty when the response named none.
    ``partial``: the end marker did not come, or a stream error did. ``unparsed``
    holds, whole, the provider's content that no member has a place for.
    """

    dialect: Dialect
    model: str
    response_id: str | None
    role: str
    blocks: tuple[Block, ...]
    choices: tuple[Choice, ...]
    usage: Usage
    partial: bool
    wire: WireFacts
    provider_error: ProviderError | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    unparsed: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The reducer could not make a turn of the body at all (``reducer_error``)."""

    reason: str
