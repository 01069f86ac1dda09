"""Cohere v2 chat, streamed (SSE) and one-shot.

Source: Cohere's v2 chat reference and its guides to streaming and tool use. Content and
tool calls are numbered apart, each from 0. The plan that goes before tool calls is
neither text nor thinking in the neutral view (CANONICAL.md): it is a thinking block, as
the next request echoes it, and stands under ``unparsed``. An answer names no model.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from capture.dialects.cohere_usage import error_of, usage_of
from capture.dialects.document import answer_object, object_in
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.json_text import compact
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.openai_answer import Call
from capture.dialects.pieces import Pieces
from capture.dialects.unreadable import unreadable_input
from capture.dialects.wire_usage import wire_usage
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
)


class _Content(Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class _Message(Struct):
    role: str | None = None
    content: _Content | list[object] | None = None
    tool_plan: str | None = None
    tool_calls: object = None
    citations: object = None


class _Delta(Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: dict[str, object] | None = None
    error: object = None


class _Event(Struct):
    type: str | None = None
    index: int | None = None
    id: str | None = None
    delta: _Delta | None = None


_READER: Final = EventReader(_Event)
_DONE: Final = b"[DONE]"
_UNREAD: Final = frozenset({"content-end", "tool-call-end", "citation-end", "debug"})


class _Part:
    """A piece of content: text or thinking."""

    __slots__ = ("kind", "said")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.said = Pieces()


class CohereV2Fold:
    """Folds the events of one answer, or one answer object."""

    __slots__ = (
        "_calls",
        "_citations",
        "_damage",
        "_done",
        "_error",
        "_finish_reason",
        "_id",
        "_is_document",
        "_open_calls",
        "_open_parts",
        "_parts",
        "_plan",
        "_refused",
        "_role",
        "_unknown",
        "_usage",
    )

    def __init__(self, request: RequestFacts) -> None:
        del request  # nothing in an answer depends on it
        self._id = ""
        self._role = ""
        self._plan = Pieces()
        self._parts: list[_Part] = []
        self._open_parts: dict[tuple[int, str], _Part] = {}
        self._calls: list[Call] = []
        self._open_calls: dict[int, Call] = {}
        self._citations: list[object] = []
        self._unknown: list[object] = []
        self._finish_reason = ""
        self._usage: JsonObject | None = None
        self._done = False
        self._is_document = False
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream -----------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of stream events."""
        if _DONE in datas:  # follows message-end, which already said so
            end = datas.index(_DONE)
            self._ignore(len(datas) - end - 1)
            names, datas = names[:end], datas[:end]
        touched: set[Pieces] = set()
        parts, calls = self._open_parts, self._open_calls
        for name, data, event in zip(names, datas, _READER.read(datas), strict=True):
            if event is None:
                self._salvage(name, data)
                continue
            delta = event.delta
            message = delta.message if delta is not None else None
            if message is None:
                self._apply(_kind(event, name), event, data)
                continue
            content = message.content
            if type(content) is _Content and event.type == "content-delta":
                said, other = content.text, content.thinking
                part = parts.get((event.index or 0, "text" if said else "thinking"))
                said = said or other
                if said and part is not None and not (content.text and other):
                    part.said.append(said)
                    touched.add(part.said)
                    continue
            elif event.type == "tool-call-delta":
                call = calls.get(event.index or 0)
                if call is not None:
                    call.add(as_mapping(message.tool_calls) or {})
                    touched.add(call.fragments)
                    continue
            self._apply(_kind(event, name), event, data)
        for pieces in touched:
            pieces.settle()
        self._plan.settle()

    def _ignore(self, count: int) -> None:
        if count:
            self._damage.add(Damage.UNKNOWN_EVENT, "after [DONE]", count)

    def _apply(self, kind: str, event: _Event, data: bytes) -> None:
        delta = event.delta or _Delta()
        message = delta.message or _Message()
        index = event.index or 0
        match kind:
            case "content-start" | "content-delta":
                self._add_content(index, message.content, opens=kind == "content-start", data=data)
            case "tool-plan-delta":
                self._add_plan(message.tool_plan)
            case "tool-call-start" | "tool-call-delta":
                self._add_call(index, message.tool_calls, opens=kind == "tool-call-start")
            case "citation-start":
                self._add_citations(message.citations)
            case "message-start":
                self._id = self._id or event.id or ""
                self._start(message)
            case "message-end":
                self._end(delta)
            case "":
                self._nameless(data)
            case _ if kind not in _UNREAD:
                self._damage.add(Damage.UNKNOWN_EVENT, kind)
            case _:
                pass

    def _start(self, message: _Message) -> None:
        self._role = self._role or message.role or ""
        self._add_plan(message.tool_plan)
        for index, content in enumerate(message.content if isinstance(message.content, list) else []):
            self._open(index, as_mapping(content) or {})
        for index, call in enumerate(as_list(message.tool_calls)):
            self._add_call(index, call, opens=True)
        self._add_citations(message.citations)

    def _add_plan(self, plan: str | None) -> None:
        if plan:
            self._plan.append(plan)

    def _add_content(
        self, index: int, content: _Content | list[object] | None, *, opens: bool, data: bytes
    ) -> None:
        given = content if isinstance(content, _Content) else _Content()
        told = {"thinking": given.thinking, "text": given.text}
        said = {kind: text for kind, text in told.items() if text is not None}
        if (given.type or "text") not in told or not (said or given.type):
            self._keep_unknown(_content_in(data))
        elif opens:
            self._open(index, {"type": given.type, **said})
        else:
            for kind, text in said.items():
                if (index, kind) not in self._open_parts:
                    self._open(index, {"type": kind})
                self._open_parts[index, kind].said.append(text)

    def _open(self, index: int, content: JsonObject) -> None:
        """A content item begins; in a one-shot answer it ends there too."""
        kind = as_text(content.get("type")) or ("thinking" if "thinking" in content else "text")
        if kind not in ("text", "thinking"):
            self._keep_unknown(content)
            return
        part = self._open_parts[index, kind] = _Part(kind)
        self._parts.append(part)
        part.said.append(as_text(content.get(kind)))

    def _keep_unknown(self, content: object) -> None:
        self._damage.add(Damage.UNKNOWN_CONTENT, as_text((as_mapping(content) or {}).get("type")))
        if content is not None:
            self._unknown.append(content)

    def _add_call(self, index: int, given: object, *, opens: bool) -> None:
        call = None if opens else self._open_calls.get(index)
        if call is None:
            call = self._open_calls[index] = Call()
            self._calls.append(call)
        call.add(as_mapping(given) or {})

    def _add_citations(self, given: object) -> None:
        one = as_mapping(given)
        self._citations.extend(as_list(given) if one is None else [one])

    def _end(self, delta: _Delta) -> None:
        self._done = True
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        if delta.error:
            self._fail(compact({"error": delta.error}).encode())

    def _fail(self, text: bytes) -> None:
        """The first error is the one that ended the answer."""
        self._error = self._error or error_of(text, in_stream=not self._is_document)

    def _nameless(self, data: bytes) -> None:
        """An event without a type: an error, or nothing we know."""
        members = object_in(data) or {}
        if as_text(members.get("message")) or members.get("error"):
            self._fail(data)
        else:
            self._damage.add(Damage.UNKNOWN_EVENT, data[:80].decode("utf-8", "replace"))

    def _salvage(self, name: bytes, data: bytes) -> None:
        """An event with members of unexpected types loses only those."""
        members = object_in(data)
        if members is None:
            self._damage.add(Damage.UNPARSEABLE_EVENT, data[:80].decode("utf-8", "replace"))
            return
        event = _tolerantly(members)
        kind = _kind(event, name)
        if kind:
            self._damage.add(Damage.UNKNOWN_CONTENT, f"{kind}: members of unexpected types")
        self._apply(kind, event, data)

    # -- one-shot ---------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold an answer object, or an error object that came with status 200."""
        self._is_document = True
        answer = answer_object(body)
        if isinstance(answer, Refused):
            self._refused = answer
            return
        self._id = as_text(answer.get("id"))
        message = as_mapping(answer.get("message"))
        if message is None:
            self._nameless(body)
            return
        self._start(_message(message))
        if as_text(message.get("content")):
            self._open(0, {"type": "text", "text": message["content"]})
        self._finish_reason = as_text(answer.get("finish_reason"))
        self._usage = as_mapping(answer.get("usage"))

    # -- the turn ---------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # message-end alone says that the answer is whole
        if self._refused is not None:
            return self._refused
        ended = self._done or self._is_document
        partial = not ended or (self._error is not None and not self._is_document)
        usage = usage_of(self._usage)
        calls = tuple(call.tool_call() for call in self._calls)
        return Turn(
            dialect=Dialect.COHERE_V2,
            model="",
            response_id=self._id or None,
            role=self._role or "assistant",
            blocks=self._blocks(),
            choices=(self._choice(calls, partial=partial),),
            usage=usage,
            partial=partial,
            wire=self._wire(usage, done=ended),
            provider_error=self._error,
            diagnostics=(*self._damage.diagnostics(), *unreadable_input(calls)),
            unparsed=(*([{"tool_plan": self._plan.text()}] if self._plan else []), *self._unknown),
        )

    def _choice(self, calls: tuple[ToolCall, ...], *, partial: bool) -> Choice:
        word = self._finish_reason or None
        failed = self._error is not None
        return Choice(
            text=self._said("text"),
            thinking=self._said("thinking"),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(word, partial=partial, has_tool_calls=bool(calls), failed=failed),
        )

    def _said(self, kind: str) -> str:
        return "".join(part.said.text() for part in self._parts if part.kind == kind)

    def _blocks(self) -> tuple[Block, ...]:
        plan = self._plan.text()
        blocks = [Block(type="thinking", thinking=plan)] if plan else []
        for part in self._parts:
            said = part.said.text()
            if said:
                is_text = part.kind == "text"
                blocks.append(
                    Block(type="text", text=said) if is_text else Block(type="thinking", thinking=said)
                )
        blocks.extend(
            Block(type=as_text((as_mapping(content) or {}).get("type")) or "unparsed", content=content)
            for content in self._unknown
        )
        blocks.extend(call.block() for call in self._calls)
        return tuple(blocks)

    def _wire(self, usage: Usage, *, done: bool) -> WireFacts:
        extra: dict[str, object] = {"id": self._id} if self._id else {}
        stop_reason = self._finish_reason
        if self._citations:
            extra["citations"] = list(self._citations)
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
            stop_reason = stop_reason or "error"
        if not done:
            extra["partial"] = True
        return WireFacts(done=done, stop_reason=stop_reason, usage=wire_usage(usage), extra=extra)


def _kind(event: _Event, name: bytes) -> str:
    return event.type or name.decode("utf-8", "replace")


def _content_in(data: bytes) -> object:
    """The content of an event, whole."""
    delta = as_mapping((object_in(data) or {}).get("delta")) or {}
    return (as_mapping(delta.get("message")) or {}).get("content")


def _tolerantly(members: Mapping[str, object]) -> _Event:
    delta = as_mapping(members.get("delta")) or {}
    usage = as_mapping(delta.get("usage"))
    return _Event(
        type=as_text(members.get("type")),
        index=as_int(members.get("index")),
        id=as_text(members.get("id")),
        delta=_Delta(
            message=_message(as_mapping(delta.get("message")) or {}),
            finish_reason=as_text(delta.get("finish_reason")),
            usage=dict(usage) if usage is not None else None,
            error=delta.get("error"),
        ),
    )


def _message(members: Mapping[str, object]) -> _Message:
    content = as_mapping(members.get("content"))
    return _Message(
        role=as_text(members.get("role")),
        content=as_list(members.get("content")) if content is None else _content(content),
        tool_plan=as_text(members.get("tool_plan")),
        tool_calls=members.get("tool_calls"),
        citations=members.get("citations"),
    )


def _content(members: Mapping[str, object]) -> _Content:
    return _Content(
        type=as_text(members.get("type")) or None,
        text=as_text(members.get("text")) or None,
        thinking=as_text(members.get("thinking")) or None,
    )
