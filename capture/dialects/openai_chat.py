"""OpenAI Chat Completions, and everything that speaks it: streamed and one-shot.

Source: the Chat Completions reference for the shapes, the vendors' own references for
what they do differently (each difference is named where it is read). Members that
vendors type freely are ``object`` here and read tolerantly; an event whose skeleton is
of other types is read again by hand, so that only the odd member is lost.

Theory of operation. Most chunks are one choice with a little text: the loop in
``_fold`` is ordered for them, and reads the name, model and date of an answer only
until it knows them. ``[DONE]`` ends the reading.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Final

from capture.dialects.document import answer_object, object_in
from capture.dialects.fold import DamageLog, RequestFacts
from capture.dialects.members import as_int, as_mapping, as_text
from capture.dialects.openai_answer import Answer
from capture.dialects.openai_chunk import (
    CHUNKS,
    OPENINGS,
    Chunk,
    ChunkChoice,
    Delta,
    OpeningChunk,
    salvaged,
)
from capture.dialects.openai_errors import error_in, provider_error
from capture.dialects.openai_usage import usage_of, wire_usage_of
from capture.turn import (
    Damage,
    Diagnostic,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Turn,
    WireFacts,
)
from capture.wire_response import wire_block

_DONE: Final = b"[DONE]"
_LAST_INSTANT: Final = 253402300799
"""The last second that a date can name."""


class ChatFold:
    """Folds the chunks of one answer, or one answer object."""

    __slots__ = (
        "_answers",
        "_created",
        "_damage",
        "_document",
        "_done",
        "_error",
        "_id",
        "_model",
        "_named",
        "_object",
        "_refused",
        "_snapshots",
        "_touched",
        "_usage",
    )

    dialect: ClassVar[Dialect] = Dialect.OPENAI_CHAT

    def __init__(self, request: RequestFacts) -> None:
        del request  # an answer names its own model
        self._answers: dict[int, Answer] = {}
        self._snapshots: dict[int, Delta] = {}
        self._touched: set[Answer] = set()
        self._id = ""
        self._model = ""
        self._object = ""
        self._created = 0
        self._named = False
        self._usage: JsonObject | None = None
        self._error: ProviderError | None = None
        self._done = False
        self._document = False
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream -----------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of chunks."""
        if self._done:
            self._ignore(len(datas))
            return
        if _DONE in datas:
            end = datas.index(_DONE)
            self._fold(names[:end], datas[:end])
            self._done = True
            self._ignore(len(datas) - end - 1)
        else:
            self._fold(names, datas)

    def _fold(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        errors = {at for at, name in enumerate(names) if name == b"error"} if any(names) else ()
        reader = CHUNKS if self._named else OPENINGS
        for at, chunk in enumerate(reader.read(datas)):
            if chunk is None:
                self._salvage(datas[at])
                continue
            if type(chunk) is OpeningChunk:
                self._name(chunk)
            choices = chunk.choices
            if choices and at not in errors:
                self._add_choices(choices)
                if chunk.usage is not None:
                    self._count(chunk.usage)
            elif chunk.usage is not None and at not in errors:
                self._count(chunk.usage)
            else:
                self._without_choices(datas[at], is_error=at in errors)
            if chunk.error is not None or chunk.x_groq is not None:
                self._add_rare(chunk)
        for answer in self._touched:
            answer.settle()
        self._touched.clear()

    def _ignore(self, count: int) -> None:
        """Official clients hang up at ``[DONE]``: what follows is no part of the answer."""
        if count:
            self._damage.add(Damage.UNKNOWN_EVENT, "after [DONE]", count)

    def _name(self, chunk: OpeningChunk) -> None:
        """The first non-empty id and model are the answer's: Azure sends empty ones first."""
        self._id = self._id or as_text(chunk.id)
        self._model = self._model or as_text(chunk.model)
        self._object = self._object or as_text(chunk.kind)
        self._created = self._created or as_int(chunk.created) or 0
        self._named = bool(self._id and self._model and self._object and self._created)

    def _add_choices(self, choices: Sequence[ChunkChoice]) -> None:
        for position, choice in enumerate(choices):
            index = choice.index
            if type(index) is not int:
                given = as_int(index)
                index = position if given is None else given
            answer = self._answers.get(index)
            if answer is None:
                answer = self._answers[index] = Answer(index)
            self._touched.add(answer)
            delta = choice.delta
            if delta is not None:
                content = delta.content
                if type(content) is str:
                    if content:
                        answer.text.append(content)
                elif content is not None:
                    answer.add_content(content)
                self._add_delta(answer, delta)
            elif choice.message is not None:
                self._snapshots[index] = choice.message
            elif choice.text is not None:
                answer.add_content(choice.text)
            if choice.finish_reason is not None:
                answer.finish_reason = as_text(choice.finish_reason) or answer.finish_reason
            if choice.error is not None:
                self._fail(choice.error)

    def _add_delta(self, answer: Answer, delta: Delta) -> None:
        """Everything but the content."""
        if delta.role is not None and not answer.role:
            answer.role = as_text(delta.role)
        if (
            delta.reasoning_content is not None
            or delta.reasoning is not None
            or delta.reasoning_details is not None
        ):
            answer.add_thinking(delta.reasoning_content, delta.reasoning, delta.reasoning_details)
        if delta.tool_calls is not None:
            answer.add_calls(delta.tool_calls)
        if delta.refusal is not None:
            answer.add_refusal(delta.refusal)
        if delta.function_call is not None:
            answer.add_function_call(delta.function_call)
        if delta.audio is not None or delta.images is not None:
            answer.add_media(delta.audio, delta.images)

    def _add_rare(self, chunk: Chunk) -> None:
        if chunk.error is not None:
            self._fail(chunk.error)
        groq = as_mapping(chunk.x_groq)
        if groq is not None:
            if chunk.usage is None:
                self._count(groq.get("usage"))
            self._fail(groq.get("error"))

    def _count(self, usage: object) -> None:
        """The last usage object that says anything counts."""
        given = as_mapping(usage)
        if given:
            self._usage = given

    def _fail(self, error: object) -> None:
        """The first error of a stream is the one that ended it."""
        found = error_in({"error": error})
        if found is not None and self._error is None:
            self._error = provider_error(found, "http" if self._document else "stream")

    def _without_choices(self, data: bytes, *, is_error: bool) -> None:
        """An event of no choice: an error in one of its other shapes, or nothing to read."""
        event = object_in(data)
        if event is None:
            return
        found = error_in(event) or (event if is_error else None)
        if found is not None and self._error is None:
            self._error = provider_error(found, "stream")
        elif found is None and "choices" not in event:
            self._damage.add(
                Damage.UNKNOWN_EVENT, as_text(event.get("object")) or data[:80].decode("utf-8", "replace")
            )

    def _salvage(self, data: bytes) -> None:
        """An event that the structs refuse: read it member by member."""
        event = object_in(data)
        if event is None:
            self._damage.add(Damage.UNPARSEABLE_EVENT, data[:80].decode("utf-8", "replace"))
            return
        self._damage.add(Damage.UNKNOWN_CONTENT, "a chunk with members of unexpected types")
        chunk = salvaged(event)
        self._name(chunk)
        self._add_choices(chunk.choices or ())
        self._count(chunk.usage)
        self._add_rare(chunk)

    # -- one-shot ---------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold an answer object, or an error object that came with status 200."""
        self._document = True
        answer = answer_object(body)
        if isinstance(answer, Refused):
            self._refused = answer
            return
        error = error_in(answer)
        if error is not None:
            self._error = provider_error(error, "http")
        elif "choices" not in answer:
            self._answers[0] = Answer(0)
            self._answers[0].unknown.append(answer)
        chunk = salvaged(answer)
        for choice in chunk.choices or ():
            choice.delta = choice.message or choice.delta
        self._name(chunk)
        self._add_choices(chunk.choices or ())
        self._add_rare(chunk)
        self._count(chunk.usage)

    # -- the turn ---------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # [DONE] or the finish reasons alone say that the answer is whole
        if self._refused is not None:
            return self._refused
        answers = [self._complete(self._answers[index]) for index in sorted(self._answers)] or [Answer(0)]
        ended = self._document or self._done or all(answer.finish_reason for answer in answers)
        partial = not ended or (self._error is not None and not self._document)
        failed = self._error is not None
        choices = tuple(answer.choice(partial=partial, failed=failed) for answer in answers)
        return Turn(
            dialect=self.dialect,
            model=self._model,
            response_id=self._id or None,
            role=answers[0].role or "assistant",
            blocks=answers[0].blocks(),
            choices=choices,
            usage=usage_of(self._usage),
            partial=partial,
            wire=self._wire(answers, done=ended),
            provider_error=self._error,
            diagnostics=self._diagnostics(answers),
            unparsed=tuple(_unparsed(answers)),
        )

    def _complete(self, answer: Answer) -> Answer:
        """The answer, or the last message that a stream without deltas sent whole."""
        snapshot = self._snapshots.get(answer.index)
        if snapshot is None or not answer.is_empty():
            return answer
        whole = Answer(answer.index)
        whole.finish_reason = answer.finish_reason
        whole.add_content(snapshot.content)
        self._add_delta(whole, snapshot)
        return whole

    def _wire(self, answers: Sequence[Answer], *, done: bool) -> WireFacts:
        extra: dict[str, object] = {}
        if self._id:
            extra["id"] = self._id
        if self._object:
            extra["object"] = self._object
        if len(answers) > 1:
            extra["choices"] = [_wire_choice(answer) for answer in answers[1:]]
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
        if not done:
            extra["partial"] = True
        return WireFacts(
            done=done,
            stop_reason=answers[0].finish_reason,
            created_at=rfc3339(self._created),
            usage=wire_usage_of(self._usage),
            extra=extra,
        )

    def _diagnostics(self, answers: Sequence[Answer]) -> tuple[Diagnostic, ...]:
        found = list(self._damage.diagnostics())
        bad = [name for answer in answers for name in answer.unreadable_calls()]
        if bad:
            found.append(Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(bad), bad[0][:200]))
        unknown = sum(len(answer.unknown) for answer in answers)
        if unknown:
            found.append(Diagnostic(Damage.UNKNOWN_CONTENT, unknown, "content without a place in a turn"))
        return tuple(found)


def rfc3339(seconds: int) -> str:
    """Seconds since 1970 as the contract writes them (UTC); empty for none."""
    if not 0 < seconds <= _LAST_INSTANT:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _wire_choice(answer: Answer) -> JsonObject:
    content = [wire_block(block) for block in answer.blocks()]
    message = {"role": answer.role or "assistant", "content": content}
    return {"index": answer.index, "message": message, "stop_reason": answer.finish_reason}


def _unparsed(answers: Sequence[Answer]) -> Iterable[object]:
    for answer in answers:
        yield from answer.unknown
        audio = answer.audio()
        if audio is not None:
            yield audio
