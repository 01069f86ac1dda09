"""A JSON array whose elements arrive over time (Gemini without ``alt=sse``).

An element is given as soon as its last bracket is seen. A body that is one object
is one event; so is each of several values in a row. Only the nesting is read, the
elements themselves stay unparsed: what is not JSON reaches the dialect as an event
and is counted there. A cut element, and an array that never closes, are counted as
``TRUNCATED_FRAME``; the cut element is not given.

Theory of operation. One pass. ``_INSIDE`` runs over all that leaves the nesting as it
was, whole strings and whole containers of little depth included, so that most elements
are one step; it stops at any other bracket, or at a string that has no end yet.
``_BETWEEN`` does so between elements, where every bracket and comma counts. The state
between two chunks is the depth, whether a string is open, and whether its last byte was
an unpaired backslash; bytes of an unfinished element are kept as they came and joined once.
"""

import re
from typing import Final

from capture.framing.batch import Batch
from capture.turn import Damage

# No JSON value begins or ends with a byte of the byte-order mark: it is stripped like white space.
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"

# Possessive, so that a string without an end costs one pass and no backtracking.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN: Final = rb'[^"\[\]{}]*+'
_STEP_DEPTH: Final = 6
"""Containers nested so deep are one step. A byte is read again at most so often when one is cut."""


def _container(depth: int) -> bytes:
    """A whole container with at most ``depth`` levels, brackets of either kind."""
    inner = _STRING if depth == 1 else _STRING + rb"|" + _container(depth - 1)
    return rb"[\[{]" + _PLAIN + rb"(?:(?:" + inner + rb")" + _PLAIN + rb")*+[\]}]"


_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_INSIDE: Final = re.compile(
    _PLAIN + rb"(?:(?:" + _STRING + rb"|" + _container(_STEP_DEPTH) + rb")" + _PLAIN + rb")*+", re.DOTALL
)
_BETWEEN: Final = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)

MAX_ELEMENT_BYTES: Final = 64 * 1024 * 1024
"""Longest element kept, as for a line of the other framings."""


class JsonArrayFramer:
    """Cuts a body into the elements of its top-level array. Events have no names.

    An element over ``max_element_bytes`` stops the reading.
    """

    __slots__ = (
        "_base",
        "_datas",
        "_depth",
        "_escaped",
        "_held",
        "_held_bytes",
        "_in_string",
        "_max_element_bytes",
        "damage",
        "stopped",
    )

    def __init__(self, max_element_bytes: int = MAX_ELEMENT_BYTES) -> None:
        self._max_element_bytes = max_element_bytes
        self._datas: list[bytes] = []
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._depth = 0
        self._base = 0  # the depth between elements: 1 inside the array, 0 outside
        self._in_string = False
        self._escaped = False
        self.damage: dict[Damage, int] = {}
        self.stopped = False

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; return the elements they completed."""
        if data and not self.stopped:
            self._hold(data[self._scan(data) :])
        return self._batch()

    def finish(self) -> Batch:
        """The body has ended: a bare last value needs no terminator, all else is cut."""
        if not self.stopped and (self._depth or self._in_string):
            self.damage[Damage.TRUNCATED_FRAME] = 1
        else:
            self._give(b"")
        self._held = []
        return self._batch()

    def _batch(self) -> Batch:
        datas, self._datas = self._datas, []
        return Batch([b""] * len(datas), datas)

    def _scan(self, data: bytes) -> int:
        """Read ``data`` to its end; return where its unfinished element begins."""
        start = 0
        position = self._string(data, 0) if self._in_string else 0
        while not self.stopped:
            position = _skip(_BETWEEN if self._depth == self._base else _INSIDE, data, position)
            if position >= len(data):
                break
            match data[position : position + 1]:
                case b'"':
                    position = self._string(data, position + 1)
                    continue
                case b"[" | b"{" as bracket:
                    start = self._open(bracket, data, start, position)
                case b",":
                    self._give(data[start:position])
                    start = position + 1
                case _:
                    start = self._close(data, start, position)
            position += 1
        return start

    def _string(self, data: bytes, position: int) -> int:
        """Read on inside a string; return where it was left, or the end of ``data``."""
        position = _skip(_STRING_REST, data, position + self._escaped)
        self._escaped = data[position : position + 1] == b"\\"  # the very last byte
        self._in_string = data[position : position + 1] != b'"'
        return position + 1

    def _open(self, bracket: bytes, data: bytes, start: int, position: int) -> int:
        opens_array = bracket == b"[" and not self._depth and self._is_blank(data[start:position])
        if opens_array:
            self._base = 1
            start = position + 1
        self._depth += 1
        return start

    def _close(self, data: bytes, start: int, position: int) -> int:
        """A closing bracket of either kind: of an element, of the array, or astray."""
        if self._depth > self._base:
            self._depth -= 1
            if self._depth > self._base:
                return start
            self._give(data[start : position + 1])
        elif self._depth:
            self._give(data[start:position])
            self._depth = self._base = 0
        else:
            self._give(data[start : position + 1])
        return position + 1

    def _is_blank(self, data: bytes) -> bool:
        return not self._held and not data.strip(_BLANK)

    def _give(self, last: bytes) -> None:
        """The element that ends with ``last`` is complete; nothing but blanks is no element."""
        element = b"".join((*self._held, last)).lstrip(_BLANK)
        self._held = []
        self._held_bytes = 0
        if len(element) > self._max_element_bytes:
            self._stop()
        elif element:
            self._datas.append(element.rstrip(_BLANK))

    def _hold(self, data: bytes) -> None:
        if not self._held:
            data = data.lstrip(_BLANK)
        if not data or self.stopped:
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._max_element_bytes:
            self._stop()

    def _stop(self) -> None:
        self.damage[Damage.OVERSIZE_FRAME] = 1
        self.stopped = True
        self._held = []


def _skip(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.match(data, position)
    return match.end() if match else position
