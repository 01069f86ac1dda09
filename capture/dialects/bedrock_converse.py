"""AWS Bedrock Converse and ConverseStream; also what Nova speaks under InvokeModel.

A stream is ``messageStart``, the deltas of numbered content blocks, ``messageStop`` (the
end marker, with the stop reason) and ``metadata`` (the usage). Under InvokeModel the same
events come as objects with one member, the event's name. Exceptions are events of their
own. Shapes: the Bedrock runtime API reference.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from capture import jsontext
from capture.dialects.bedrock_blocks import (
    AnyBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    blocks_of,
)
from capture.dialects.bedrock_failures import error_document, is_failure, stream_error
from capture.dialects.bedrock_usage import bedrock_usage
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.wire_usage import wire_usage
from capture.stop_words import result_of
from capture.turn import (
    Choice,
    Damage,
    Diagnostic,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Turn,
    Usage,
    WireFacts,
)

_READER: Final = EventReader(object)
_METRICS: Final = "amazon-bedrock-"
_KINDS: Final = (
    TextBlock.kind,
    ReasoningBlock.kind,
    ToolUseBlock.kind,
    ToolResultBlock.kind,
    ImageBlock.kind,
)

BlockT = TypeVar("BlockT", TextBlock, ReasoningBlock, ToolUseBlock, ToolResultBlock, ImageBlock)


class ConverseFold:
    """Folds the events of one message, or one Converse answer."""

    __slots__ = (
        "_blocks",
        "_closed",
        "_damage",
        "_dialect",
        "_done",
        "_error",
        "_is_document",
        "_open",
        "_refused",
        "_role",
        "_stop_reason",
        "_usage",
    )

    def __init__(self, request: RequestFacts, dialect: Dialect = Dialect.BEDROCK_CONVERSE) -> None:
        del request  # Converse speaks one language, whatever the model
        self._dialect = dialect
        self._blocks: list[AnyBlock] = []
        self._open: dict[tuple[int, str], AnyBlock] = {}
        self._closed: set[int] = set()
        self._role = ""
        self._stop_reason = ""
        self._usage: JsonObject | None = None
        self._done = False
        self._is_document = False
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream ---------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of events."""
        for name, data, value in zip(names, datas, _READER.read(datas), strict=True):
            kind = name.decode("utf-8", "replace")
            payload = as_mapping(value)
            if is_failure(kind):
                self._fail(kind, payload, data)
            elif payload is None:
                self._damage.add(Damage.UNPARSEABLE_EVENT, f"{kind}: {data[:80]!r}")
            elif kind:
                self._read(kind, payload)
            else:
                self._read_members(payload)

    def _read_members(self, payload: JsonObject) -> None:
        """Fold an event that names itself by its member (Nova under InvokeModel)."""
        for kind, value in payload.items():
            if not kind.startswith(_METRICS):
                self._read(kind, as_mapping(value) or {})

    def _read(self, kind: str, payload: JsonObject) -> None:
        """Fold one event."""
        match kind:
            case "contentBlockDelta":
                self._block_delta(_index(payload), as_mapping(payload.get("delta")) or {})
            case "contentBlockStart":
                self._block_start(_index(payload), as_mapping(payload.get("start")) or {})
            case "contentBlockStop":
                self._block_stop(_index(payload))
            case "messageStart":
                self._role = as_text(payload.get("role"))
            case "messageStop":
                self._stop_reason = as_text(payload.get("stopReason")) or self._stop_reason
                self._done = True
            case "metadata":
                self._count(as_mapping(payload.get("usage")))
            case _:
                self._damage.add(Damage.UNKNOWN_EVENT, kind)

    def _fail(self, kind: str, payload: JsonObject | None, data: bytes) -> None:
        """An exception or error message ended the stream."""
        self._error = self._error or stream_error(kind, payload, data)

    def _block_start(self, index: int, start: JsonObject) -> None:
        if index in self._closed:  # another block under a number that was used before
            self._closed.discard(index)
            for kind in _KINDS:
                self._open.pop((index, kind), None)
        self._add(index, start)

    def _block_delta(self, index: int, delta: JsonObject) -> None:
        text = delta.get("text")
        if isinstance(text, str):
            self._at(index, TextBlock).add(text)
        elif "citation" in delta:  # what is cited is no part of the turn
            self._at(index, TextBlock).cited = True
        else:
            self._add(index, delta)

    def _block_stop(self, index: int) -> None:
        self._closed.add(index)
        block = self._open.get((index, ToolUseBlock.kind))
        if isinstance(block, ToolUseBlock):
            block.close()

    def _add(self, index: int, given: JsonObject) -> None:
        """Take the members that a start, a delta and a whole block have in common."""
        tool_use = as_mapping(given.get("toolUse"))
        tool_result = given.get("toolResult")
        reasoning = as_mapping(given.get("reasoningContent"))
        image = as_mapping(given.get("image"))
        if tool_use is not None:
            self._at(index, ToolUseBlock).add(tool_use)
        elif tool_result is not None:
            self._at(index, ToolResultBlock).add(tool_result)
        elif reasoning is not None:
            self._at(index, ReasoningBlock).add(as_mapping(reasoning.get("reasoningText")) or reasoning)
        elif image is not None:
            self._at(index, ImageBlock).add(image)
        elif given:
            self._damage.add(Damage.UNKNOWN_CONTENT, ",".join(given))
            self._blocks.append(OtherBlock(given))

    def _at(self, index: int, kind: type[BlockT]) -> BlockT:
        """The open block of this kind at ``index``.

        Of this kind: some models number the reasoning and the text after it alike.
        """
        block = self._open.get((index, kind.kind))
        if isinstance(block, kind):
            return block
        opened = kind()
        self._open[index, kind.kind] = opened
        self._blocks.append(opened)
        return opened

    def _count(self, usage: JsonObject | None) -> None:
        """Take a usage object: the last one counts."""
        self._usage = self._usage if usage is None else usage

    # -- one-shot -------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold a Converse answer (or an error object: an empty turn with its error)."""
        try:
            answer = as_mapping(jsontext.decode(body))
        except jsontext.JsonError as error:
            self._refused = Refused(f"the answer is not JSON: {error}")
            return
        if answer is None:
            self._refused = Refused("the answer is not a JSON object")
            return
        self._is_document = True
        self._done = True
        message = as_mapping((as_mapping(answer.get("output")) or {}).get("message"))
        if message is None:
            self._error = error_document(answer)
        self._role = as_text((message or {}).get("role"))
        for index, given in enumerate(as_list((message or {}).get("content"))):
            self._whole_block(index, given)
        self._stop_reason = as_text(answer.get("stopReason"))
        self._count(as_mapping(answer.get("usage")))

    def _whole_block(self, index: int, given: object) -> None:
        block = as_mapping(given)
        if block is None:
            self._damage.add(Damage.UNKNOWN_CONTENT, "a block that is no object")
            return
        text = block.get("text")
        cited = as_mapping(block.get("citationsContent"))
        if isinstance(text, str):
            self._at(index, TextBlock).add(text)
        elif cited is not None:
            self._at(index, TextBlock).cited = True
            for item in as_list(cited.get("content")):
                self._at(index, TextBlock).add(as_text((as_mapping(item) or {}).get("text")))
        else:
            self._add(index, block)
        self._block_stop(index)

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # messageStop alone says that the message is whole
        if self._refused is not None:
            return self._refused
        usage = bedrock_usage(self._usage)
        partial = not self._done or (self._error is not None and not self._is_document)
        return Turn(
            dialect=self._dialect,
            model="",
            response_id=None,
            role=self._role or "assistant",
            blocks=tuple(blocks_of(self._blocks)),
            choices=(self._choice(partial=partial),),
            usage=usage,
            partial=partial,
            wire=self._wire(usage),
            provider_error=self._error,
            diagnostics=self._damage.diagnostics() + self._unparseable_input(),
            unparsed=tuple(kept for block in self._blocks if (kept := block.unparsed()) is not None),
        )

    def _choice(self, *, partial: bool) -> Choice:
        calls = tuple(block.tool_call() for block in self._blocks if isinstance(block, ToolUseBlock))
        word = self._stop_reason or None
        return Choice(
            text="".join(block.text.text() for block in self._blocks if isinstance(block, TextBlock)),
            thinking="".join(
                block.text.text() for block in self._blocks if isinstance(block, ReasoningBlock)
            ),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(
                word, partial=partial, has_tool_calls=bool(calls), failed=self._error is not None
            ),
        )

    def _unparseable_input(self) -> tuple[Diagnostic, ...]:
        names = [block.name for block in self._blocks if isinstance(block, ToolUseBlock) and block.is_damaged]
        return (Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(names), names[0][:200]),) if names else ()

    def _wire(self, usage: Usage) -> WireFacts:
        extra: dict[str, object] = {}
        stop_reason = self._stop_reason
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
            stop_reason = stop_reason or "error"
        if not self._done:
            extra["partial"] = True
        return WireFacts(done=self._done, stop_reason=stop_reason, usage=wire_usage(usage), extra=extra)


def _index(payload: JsonObject) -> int:
    return as_int(payload.get("contentBlockIndex")) or 0
