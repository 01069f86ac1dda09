"""The InvokeModel families that answer with plain text.

Titan, Llama, Mistral (prompt), Cohere Command, AI21 Jurassic and Claude's legacy text
completions differ in the names of three members and no more: where the generations lie
(in a list, or the object is one), the text, and the reason why it ended. Whole and
streamed objects are read alike. Names: "Inference request parameters and response
fields" of the Bedrock user guide. An object in which no name is known is kept whole.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from capture import jsontext
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.pieces import Pieces
from capture.dialects.wire_usage import total_of, wire_usage
from capture.stop_words import result_of
from capture.turn import Block, Choice, Damage, Dialect, Ending, JsonObject, Turn, Usage, WireFacts
from capture.wire_response import wire_block

_READER: Final = EventReader(object)

_LISTS: Final = ("results", "outputs", "generations", "completions")
_TEXTS: Final = ("outputText", "generation", "completion", "text")
_REASONS: Final = ("completionReason", "stop_reason", "finish_reason", "finishReason")
_PROMPT_COUNTS: Final = ("inputTextTokenCount", "prompt_token_count")
_OUTPUT_COUNTS: Final = ("totalOutputTextTokenCount", "generation_token_count")
_FINISHED: Final = "is_finished"
_REPEATED: Final = "generations"
_CALLS: Final = "tool_calls"
_OURS: Final = "amazon-bedrock-"
"""Bedrock's own members, beside the family's."""
_COUNTED: Final = frozenset((*_PROMPT_COUNTS, *_OUTPUT_COUNTS, "results"))
_KNOWN: Final = frozenset((*_LISTS, *_TEXTS, *_REASONS, *_PROMPT_COUNTS, *_OUTPUT_COUNTS, _FINISHED))


class _Generation:
    __slots__ = ("finished", "reason", "text")

    def __init__(self) -> None:
        self.text = Pieces()
        self.reason = ""
        self.finished = False

    def blocks(self) -> tuple[Block, ...]:
        return (Block(type="text", text=self.text.text()),) if self.text else ()


class _Read(NamedTuple):
    """What one object says of one generation."""

    text: str
    reason: str
    finished: bool


class TextFold:
    """Folds the objects of one answer."""

    __slots__ = (
        "_counts",
        "_damage",
        "_generations",
        "_id",
        "_is_document",
        "_model",
        "_unparsed",
    )

    def __init__(self, request: RequestFacts) -> None:
        del request  # the members name the family, not the model id
        self._generations: dict[int, _Generation] = {}
        self._counts: dict[str, object] = {}
        self._id = ""
        self._model = ""
        self._is_document = False
        self._unparsed: list[JsonObject] = []
        self._damage = DamageLog()

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of stream objects."""
        del names
        for data, value in zip(datas, _READER.read(datas), strict=True):
            given = as_mapping(value)
            if given is None:
                self._damage.add(Damage.UNPARSEABLE_EVENT, repr(data[:80]))
            else:
                self._add(given)

    def document(self, body: bytes) -> None:
        """Fold a one-shot answer, an object: the envelope made sure of it."""
        self._is_document = True
        self._add(as_mapping(jsontext.decode(body)) or {})

    def _add(self, given: JsonObject) -> None:
        if _KNOWN.isdisjoint(given):
            if not all(name.startswith(_OURS) for name in given):
                self._unparsed.append(given)
                self._damage.add(Damage.UNKNOWN_CONTENT, ",".join(given))
            return
        self._id = self._id or as_text(given.get("id")) or as_text(given.get("generation_id"))
        if as_list(given.get(_CALLS)):  # Command R's: kept until its own fold reads them
            self._unparsed.append({_CALLS: given[_CALLS]})
            self._damage.add(Damage.UNKNOWN_CONTENT, _CALLS)
        self._model = self._model or as_text(given.get("model"))
        if not _COUNTED.isdisjoint(given):
            self._counts.update(_counts(given))
        listed = next((name for name in _LISTS if name in given), None)
        if listed is None:
            self._generation(as_int(given.get("index")) or 0, _read(given), repeated=False)
            return
        for position, item in enumerate(as_list(given[listed])):
            generation = as_mapping(item) or {}
            index = as_int(generation.get("index"))
            self._generation(
                position if index is None else index, _read(generation), repeated=listed == _REPEATED
            )

    def _generation(self, index: int, read: _Read, *, repeated: bool) -> None:
        """Take what an object says of a generation.

        ``repeated``: it may be what a stream of pieces gave already (Cohere's last object).
        """
        generation = self._generations.setdefault(index, _Generation())
        if read.text and not (repeated and generation.text):
            generation.text.append(read.text)
            generation.text.settle()
        generation.reason = read.reason or generation.reason
        generation.finished = generation.finished or read.finished

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn:
        """Read the turn off."""
        del ending  # a reason, or is_finished, says that the answer is whole
        generations = sorted(self._generations.items()) or [(0, _Generation())]
        done = self._is_document or all(item.reason or item.finished for _, item in generations)
        usage = self._usage()
        return Turn(
            dialect=Dialect.BEDROCK_INVOKE,
            model=self._model,
            response_id=self._id or None,
            role="assistant",
            blocks=generations[0][1].blocks(),
            choices=tuple(_choice(index, item, partial=not done) for index, item in generations),
            usage=usage,
            partial=not done,
            wire=self._wire(generations, usage, done=done),
            diagnostics=self._damage.diagnostics(),
            unparsed=tuple(self._unparsed),
        )

    def _usage(self) -> Usage:
        if not self._counts:
            return Usage()
        prompt = _first_count(self._counts, _PROMPT_COUNTS)
        output = _first_count(self._counts, (*_OUTPUT_COUNTS, _SUMMED))
        return Usage(
            input_tokens=prompt,
            output_tokens=output,
            total_tokens=total_of(None, prompt, output),
            raw=dict(self._counts),
        )

    def _wire(self, generations: Sequence[tuple[int, _Generation]], usage: Usage, *, done: bool) -> WireFacts:
        extra: dict[str, object] = {"id": self._id} if self._id else {}
        if not done:
            extra["partial"] = True
        if len(generations) > 1:
            extra["choices"] = [_wire_choice(index, item) for index, item in generations[1:]]
        return WireFacts(
            done=done, stop_reason=generations[0][1].reason, usage=wire_usage(usage), extra=extra
        )


_SUMMED: Final = "tokenCount"


def _read(given: JsonObject) -> _Read:
    holder = as_mapping(given.get("data")) or given  # Jurassic: data.text
    text = next((as_text(holder[name]) for name in _TEXTS if name in holder), "")
    reason = next((given[name] for name in _REASONS if given.get(name) is not None), None)
    nested = as_mapping(reason)  # Jurassic: finishReason.reason
    return _Read(
        text=text,
        reason=as_text(nested.get("reason")) if nested is not None else as_text(reason),
        finished=given.get(_FINISHED) is True,
    )


def _counts(given: JsonObject) -> dict[str, object]:
    """The counts that were sent: the last one of each name is the right one."""
    counts: dict[str, object] = {
        name: given[name]
        for name in (*_PROMPT_COUNTS, *_OUTPUT_COUNTS)
        if as_int(given.get(name)) is not None
    }
    summed = [as_int((as_mapping(item) or {}).get(_SUMMED)) for item in as_list(given.get("results"))]
    if any(count is not None for count in summed):
        counts[_SUMMED] = sum(count or 0 for count in summed)
    return counts


def _first_count(counts: JsonObject, names: Sequence[str]) -> int | None:
    return next((as_int(counts[name]) for name in names if name in counts), None)


def _choice(index: int, generation: _Generation, *, partial: bool) -> Choice:
    word = generation.reason or None
    return Choice(
        index=index,
        text=generation.text.text(),
        stop_reason=word,
        result=result_of(word, partial=partial, has_tool_calls=False),
    )


def _wire_choice(index: int, generation: _Generation) -> JsonObject:
    content = [wire_block(block) for block in generation.blocks()]
    message = {"role": "assistant", "content": content}
    return {"index": index, "message": message, "stop_reason": generation.reason}
