"""AWS Bedrock InvokeModel and its response stream: an envelope around each model family's own format.

A stream is ``chunk`` events whose ``bytes`` are, in base64, the family's JSON; exceptions
are events of their own. The shape of the first object says which family it is, for model
ids name providers, not formats. Bedrock adds members of its own beside the family's:
``amazon-bedrock-invocationMetrics`` (on the last chunk: an end marker, and the token
counts of families that send none) and ``amazon-bedrock-guardrailAction``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from msgspec import Struct, field

from capture.dialects.anthropic import AnthropicFold
from capture.dialects.bedrock_chat import BedrockChatFold
from capture.dialects.bedrock_converse import ConverseFold
from capture.dialects.bedrock_failures import error_document, is_failure, stream_error
from capture.dialects.bedrock_text import TextFold
from capture.dialects.bedrock_usage import bedrock_usage
from capture.dialects.document import object_in
from capture.dialects.fold import DamageLog, EventReader, Fold, RequestFacts
from capture.dialects.members import as_mapping, as_text
from capture.dialects.wire_usage import total_of, wire_usage
from capture.turn import (
    Choice,
    Damage,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Result,
    Turn,
    Usage,
    WireFacts,
)


class _Chunk(Struct):
    payload: bytes | None = field(default=None, name="bytes")


_READER: Final = EventReader(_Chunk)

_OURS: Final = "amazon-bedrock-"
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_GUARDRAIL: Final = "amazon-bedrock-guardrailAction"

_FAMILY_OF_MEMBER: Final[Mapping[str, Callable[[RequestFacts], Fold]]] = {
    "completion": TextFold,  # Claude's legacy text: it has a ``type`` too
    "type": AnthropicFold,
    "choices": BedrockChatFold,
    "output": ConverseFold,
    "messageStart": ConverseFold,
    "contentBlockStart": ConverseFold,
    "contentBlockDelta": ConverseFold,
    "contentBlockStop": ConverseFold,
    "messageStop": ConverseFold,
    "metadata": ConverseFold,
}


class InvokeFold:
    """Unwraps one answer, and folds what is in it with its family's fold."""

    __slots__ = ("_action", "_damage", "_error", "_family", "_metrics", "_refused", "_request")

    def __init__(self, request: RequestFacts) -> None:
        self._request = request
        self._family: Fold | None = None
        self._metrics: JsonObject | None = None
        self._action = ""
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of events. A framing without the envelope carries the family's JSON bare."""
        inner: list[bytes] = []
        for name, data, chunk in zip(names, datas, _READER.read(datas), strict=True):
            kind = name.decode("utf-8", "replace")
            if is_failure(kind):
                self._error = self._error or stream_error(kind, object_in(data), data)
            elif chunk is None:
                self._damage.add(Damage.UNPARSEABLE_EVENT, f"{kind}: {data[:80]!r}")
            elif chunk.payload != b"":
                inner.append(data if chunk.payload is None else chunk.payload)
        if inner:
            self._fold(inner)

    def _fold(self, objects: list[bytes]) -> None:
        for data in objects:
            if _OURS.encode() in data:
                self._note(object_in(data) or {})
        while self._family is None and objects:
            self._family = self._choose(object_in(objects[0]))
            objects = objects if self._family is not None else objects[1:]
        if self._family is not None:
            self._family.events([b""] * len(objects), objects)

    def _note(self, given: JsonObject) -> None:
        """Bedrock's own members."""
        self._metrics = as_mapping(given.get(_METRICS)) or self._metrics
        self._action = as_text(given.get(_GUARDRAIL)) or self._action

    def _choose(self, given: JsonObject | None) -> Fold | None:
        """The family that speaks like this; None when the object says nothing of it."""
        if given is None:
            self._damage.add(Damage.UNPARSEABLE_EVENT, "chunk")
            return None
        if all(name.startswith(_OURS) for name in given):
            return None
        family = next((family for name, family in _FAMILY_OF_MEMBER.items() if name in given), TextFold)
        return family(self._request)

    def document(self, body: bytes) -> None:
        """Fold a one-shot answer (or an error object: an empty turn with its error)."""
        given = object_in(body)
        if given is None:
            self._refused = Refused("the answer is not a JSON object")
            return
        self._note(given)
        family = self._choose(given)
        self._error = error_document(given) if type(family) is TextFold else None
        self._family = family if self._error is None else None
        if self._family is not None:
            self._family.document(body)

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        if self._refused is not None:
            return self._refused
        family = self._family or TextFold(self._request)
        turn = family.turn(ending)
        if isinstance(turn, Refused):
            return turn
        turn = replace(
            turn,
            dialect=Dialect.BEDROCK_INVOKE,
            diagnostics=turn.diagnostics + self._damage.diagnostics(),
        )
        turn = self._counted(turn, member_by_member=isinstance(family, TextFold))
        turn = self._ended(turn)
        return turn if self._error is None else _failed(turn, self._error)

    def _counted(self, turn: Turn, *, member_by_member: bool) -> Turn:
        """The family's own counts, else those of the metrics."""
        if self._metrics is None or (turn.usage.raw is not None and not member_by_member):
            return turn
        own, metrics = turn.usage, bedrock_usage(self._metrics)
        prompt = metrics.input_tokens if own.input_tokens is None else own.input_tokens
        output = metrics.output_tokens if own.output_tokens is None else own.output_tokens
        usage = Usage(
            input_tokens=prompt,
            output_tokens=output,
            total_tokens=total_of(own.total_tokens, prompt, output),
            cache_read_tokens=metrics.cache_read_tokens,
            cache_write_tokens=metrics.cache_write_tokens,
            raw=self._metrics if own.raw is None else own.raw,
        )
        return replace(turn, usage=usage, wire=replace(turn.wire, usage=wire_usage(usage)))

    def _ended(self, turn: Turn) -> Turn:
        """A stop reason or the metrics end an answer, whatever its family wants to see."""
        ended = self._metrics is not None or any(choice.stop_reason for choice in turn.choices)
        if turn.partial and turn.provider_error is None and ended:
            turn = replace(turn, partial=False, wire=_whole(turn.wire, turn.choices[0]))
        choices = tuple(self._judged(choice, partial=turn.partial) for choice in turn.choices)
        return replace(turn, choices=choices)

    def _judged(self, choice: Choice, *, partial: bool) -> Choice:
        result = choice.result
        if not choice.stop_reason:
            if self._action == "INTERVENED" and result is not Result.ERROR:
                result = Result.BLOCKED
            elif result is Result.INCOMPLETE and not partial:
                result = Result.OTHER
        return replace(choice, result=result)


def _whole(wire: WireFacts, answer: Choice) -> WireFacts:
    """The wire facts without what said that the end was missing."""
    extra = {name: value for name, value in wire.extra.items() if name not in ("partial", "incomplete")}
    return replace(wire, done=True, stop_reason=answer.stop_reason or "", extra=extra)


def _failed(turn: Turn, error: ProviderError) -> Turn:
    """The turn with the error that ended it."""
    in_stream = error.where == "stream"
    wire = replace(
        turn.wire,
        done=not in_stream,
        stop_reason=turn.choices[0].stop_reason or "error",
        extra={**turn.wire.extra, "error": {"type": error.type or "", "message": error.message}},
    )
    return replace(
        turn,
        provider_error=turn.provider_error or error,
        partial=in_stream,
        choices=tuple(replace(choice, result=Result.ERROR) for choice in turn.choices),
        wire=wire,
    )
