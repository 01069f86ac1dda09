"""Ollama's own chat and generate: one JSON object a line, or one object in all.

Source: Ollama's API reference. A streamed line and a one-shot answer have the same
members, so both are read alike; the last line has ``done``, the reason and the counts.
Tool calls come whole, with an id only from newer servers. An error after the first
line is a line of its own, ``{"error": …}``.

Servers and gateways label streams as they like: lines under no content type, or under
``application/json``, arrive here as one document and are read line by line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from msgspec import Struct

from capture.dialects.document import answer_object, object_in, unlabelled_lines
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.openai_answer import Call
from capture.dialects.pieces import Pieces
from capture.dialects.unreadable import unreadable_input
from capture.dialects.wire_usage import total_of, wire_usage
from capture.http_error import provider_error
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


class _Message(Struct):
    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    tool_calls: object = None
    images: object = None


class _Line(Struct):
    """What most lines have. What only the last one has is read from it apart."""

    model: str | None = None
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: object = None
    done: bool | None = None


_READER: Final = EventReader(_Line)

_COUNTS: Final = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


class OllamaFold:
    """Folds the lines of one answer, or one answer object."""

    __slots__ = (
        "_calls",
        "_created_at",
        "_damage",
        "_done",
        "_done_reason",
        "_error",
        "_images",
        "_is_document",
        "_model",
        "_refused",
        "_role",
        "_text",
        "_thinking",
        "_usage",
    )

    dialect: ClassVar[Dialect] = Dialect.OLLAMA_CHAT

    def __init__(self, request: RequestFacts) -> None:
        del request  # an answer names its own model
        self._model = ""
        self._created_at = ""
        self._role = ""
        self._text = Pieces()
        self._thinking = Pieces()
        self._images: list[str] = []
        self._calls: list[Call] = []
        self._usage: JsonObject = {}
        self._done = False
        self._done_reason = ""
        self._is_document = False
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream -----------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of lines."""
        del names  # lines have none
        for data, line in zip(datas, _READER.read(datas), strict=True):
            if line is None:
                self._salvage(data)
                continue
            said = self._add(line)
            if line.done or not said:
                self._read_rest(data)
        self._text.settle()
        self._thinking.settle()

    def _add(self, line: _Line) -> bool:
        """Take what a line says; False when it says nothing that most lines have."""
        if line.model and not self._model:
            self._model = line.model
        message = line.message
        if message is not None:
            if message.content:
                self._text.append(message.content)
            if message.thinking:
                self._thinking.append(message.thinking)
            self._add_rare(message)
            return True
        if line.response:
            self._text.append(line.response)
        if line.thinking:
            self._thinking.append(line.thinking)
        if line.tool_calls is not None:
            self._add_calls(line.tool_calls)
        return line.response is not None or line.thinking is not None

    def _add_rare(self, message: _Message) -> None:
        if message.role and not self._role:
            self._role = message.role
        if message.tool_calls is not None:
            self._add_calls(message.tool_calls)
        if message.images is not None:
            self._images.extend(image for image in as_list(message.images) if isinstance(image, str))

    def _add_calls(self, calls: object) -> None:
        for given in as_list(calls):
            call = Call()
            call.add(as_mapping(given) or {})
            self._calls.append(call)

    def _salvage(self, data: bytes) -> None:
        """A line with members of unexpected types loses only those."""
        members = object_in(data)
        if members is None:
            self._damage.add(Damage.UNPARSEABLE_EVENT, data[:80].decode("utf-8", "replace"))
            return
        self._damage.add(Damage.UNKNOWN_CONTENT, "a line with members of unexpected types")
        self._add(_tolerantly(members))
        self._finish(members, data)

    def _read_rest(self, data: bytes) -> None:
        self._finish(object_in(data) or {}, data)  # the decoder of lines was content with less

    def _finish(self, members: JsonObject, data: bytes) -> None:
        """What only a last line has: an error, or the reason, the counts and an image."""
        if members.get("error"):
            error = replace(provider_error(200, data, {}), where="http" if self._is_document else "stream")
            self._error = self._error or error
        elif members.get("done") is True:
            self._done = True
            self._done_reason = as_text(members.get("done_reason"))
            self._created_at = as_text(members.get("created_at"))
            self._usage = {name: members[name] for name in _COUNTS if members.get(name) is not None}
            if as_text(members.get("image")):
                self._images.append(as_text(members.get("image")))
        elif not _SPOKEN.intersection(members):
            self._damage.add(Damage.UNKNOWN_EVENT, data[:80].decode("utf-8", "replace"))

    # -- one-shot ---------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold an answer object, an error object, or lines that nobody labelled as such."""
        members = answer_object(body)
        if isinstance(members, Refused):
            self._read_lines(body, members)
            return
        # The only line of a stream that broke off says itself that it is not the last.
        self._is_document = members.get("done") is not False
        self._add(_tolerantly(members))
        self._finish(members, body)

    def _read_lines(self, body: bytes, refused: Refused) -> None:
        lines = unlabelled_lines(body, _READER)
        self._refused = None if lines else refused
        self.events([b""] * len(lines), lines)

    # -- the turn ---------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # `done` alone says that the answer is whole
        if self._refused is not None:
            return self._refused
        ended = self._done or self._is_document
        partial = not ended or (self._error is not None and not self._is_document)
        usage = _usage(self._usage)
        answer = self._choice(partial=partial)
        return Turn(
            dialect=self.dialect,
            model=self._model,
            response_id=None,
            role=self._role or "assistant",
            blocks=self._blocks(),
            choices=(answer,),
            usage=usage,
            partial=partial,
            wire=self._wire(usage, done=ended),
            provider_error=self._error,
            diagnostics=self._damage.diagnostics() + unreadable_input(answer.tool_calls),
        )

    def _choice(self, *, partial: bool) -> Choice:
        calls = tuple(call.tool_call() for call in self._calls)
        word = self._done_reason or None
        failed = self._error is not None
        return Choice(
            text=self._text.text(),
            thinking=self._thinking.text(),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(word, partial=partial, has_tool_calls=bool(calls), failed=failed),
        )

    def _blocks(self) -> tuple[Block, ...]:
        thinking, text = self._thinking.text(), self._text.text()
        blocks = [Block(type="thinking", thinking=thinking)] if thinking else []
        if text:
            blocks.append(Block(type="text", text=text))
        blocks.extend(Block(type="image", image_base64=image) for image in self._images)
        blocks.extend(call.block() for call in self._calls)
        return tuple(blocks)

    def _wire(self, usage: Usage, *, done: bool) -> WireFacts:
        extra: dict[str, object] = {}
        stop_reason = self._done_reason
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
            stop_reason = stop_reason or "error"
        if not done:
            extra["partial"] = True
        return WireFacts(
            done=done,
            stop_reason=stop_reason,
            created_at=self._created_at,
            usage=wire_usage(usage),
            extra=extra,
        )


class GenerateFold(OllamaFold):
    """The same answer to a prompt: its text is ``response``, not a message."""

    __slots__ = ()

    dialect: ClassVar[Dialect] = Dialect.OLLAMA_GENERATE


# Members by which a line shows that it is one of an answer (image progress among them).
_SPOKEN: Final = frozenset({"message", "response", "thinking", "tool_calls", "completed"})


def _tolerantly(members: Mapping[str, object]) -> _Line:
    message = as_mapping(members.get("message"))
    return _Line(
        model=as_text(members.get("model")),
        message=None if message is None else _message(message),
        response=as_text(members.get("response")),
        thinking=as_text(members.get("thinking")),
        tool_calls=members.get("tool_calls"),
    )


def _message(members: Mapping[str, object]) -> _Message:
    return _Message(
        role=as_text(members.get("role")),
        content=as_text(members.get("content")),
        thinking=as_text(members.get("thinking")),
        tool_calls=members.get("tool_calls"),
        images=members.get("images"),
    )


def _usage(counts: JsonObject) -> Usage:
    if not counts:
        return Usage()
    prompt, generated = as_int(counts.get("prompt_eval_count")), as_int(counts.get("eval_count"))
    return Usage(
        input_tokens=prompt,
        output_tokens=generated,
        total_tokens=total_of(None, prompt, generated),
        raw=counts,
    )
