"""Members that most dialects share, read from JSON of any shape."""

from collections.abc import Iterable, Mapping
from typing import cast

from capture import jsontext
from capture.dialects.json_text import text_of
from capture.dialects.members import as_list, as_mapping, as_text
from capture.requests.request import RequestMessage
from capture.turn import Block, JsonObject


def objects(value: object) -> list[JsonObject]:
    """The objects of a list; whatever else stands in it is passed over."""
    return [mapping for item in as_list(value) if (mapping := as_mapping(item)) is not None]


def only_objects(value: object) -> list[JsonObject] | None:
    """The objects of a list that has nothing else in it, or None."""
    mappings = objects(value)
    return (
        mappings if isinstance(value, list) and len(mappings) == len(as_list(cast("object", value))) else None
    )


def as_flag(value: object) -> bool | None:
    """The truth value, or None when it is anything else."""
    return value if isinstance(value, bool) else None


def text_block(text: str) -> Block:
    """A block of plain text."""
    return Block(type="text", text=text)


def user_text(text: str) -> RequestMessage:
    """A user's message of plain text."""
    return RequestMessage(role="user", blocks=(text_block(text),))


def texts(parts: object) -> list[str]:
    """The ``text`` of every part that has one."""
    return [text for part in objects(parts) if isinstance(text := part.get("text"), str)]


def text_or_parts(value: object) -> str:
    """A text, or a list of parts whose texts are joined by line ends."""
    return value if isinstance(value, str) else "\n".join(filter(None, texts(value)))


def arguments_of(text: object) -> JsonObject | None:
    """Tool arguments sent as JSON text, or as the object itself; None when they are neither."""
    if not isinstance(text, str):
        return as_mapping(text)
    try:
        return as_mapping(jsontext.decode(text))
    except jsontext.JsonError:
        return None


def as_sent(value: object) -> str:
    """A JSON value as text. A text stays as it is; null is empty, as is what is nested too deeply."""
    if value is None:
        return ""
    return text_of(value)


def names(tools: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """The names of tools that carry them at the top or under ``function``."""
    return tuple(_name(tool) for tool in tools)


def _name(tool: Mapping[str, object]) -> str:
    function = as_mapping(tool.get("function")) or {}
    return as_text(tool.get("name")) or as_text(function.get("name")) or as_text(tool.get("type"))
