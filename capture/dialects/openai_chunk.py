"""The chunks of OpenAI chat and completions streams, as far as a turn needs them.

Members that vendors type freely are ``object`` and read tolerantly later. An event whose
skeleton is of other types is refused by the structs; ``salvaged`` takes it member by
member, and what has the wrong type counts as absent.
"""

from typing import Final

from msgspec import Struct, field

from capture.dialects.fold import EventReader
from capture.dialects.members import as_list, as_mapping
from capture.turn import JsonObject


class Delta(Struct, gc=False):
    """What one chunk adds to a choice, or the whole message of a one-shot answer."""

    content: object = None
    role: object = None
    reasoning_content: object = None
    reasoning: object = None
    reasoning_details: object = None
    refusal: object = None
    tool_calls: object = None
    function_call: object = None
    audio: object = None
    images: object = None


class ChunkChoice(Struct, gc=False):
    """A choice of a chunk: ``delta``, or the whole ``message``, or a completion's ``text``."""

    index: object = None
    delta: Delta | None = None
    message: Delta | None = None
    text: object = None
    finish_reason: object = None
    error: object = None


class Chunk(Struct, gc=False):
    """A chunk once its answer's name is known."""

    choices: list[ChunkChoice] | None = None
    usage: object = None
    error: object = None
    x_groq: object = None


class OpeningChunk(Chunk, gc=False):
    """A chunk while the answer's name is still wanted."""

    id: object = None
    model: object = None
    kind: object = field(default=None, name="object")
    created: object = None


CHUNKS: Final = EventReader(Chunk)
OPENINGS: Final = EventReader(OpeningChunk)


def salvaged(event: JsonObject) -> OpeningChunk:
    """Any object as a chunk: members of the wrong type count as absent."""
    return OpeningChunk(
        choices=[_choice(given) for given in as_list(event.get("choices"))],
        usage=event.get("usage"),
        error=event.get("error"),
        x_groq=event.get("x_groq"),
        id=event.get("id"),
        model=event.get("model"),
        kind=event.get("object"),
        created=event.get("created"),
    )


def _choice(given: object) -> ChunkChoice:
    choice = as_mapping(given) or {}
    return ChunkChoice(
        index=choice.get("index"),
        delta=_delta(choice.get("delta")),
        message=_delta(choice.get("message")),
        text=choice.get("text"),
        finish_reason=choice.get("finish_reason"),
        error=choice.get("error"),
    )


def _delta(given: object) -> Delta | None:
    delta = as_mapping(given)
    if delta is None:
        return None
    return Delta(**{name: delta.get(name) for name in Delta.__struct_fields__})
