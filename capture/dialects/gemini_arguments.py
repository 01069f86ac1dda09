"""Function arguments that Vertex streams value by value (``streamFunctionCallArguments``).

Each ``partialArgs`` item names a place by an RFC 9535 path of names and indexes
(``$.rooms[0].light``) and carries one value, or the next piece of a string. Pieces are
joined once, at the end. A path of any other form makes the arguments unreadable: then
the values come back as text.
"""

import re
from collections.abc import Sequence
from typing import Final, cast

from capture.dialects.json_text import compact
from capture.dialects.members import as_mapping, as_text
from capture.dialects.pieces import Pieces
from capture.turn import JsonObject

_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
_ESCAPED: Final = re.compile(r"\\(.)")
_MAX_DEPTH: Final = 64
_VALUES: Final = ("numberValue", "number_value", "boolValue", "bool_value")

Step = str | int


class StreamedArguments:
    """The arguments of one call while their values arrive."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[str, object] = {}

    def add_all(self, items: Sequence[object]) -> None:
        """Take a ``partialArgs`` list."""
        for given in items:
            item = as_mapping(given)
            if item is not None:
                self._add(item)

    def _add(self, item: JsonObject) -> None:
        path = as_text(item.get("jsonPath", item.get("json_path")))
        value = item.get("stringValue", item.get("string_value"))
        if isinstance(value, str):
            pieces = self._places.get(path)
            if not isinstance(pieces, Pieces):
                pieces = self._places[path] = Pieces()
            pieces.append(value)
            pieces.settle()
            return
        self._places[path] = next((item[name] for name in _VALUES if name in item), None)

    def value(self) -> tuple[JsonObject | None, str | None]:
        """``(object, None)``, or ``(None, text)`` when the paths do not make one object."""
        leaves = {
            path: leaf.text() if isinstance(leaf, Pieces) else leaf for path, leaf in self._places.items()
        }
        built: dict[str, object] = {}
        for path, leaf in leaves.items():
            steps = _steps(path)
            if not steps or not isinstance(steps[0], str) or not _place(built, steps, leaf):
                return None, compact(leaves)
        return built, None


def _steps(path: str) -> list[Step]:
    """The names and indexes of a path, or none when it is not a plain one."""
    steps: list[Step] = []
    at = 1
    if not path.startswith("$"):
        return []
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            return []
        name, index, *quoted = found.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name or _ESCAPED.sub(r"\1", next((text for text in quoted if text is not None), "")))
        at = found.end()
        if len(steps) > _MAX_DEPTH:
            return []
    return steps


def _place(built: dict[str, object], steps: list[Step], leaf: object) -> bool:
    """Put ``leaf`` at ``steps``; False when something else stands in the way."""
    at: object = built
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        fresh: object = leaf if following is None else [] if isinstance(following, int) else {}
        if not _can_hold(at, step):
            return False
        at = _entered(at, step, fresh)
    return True


def _can_hold(at: object, step: Step) -> bool:
    if isinstance(step, str):
        return isinstance(at, dict)
    return isinstance(at, list) and step <= len(cast("list[object]", at))


def _entered(at: object, step: Step, fresh: object) -> object:
    """What stands at ``step``; ``fresh`` is put there when nothing does."""
    if isinstance(step, str):
        return cast("dict[str, object]", at).setdefault(step, fresh)
    items = cast("list[object]", at)
    if step == len(items):
        items.append(fresh)
    return items[step]
