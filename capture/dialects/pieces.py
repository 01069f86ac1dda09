"""Strings that arrive in a million pieces, and the JSON some of them spell.

Pieces are collected in a list and joined once (joining on each delta is quadratic).
A piece costs 50 to 60 bytes as an object of its own, so ``settle`` folds long lists
into chunks: memory follows the text, not the number of its fragments.
"""

from collections.abc import Callable
from typing import Final, cast

from capture import jsontext
from capture.turn import JsonObject

_SETTLE_AT: Final = 16


class Pieces:
    """A text under construction. ``append`` is the list's own method: no Python frame."""

    __slots__ = ("_chunks", "_tail", "append")

    append: Callable[[str], None]

    def __init__(self, first: str = "") -> None:
        self._chunks: list[str] = []
        self._tail: list[str] = [first] if first else []
        self.append = self._tail.append

    def settle(self) -> None:
        """Call once a batch."""
        if len(self._tail) > _SETTLE_AT:
            self._chunks.append("".join(self._tail))
            self._tail.clear()

    def text(self) -> str:
        """All of it, joined."""
        return "".join((*self._chunks, *self._tail))

    def __bool__(self) -> bool:
        return bool(self._chunks or self._tail)


def parse_arguments(text: str) -> tuple[JsonObject | None, str | None]:
    """Tool arguments as ``(object, None)``, or ``(None, text as sent)`` when they are no
    JSON object. No text at all is an empty object (CANONICAL.md).
    """
    if not text:
        return {}, None
    try:
        value = jsontext.decode(text)
    except jsontext.JsonError:
        return None, text
    if isinstance(value, dict):
        return cast("JsonObject", value), None
    return None, text
