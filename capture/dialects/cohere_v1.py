"""Cohere v1: chat and generate, streamed (a JSON object a line, or SSE) and one-shot.

Source: Cohere's v1 references. A stream ends with an event that holds the whole
answer; its texts are what was already told, so they count only where no event told
them. The whole calls of ``tool-calls-generation`` outrank the fragments before them.
Text that goes before tool calls is the answer's text, as one-shot answers have it.
Generate may answer with several generations, and names its events only sometimes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from msgspec import Struct

from capture.dialects.cohere_usage import error_of, usage_of
from capture.dialects.document import answer_object, object_in, unlabelled_lines
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
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
    Turn,
    Usage,
    WireFacts,
)
from capture.wire_response import wire_block


class _Event(Struct):
    """What most events have; the others are read whole, member by member."""

    event_type: str | None = None
    text: str | None = None
    is_finished: bool | None = None
    index: int | None = None


_READER: Final = EventReader(_Event)
_DONE: Final = b"[DONE]"
_TEXTS: Final = frozenset({"text-generation", "", None})
_UNREAD: Final = frozenset({"search-queries-generation", "search-results", "debug"})


class _Answer:
    """A generation while it arrives; a chat has one."""

    __slots__ = ("calls", "finish_reason", "fragments", "index", "said")

    def __init__(self, index: int) -> None:
        self.index = index
        self.said = Pieces()
        self.finish_reason = ""
        self.calls: list[Call] = []
        self.fragments: dict[int, Call] = {}

    def made(self) -> list[Call]:
        """The calls: whole ones, else what fragments there are of them."""
        return self.calls or list(self.fragments.values())

    def choice(self, *, partial: bool, failed: bool) -> Choice:
        calls = tuple(call.tool_call() for call in self.made())
        word = self.finish_reason or None
        return Choice(
            index=self.index,
            text=self.said.text(),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(word, partial=partial, has_tool_calls=bool(calls), failed=failed),
        )

    def blocks(self) -> tuple[Block, ...]:
        said = self.said.text()
        texts = (Block(type="text", text=said),) if said else ()
        return (*texts, *(call.block() for call in self.made()))


class CohereV1Fold:
    """Folds the events of one answer, or one answer object."""

    __slots__ = (
        "_answers",
        "_citations",
        "_damage",
        "_done",
        "_error",
        "_id",
        "_is_document",
        "_meta",
        "_refused",
        "_response_id",
    )

    def __init__(self, request: RequestFacts) -> None:
        del request  # nothing in an answer depends on it
        self._answers: dict[int, _Answer] = {}
        self._id = ""
        self._response_id = ""
        self._citations: list[object] = []
        self._meta: JsonObject | None = None
        self._done = False
        self._is_document = False
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream -----------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of events."""
        if _DONE in datas:
            end = datas.index(_DONE)
            names, datas = names[:end], datas[:end]
        touched: set[Pieces] = set()
        for name, data, event in zip(names, datas, _READER.read(datas), strict=True):
            if event is None:
                self._salvage(name, data)
            elif event.text and event.event_type in _TEXTS and not event.is_finished:
                said = self._answer(event.index or 0).said
                said.append(event.text)
                touched.add(said)
            else:
                self._read(name, data)
        for pieces in touched:
            pieces.settle()
        for answer in self._answers.values():
            for call in answer.fragments.values():
                call.fragments.settle()

    def _answer(self, index: int) -> _Answer:
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Answer(index)
        return answer

    def _salvage(self, name: bytes, data: bytes) -> None:
        """An event with members of unexpected types loses only those."""
        if self._read(name, data):
            self._damage.add(Damage.UNKNOWN_CONTENT, "an event with members of unexpected types")

    def _read(self, name: bytes, data: bytes) -> bool:
        """Read an event member by member; False when it is no JSON object."""
        members = object_in(data)
        if members is None:
            self._damage.add(Damage.UNPARSEABLE_EVENT, data[:80].decode("utf-8", "replace"))
            return False
        kind = as_text(members.get("event_type")) or name.decode("utf-8", "replace")
        match kind:
            case "tool-calls-chunk":
                self._add_said(members)
                self._add_fragment(as_mapping(members.get("tool_call_delta")))
            case "tool-calls-generation":
                self._add_whole_calls(members)
            case "citation-generation":
                self._citations.extend(as_list(members.get("citations")))
            case "stream-start":
                self._name(members)
            case "text-generation":
                self._add_said(members)
            case "stream-end":
                self._end(members, data)
            case "stream-error":
                self._fail(data)
            case "":
                self._nameless(members, data)
            case _ if kind not in _UNREAD:
                self._damage.add(Damage.UNKNOWN_EVENT, kind)
            case _:
                pass
        return True

    def _nameless(self, members: JsonObject, data: bytes) -> None:
        """A generate event of an older server, or an error in the place of one."""
        if members.get("is_finished") is True:
            self._end(members, data)
        elif isinstance(members.get("text"), str):
            self._add_said(members)
        elif as_text(members.get("message")) or members.get("error"):
            self._fail(data)
        else:
            self._damage.add(Damage.UNKNOWN_EVENT, data[:80].decode("utf-8", "replace"))

    def _add_said(self, members: JsonObject) -> None:
        said = as_text(members.get("text"))
        if said:
            self._answer(as_int(members.get("index")) or 0).said.append(said)

    def _add_fragment(self, delta: JsonObject | None) -> None:
        if delta is None:
            return
        fragments = self._answer(0).fragments
        index = as_int(delta.get("index")) or 0
        call = fragments.get(index)
        if call is None:
            call = fragments[index] = Call()
        call.add_function({"name": delta.get("name"), "arguments": delta.get("parameters")})

    def _add_whole_calls(self, members: JsonObject) -> None:
        answer = self._answer(0)
        calls = [_call(given) for given in as_list(members.get("tool_calls"))]
        answer.calls = calls or answer.calls
        if not answer.said.text():
            self._add_said(members)

    def _end(self, members: JsonObject, data: bytes) -> None:
        response = as_mapping(members.get("response"))
        if response is not None:
            self._take(response)
        answer = self._answer(0)
        answer.finish_reason = as_text(members.get("finish_reason")) or answer.finish_reason
        # An error breaks the stream off, although is_finished is there.
        if as_text(members.get("err")) or members.get("error"):
            self._fail(data)
        else:
            self._done = True

    def _fail(self, text: bytes) -> None:
        """The first error is the one that ended the answer."""
        if self._error is not None:
            return
        error = error_of(text, in_stream=not self._is_document)
        explained = as_text((object_in(text) or {}).get("err"))
        self._error = replace(error, message=explained) if explained else error

    def _name(self, members: JsonObject) -> None:
        """Generate has one ``id``; of a chat's two, ``generation_id`` counts (CANONICAL.md)."""
        self._id = self._id or as_text(members.get("generation_id")) or as_text(members.get("id"))
        self._response_id = self._response_id or as_text(members.get("response_id"))

    # -- one-shot ---------------------------------------------------------------

    def _take(self, answer: JsonObject) -> None:
        """Read a whole answer: a one-shot body, or what the last event of a stream repeats."""
        self._name(answer)
        generations = [as_mapping(item) or {} for item in as_list(answer.get("generations"))]
        for position, generation in enumerate(generations or [answer]):
            index = as_int(generation.get("index"))
            given = self._answer(position if index is None else index)
            if not given.said.text():
                given.said.append(as_text(generation.get("text")))
            given.finish_reason = as_text(generation.get("finish_reason")) or given.finish_reason
            calls = [_call(call) for call in as_list(generation.get("tool_calls"))]
            given.calls = calls or given.calls
        self._citations = as_list(answer.get("citations")) or self._citations
        self._meta = as_mapping(answer.get("meta")) or self._meta

    def document(self, body: bytes) -> None:
        """Fold an answer object, an error object, or lines that nobody labelled as such."""
        members = answer_object(body)
        if isinstance(members, Refused):
            self._read_lines(body, members)
        elif "event_type" in members:  # a stream of which one event came
            self.events([b""], [body])
        else:
            self._is_document = True
            if not _SPOKEN.intersection(members):
                self._nameless(members, body)
            self._take(members)

    def _read_lines(self, body: bytes, refused: Refused) -> None:
        lines = unlabelled_lines(body, _READER)
        self._refused = None if lines else refused
        self.events([b""] * len(lines), lines)

    # -- the turn ---------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # stream-end alone says that the answer is whole
        if self._refused is not None:
            return self._refused
        answers = [self._answers[index] for index in sorted(self._answers)] or [_Answer(0)]
        ended = self._done or self._is_document
        failed = self._error is not None
        partial = not self._is_document and (failed or not ended)
        usage = usage_of(self._meta)
        choices = tuple(answer.choice(partial=partial, failed=failed) for answer in answers)
        unreadable = unreadable_input(call for choice in choices for call in choice.tool_calls)
        return Turn(
            dialect=Dialect.COHERE_V1,
            model="",
            response_id=self._id or self._response_id or None,
            role="assistant",
            blocks=answers[0].blocks(),
            choices=choices,
            usage=usage,
            partial=partial,
            wire=self._wire(answers, usage, done=ended),
            provider_error=self._error,
            diagnostics=self._damage.diagnostics() + unreadable,
        )

    def _wire(self, answers: Sequence[_Answer], usage: Usage, *, done: bool) -> WireFacts:
        extra: dict[str, object] = {}
        stop_reason = answers[0].finish_reason
        if self._id or self._response_id:
            extra["id"] = self._id or self._response_id
        if len(answers) > 1:
            extra["choices"] = [_wire_choice(answer) for answer in answers[1:]]
        if self._citations:
            extra["citations"] = list(self._citations)
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
            stop_reason = stop_reason or "error"
        if not done:
            extra["partial"] = True
        return WireFacts(done=done, stop_reason=stop_reason, usage=wire_usage(usage), extra=extra)


_SPOKEN: Final = frozenset({"text", "generations", "tool_calls"})


def _call(given: object) -> Call:
    """A whole call: v1 has a name and parameters, and no id."""
    members: Mapping[str, object] = as_mapping(given) or {}
    call = Call()
    call.id = as_text(members.get("id"))
    call.add_function({"name": members.get("name"), "arguments": members.get("parameters")})
    return call


def _wire_choice(answer: _Answer) -> JsonObject:
    content = [wire_block(block) for block in answer.blocks()]
    message = {"role": "assistant", "content": content}
    return {"index": answer.index, "message": message, "stop_reason": answer.finish_reason}
