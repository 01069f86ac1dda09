"""Anthropic Messages, streamed and one-shot; also under Vertex and Bedrock paths.

Event types, block types and error shapes: the Messages API's streaming reference.
What the contract's reduced response says of each: ``behaviour.md`` §7. The kind of
an event is its ``event:`` line, else ``type`` in its data; unknown kinds are counted
and their data is not read.
"""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from msgspec import Struct

from capture import jsontext
from capture.dialects.anthropic_block import TOOLS, Delta, OpenBlock
from capture.dialects.anthropic_usage import normalised, prompt_usage, with_completion
from capture.dialects.document import answer_object
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.stop_words import result_of
from capture.turn import (
    Choice,
    Damage,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Turn,
    WireFacts,
    WireUsage,
)


class _Event(Struct):
    type: str = ""
    index: int | None = 0
    delta: Delta | None = None
    content_block: dict[str, object] | None = None
    message: object = None
    usage: dict[str, object] | None = None
    error: object = None


_READER: Final = EventReader(_Event)

_KNOWN: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)
_UNREAD: Final = frozenset({"ping"})


class AnthropicFold:
    """Folds the events of one message, or one message object."""

    __slots__ = (
        "_blocks",
        "_damage",
        "_document",
        "_done",
        "_error",
        "_message",
        "_parse_error",
        "_refused",
        "_stop_reason",
        "_stop_sequence",
        "_usage",
        "_wire_usage",
    )

    def __init__(self, request: RequestFacts) -> None:
        del request  # a message names its own model
        self._message: Mapping[str, object] = {}
        self._blocks: dict[int, OpenBlock] = {}
        self._usage: dict[str, object] = {}
        self._wire_usage = WireUsage()
        self._stop_reason = ""
        self._stop_sequence: str | None = None
        self._done = False
        self._error: Mapping[str, object] | None = None
        self._parse_error = ""
        self._document = b""
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream ---------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of stream events."""
        touched: set[OpenBlock] = set()
        blocks = self._blocks
        for name, data, event in zip(names, datas, _READER.read(datas), strict=True):
            kind = name.decode("utf-8", "replace") if name else event.type if event else ""
            if kind == "content_block_delta" and event is not None and event.delta is not None:
                index = event.index or 0
                block = blocks.get(index)
                if block is None:
                    block = blocks[index] = OpenBlock({"type": "text"})
                if not block.append(event.delta):
                    self._damage.add(Damage.UNKNOWN_CONTENT, event.delta.type)
                touched.add(block)
            elif event is None:
                self._unparseable(kind, data)
            else:
                self._apply(kind, event)
        for block in touched:
            block.settle()

    def _apply(self, kind: str, event: _Event) -> None:
        match kind:
            case "message_start":
                self._start(as_mapping(event.message) or {})
            case "content_block_start":
                self._open(event.index or 0, event.content_block or {})
            case "content_block_stop":
                self._close(event.index or 0)
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self._done = True
            case "error":
                self._fail(event)
            case _ if kind not in _KNOWN and kind not in _UNREAD:
                self._damage.add(Damage.UNKNOWN_EVENT, kind)
            case _:
                pass

    def _unparseable(self, kind: str, data: bytes) -> None:
        if kind in _KNOWN:
            self._damage.add(Damage.UNPARSEABLE_EVENT, kind)
            self._parse_error = self._parse_error or f"{kind}: not a JSON event: {data[:80]!r}"
        elif kind not in _UNREAD:
            self._damage.add(Damage.UNKNOWN_EVENT, kind)

    def _start(self, message: Mapping[str, object]) -> None:
        self._message = message
        usage = as_mapping(message.get("usage"))
        if usage is not None:
            self._count(usage)
            self._wire_usage = prompt_usage(usage)
        for index, given in enumerate(_listed(message.get("content"))):
            self._blocks.setdefault(index, OpenBlock(given))

    def _open(self, index: int, start: Mapping[str, object]) -> None:
        if index < 0:  # the contract loses such a block; here it is at least told
            self._damage.add(Damage.UNKNOWN_CONTENT, f"block at index {index}")
        self._blocks[index] = OpenBlock(start)

    def _close(self, index: int) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        block.closed = True
        if block.fragments:
            block.arguments = parse_arguments(block.fragments.text())
            if block.arguments[0] is not None:
                block.fragments = Pieces()
            elif block.type in TOOLS:
                self._damage.add(Damage.UNPARSEABLE_TOOL_INPUT, as_text(block.start.get("name")))

    def _message_delta(self, event: _Event) -> None:
        if event.delta is not None:
            self._stop_reason = event.delta.stop_reason or self._stop_reason
            if event.delta.stop_sequence is not None:
                self._stop_sequence = event.delta.stop_sequence
        if event.usage is not None:
            self._count(event.usage)
            self._wire_usage = with_completion(
                self._wire_usage, as_int(event.usage.get("output_tokens")) or 0
            )

    def _fail(self, event: _Event) -> None:
        """Keep the error, an object or only its words."""
        words = as_text(event.error) or as_text(event.message)
        self._error = as_mapping(event.error) or ({"message": words} if words else {})

    def _count(self, usage: Mapping[str, object]) -> None:
        self._usage.update({name: value for name, value in usage.items() if value is not None})

    # -- one-shot -------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold a message object (or an error object: an empty turn with its error)."""
        message = answer_object(body)
        if isinstance(message, Refused):
            self._refused = message
            return
        self._document = jsontext.strict_text(body, message)
        self._message = message
        for index, given in enumerate(_listed(self._message.get("content"))):
            self._blocks[index] = block = OpenBlock(given)
            block.closed = True
        self._stop_reason = as_text(self._message.get("stop_reason"))
        usage = as_mapping(self._message.get("usage"))
        if usage is not None:
            self._count(usage)
            self._wire_usage = with_completion(prompt_usage(usage), as_int(usage.get("output_tokens")) or 0)
        failure = as_mapping(self._message.get("error"))
        if self._message.get("type") == "error" or (failure is not None and "content" not in self._message):
            self._error = failure or {}
        self._done = True

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # message_stop alone says that the message is whole
        if self._refused is not None:
            return self._refused
        blocks = [self._blocks[index] for index in sorted(self._blocks) if index >= 0]
        error = self._provider_error()
        partial = not self._done or (error is not None and not self._document)
        return Turn(
            dialect=Dialect.ANTHROPIC_MESSAGES,
            model=_answering_model(self._message, blocks),
            response_id=as_text(self._message.get("id")) or None,
            role=as_text(self._message.get("role")) or "assistant",
            blocks=tuple(block.block() for block in blocks),
            choices=(self._choice(blocks, partial=partial, failed=error is not None),),
            usage=normalised(self._usage),
            partial=partial,
            wire=self._wire(blocks),
            provider_error=error,
            diagnostics=self._damage.diagnostics(),
            unparsed=tuple(block.whole() for block in blocks if not block.is_mapped()),
        )

    def _choice(self, blocks: Sequence[OpenBlock], *, partial: bool, failed: bool) -> Choice:
        calls = tuple(block.tool_call() for block in blocks if block.type == "tool_use")
        word = self._stop_reason or None
        return Choice(
            text="".join(block.text.text() for block in blocks if block.type == "text"),
            thinking="".join(block.thinking.text() for block in blocks if block.type == "thinking"),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(word, partial=partial, has_tool_calls=bool(calls), failed=failed),
        )

    def _provider_error(self) -> ProviderError | None:
        if self._error is None:
            return None
        return ProviderError(
            status=200,
            type=as_text(self._error.get("type")) or None,
            message=as_text(self._error.get("message")),
            where="http" if self._document else "stream",
        )

    def _wire(self, blocks: Sequence[OpenBlock]) -> WireFacts:
        extra: dict[str, object] = {"id": as_text(self._message.get("id"))}
        if self._document:
            extra["type"] = as_text(self._message.get("type")) or "message"
            return WireFacts(
                done=True,
                stop_reason=self._stop_reason,
                dated_by_clock=True,
                usage=self._wire_usage,
                extra=extra,
                document=self._document,
            )
        extra["type"] = "message"
        if self._stop_sequence is not None:
            extra["stop_sequence"] = self._stop_sequence
        stop_reason = self._stop_reason
        if self._error is not None:
            stop_reason = stop_reason or "error"
        typed = self._wire_error()
        if typed is not None:
            extra["error"] = typed
        elif not self._done:
            extra["incomplete"] = True
            stop_reason = stop_reason or "incomplete"
        failures = [failure for block in blocks if (failure := block.argument_failure()) is not None]
        if failures:
            extra["tool_input_parse_errors"] = failures
        return WireFacts(
            done=self._done,
            stop_reason=stop_reason,
            dated_by_clock=True,
            usage=self._wire_usage,
            extra=extra,
        )

    def _wire_error(self) -> dict[str, str] | None:
        """The contract's ``extra.error``: a typed error event, else the first unreadable event."""
        error = self._error or {}
        if as_text(error.get("type")):
            return {"type": as_text(error.get("type")), "message": as_text(error.get("message"))}
        if self._parse_error and not as_text(error.get("message")):
            return {"type": "reducer_parse_error", "message": self._parse_error}
        return None


def _listed(content: object) -> list[JsonObject]:
    items = cast("list[object]", content) if isinstance(content, list) else []
    return [cast("JsonObject", item) if isinstance(item, dict) else {} for item in items]


def _answering_model(message: Mapping[str, object], blocks: Sequence[OpenBlock]) -> str:
    """A ``fallback`` block names the model that took over (``to.model``)."""
    for block in blocks:
        if block.type == "fallback":
            model = as_text((as_mapping(block.start.get("to")) or {}).get("model"))
            if model:
                return model
    return as_text(message.get("model"))
