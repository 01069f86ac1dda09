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
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.stop_words import result_of
from capture.turn import (
    Block,
    Choice,
    Damage,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    ToolCall,
    Turn,
    Usage,
    WireFacts,
    WireUsage,
)


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    content: str | None = None
    citation: object = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(Struct):
    type: str = ""
    index: int | None = 0
    delta: _Delta | None = None
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
_TOOLS: Final = frozenset({"tool_use", "server_tool_use"})
# The contract keeps the members of these; of every other type only its name.
_MAPPED: Final = _TOOLS | {"text", "thinking", "web_search_tool_result"}


class _OpenBlock:
    """A content block while its deltas arrive."""

    __slots__ = (
        "arguments",
        "citations",
        "closed",
        "content",
        "fragments",
        "start",
        "text",
        "thinking",
        "thinking_signature",
        "type",
    )

    def __init__(self, start: Mapping[str, object]) -> None:
        self.type = as_text(start.get("type"))
        self.start = start
        self.text = Pieces(as_text(start.get("text")))
        self.thinking = Pieces(as_text(start.get("thinking")))
        self.thinking_signature = Pieces(as_text(start.get("signature")))
        self.fragments = Pieces()
        self.content = Pieces()
        self.citations: list[object] = []
        self.closed = False
        self.arguments: tuple[JsonObject | None, str | None] | None = None

    def settle(self) -> None:
        for pieces in (self.text, self.thinking, self.thinking_signature, self.fragments, self.content):
            pieces.settle()

    def parsed(self) -> tuple[JsonObject | None, str | None]:
        """The arguments: of the fragments when any came, else those given at the start."""
        if self.arguments is not None:
            return self.arguments
        if not self.fragments:
            return as_mapping(self.start.get("input")) or {}, None
        return parse_arguments(self.fragments.text())

    def block(self) -> Block:
        """The block in the contract's members (an unclosed call's fragments are no input there)."""
        start = self.start
        if self.type in _TOOLS:
            arguments, _ = self.parsed() if self.closed or not self.fragments else (None, None)
            return Block(
                type=self.type,
                tool_use_id=as_text(start.get("id")),
                tool_name=as_text(start.get("name")),
                tool_input=arguments if arguments is not None else as_mapping(start.get("input")),
            )
        if self.type == "web_search_tool_result":
            return Block(
                type=self.type, tool_result_id=as_text(start.get("tool_use_id")), content=start.get("content")
            )
        return Block(
            type=self.type,
            text=self.text.text(),
            thinking=self.thinking.text(),
            thinking_signature=self.thinking_signature.text(),
        )

    def whole(self) -> dict[str, object]:
        """The block as one object, as a one-shot answer would have sent it."""
        block = dict(self.start)
        if self.fragments or self.arguments is not None:
            arguments, raw = self.parsed()
            block["input"] = raw if arguments is None else arguments
        for name, pieces in (("text", self.text), ("thinking", self.thinking), ("content", self.content)):
            if pieces:
                block[name] = pieces.text()
        if self.citations:
            block["citations"] = self.citations
        return block

    def is_mapped(self) -> bool:
        """True when the contract's members hold all of it."""
        return self.type in _MAPPED and not self.citations

    def tool_call(self) -> ToolCall:
        arguments, raw = self.parsed()
        return ToolCall(
            id=as_text(self.start.get("id")) or None,
            name=as_text(self.start.get("name")),
            arguments=arguments,
            raw_arguments=raw,
        )


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
        self._blocks: dict[int, _OpenBlock] = {}
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
        touched: set[_OpenBlock] = set()
        blocks = self._blocks
        for name, data, event in zip(names, datas, _READER.read(datas), strict=True):
            kind = name.decode("utf-8", "replace") if name else event.type if event else ""
            if kind == "content_block_delta" and event is not None and event.delta is not None:
                index = event.index or 0
                block = blocks.get(index)
                if block is None:
                    block = blocks[index] = _OpenBlock({"type": "text"})
                if not _append(block, event.delta):
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
            self._wire_usage = _prompt_usage(usage)
        for index, given in enumerate(_listed(message.get("content"))):
            self._blocks.setdefault(index, _OpenBlock(given))

    def _open(self, index: int, start: Mapping[str, object]) -> None:
        if index < 0:  # the contract loses such a block; here it is at least told
            self._damage.add(Damage.UNKNOWN_CONTENT, f"block at index {index}")
        self._blocks[index] = _OpenBlock(start)

    def _close(self, index: int) -> None:
        block = self._blocks.get(index)
        if block is None:
            return
        block.closed = True
        if block.fragments:
            block.arguments = parse_arguments(block.fragments.text())
            if block.arguments[0] is not None:
                block.fragments = Pieces()
            elif block.type in _TOOLS:
                self._damage.add(Damage.UNPARSEABLE_TOOL_INPUT, as_text(block.start.get("name")))

    def _message_delta(self, event: _Event) -> None:
        if event.delta is not None:
            self._stop_reason = event.delta.stop_reason or self._stop_reason
            if event.delta.stop_sequence is not None:
                self._stop_sequence = event.delta.stop_sequence
        if event.usage is not None:
            self._count(event.usage)
            self._wire_usage = _with_completion(
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
        try:
            message = jsontext.decode(body)
        except jsontext.JsonError as error:
            self._refused = Refused(f"the answer is not JSON: {error}")
            return
        if not isinstance(message, dict):
            self._refused = Refused("the answer is not a JSON object")
            return
        self._document = jsontext.strict_text(body, cast("object", message))
        self._message = cast("JsonObject", message)
        for index, given in enumerate(_listed(self._message.get("content"))):
            self._blocks[index] = block = _OpenBlock(given)
            block.closed = True
        self._stop_reason = as_text(self._message.get("stop_reason"))
        usage = as_mapping(self._message.get("usage"))
        if usage is not None:
            self._count(usage)
            self._wire_usage = _with_completion(_prompt_usage(usage), as_int(usage.get("output_tokens")) or 0)
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
            usage=_usage(self._usage),
            partial=partial,
            wire=self._wire(blocks),
            provider_error=error,
            diagnostics=self._damage.diagnostics(),
            unparsed=tuple(block.whole() for block in blocks if not block.is_mapped()),
        )

    def _choice(self, blocks: Sequence[_OpenBlock], *, partial: bool, failed: bool) -> Choice:
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

    def _wire(self, blocks: Sequence[_OpenBlock]) -> WireFacts:
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
        failures = [failure for block in blocks if (failure := _argument_failure(block)) is not None]
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


def _append(block: _OpenBlock, delta: _Delta) -> bool:
    """Append a delta to its block. False: nobody knows this kind of delta."""
    match delta.type:
        case "text_delta":
            block.text.append(delta.text or "")
        case "input_json_delta":
            block.fragments.append(delta.partial_json or "")
        case "thinking_delta":
            block.thinking.append(delta.thinking or "")
        case "signature_delta":
            block.thinking_signature.append(delta.signature or "")
        case "citations_delta":
            block.citations.append(delta.citation)
        case "compaction_delta":
            block.content.append(delta.content or "")
        case _:
            return False
    return True


def _listed(content: object) -> list[JsonObject]:
    items = cast("list[object]", content) if isinstance(content, list) else []
    return [cast("JsonObject", item) if isinstance(item, dict) else {} for item in items]


def _answering_model(message: Mapping[str, object], blocks: Sequence[_OpenBlock]) -> str:
    """A ``fallback`` block names the model that took over (``to.model``)."""
    for block in blocks:
        if block.type == "fallback":
            model = as_text((as_mapping(block.start.get("to")) or {}).get("model"))
            if model:
                return model
    return as_text(message.get("model"))


def _argument_failure(block: _OpenBlock) -> dict[str, str] | None:
    if not block.closed or block.type not in _TOOLS or block.arguments is None:
        return None
    raw = block.arguments[1]
    if raw is None:
        return None
    return {"tool_use_id": as_text(block.start.get("id")), "raw": raw, "error": "not a JSON object"}


def _prompt_usage(usage: Mapping[str, object]) -> WireUsage:
    created = as_int(usage.get("cache_creation_input_tokens")) or 0
    read = as_int(usage.get("cache_read_input_tokens")) or 0
    prompt = (as_int(usage.get("input_tokens")) or 0) + created + read
    return WireUsage(
        prompt_tokens=prompt,
        total_tokens=prompt,
        cache_creation_input_tokens=created,
        cache_read_input_tokens=read,
    )


def _with_completion(usage: WireUsage, completion: int) -> WireUsage:
    return WireUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=completion,
        total_tokens=usage.prompt_tokens + completion,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
    )


def _usage(usage: JsonObject) -> Usage:
    """The cached parts of an Anthropic prompt lie outside ``input_tokens``."""
    if not usage:
        return Usage()
    uncached = as_int(usage.get("input_tokens"))
    read = as_int(usage.get("cache_read_input_tokens"))
    written = as_int(usage.get("cache_creation_input_tokens"))
    whole = None if uncached is None else uncached + (read or 0) + (written or 0)
    output = as_int(usage.get("output_tokens"))
    details = as_mapping(usage.get("output_tokens_details")) or {}
    return Usage(
        input_tokens=whole,
        output_tokens=output,
        total_tokens=None if whole is None or output is None else whole + output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=as_int(details.get("thinking_tokens")),
        raw=dict(usage),
    )
