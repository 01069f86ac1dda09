r"""Server-sent events (WHATWG HTML §9.2), for any split of the bytes.

Lines end at LF, CR or CRLF; a leading byte-order mark is dropped; comments,
``id:`` and ``retry:`` mean nothing to a turn; ``data`` lines join by LF; one space
after the colon is dropped. An event without its closing blank line still counts at
the end of the body (``behaviour.md`` §7), against the WHATWG rule: clients hang up
right after the last frame.

Theory of operation. ``feed`` cuts off the complete lines and keeps the rest. A CR
at the very end of a chunk may be half of a CRLF, so it waits too. Nearly every
provider writes ``[event: X\n]data: {...}\n\n`` and nothing else: such events are cut by
one regular expression a batch, at a third of the cost of looking at each line. From
the first line that is otherwise, the rest of a batch is read line by line; both
readings give the same events.
"""

import re
from typing import Final

from capture.framing.batch import Batch
from capture.turn import Damage

_BOM: Final = b"\xef\xbb\xbf"

# Groups: name, data, and the rest of the text from the first event that looks otherwise.
_NAMED: Final = re.compile(rb"event: ?([^\n]*+)\ndata: ?([^\n]*+)\n\n|(.+)", re.DOTALL)
_NAMELESS: Final = re.compile(rb"()data: ?([^\n]*+)\n\n|(.+)", re.DOTALL)
_STRIDE: Final = 4  # of what splitting by them gives: the nothing between events, then the groups

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Longest line kept. Generated images arrive as one base64 line of several MiB."""

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Most data of one event, all its lines together."""


class SseFramer:
    """Cuts a body into SSE events. A line that does not fit ``max_line_bytes`` with its
    end stops the reading, and so does an event over ``max_event_bytes``. ``bare_json``: a
    JSON value that stands between the events without ``data:`` counts as one (Google
    breaks streams off so, with its error).
    """

    __slots__ = (
        "_at_start",
        "_bare",
        "_bare_bytes",
        "_bare_json",
        "_data",
        "_data_bytes",
        "_line_bytes",
        "_max_event_bytes",
        "_max_line_bytes",
        "_name",
        "_rest",
        "_settled",
        "damage",
        "stopped",
    )

    def __init__(
        self,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
        *,
        bare_json: bool = False,
    ) -> None:
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._bare_json = bare_json
        self._bare: list[bytes] = []
        self._bare_bytes = 0
        self._rest: list[bytes] = []
        self._line_bytes = 0
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._settled = 0
        self._at_start = True
        self.damage: dict[Damage, int] = {}
        self.stopped = False

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; return the events they completed."""
        if self.stopped:
            return Batch([], [])
        # A long line arrives in many chunks: they are kept apart and joined once.
        cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1))
        held_cr = bool(self._rest) and self._rest[-1].endswith(b"\r")
        if cut < 0 and not held_cr:
            self._hold(data)
            return Batch([], [])
        text = b"".join((*self._rest, data))
        cut = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        self._rest = []
        self._line_bytes = 0
        batch = self._lines(text[:cut])
        self._hold(text[cut:])
        return batch

    def finish(self) -> Batch:
        """The body has ended: the unfinished last line and event count."""
        if self.stopped:
            return Batch([], [])
        text = b"".join(self._rest)
        self._rest = []
        return self._lines(text + b"\n\n")

    def _hold(self, data: bytes) -> None:
        if not data or self.stopped:
            return
        self._rest.append(data)
        self._line_bytes += len(data)
        if self._line_bytes >= self._max_line_bytes:
            # Neither the mark nor a CR that waits for its LF is part of the line.
            line = b"".join(self._rest).removesuffix(b"\r")
            if self._at_start:
                line = line.removeprefix(_BOM)
            if len(line) >= self._max_line_bytes:
                self._stop()

    def _stop(self) -> None:
        self.damage[Damage.OVERSIZE_FRAME] = 1
        self.stopped = True
        self._rest = []

    def _lines(self, text: bytes) -> Batch:
        """The events that end in ``text``, which is whole lines."""
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(_BOM)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if len(text) > self._max_line_bytes:
            text = self._before_oversize(text)
        batch = Batch([], [])
        if self._name or self._data or self._bare:  # first the rest of the event that the last lines began
            cut = (b"\n" + text).find(b"\n\n") + 1 or len(text)
            text = text[cut:] if self._line_by_line(text[:cut], batch) else b""
        if len(text) > self._max_event_bytes:
            self._line_by_line(text, batch)
        elif text:
            self._usual(text, batch)
        return batch

    def _usual(self, text: bytes, batch: Batch) -> None:
        """Read events of the usual lines as far as they go, none larger than the bound."""
        parts = (_NAMED if text.startswith(b"event:") else _NAMELESS).split(text)
        batch.names.extend(parts[1::_STRIDE])
        batch.datas.extend(parts[2::_STRIDE])
        if (rest := parts[-2]) is not None:
            batch.names.pop()
            batch.datas.pop()
            self._line_by_line(rest, batch)

    def _line_by_line(self, text: bytes, batch: Batch) -> bool:
        """Read whole lines, starting with what is left of an event begun before. False when
        an event was too large: the lines after it are not read.
        """
        lines = text.split(b"\n")
        lines.pop()
        name, data = self._name, self._data
        for line in lines:
            if self._bare_json and self._is_bare(line, batch):
                if not self._bare:  # too large: dropped
                    return False
                continue
            if line.startswith(b"data: "):
                data.append(line[6:])
            elif not line:
                if data and not self._give(name, batch):
                    return False
                name = b""
            elif line.startswith(b"event:"):
                name = line[7:] if line[6:7] == b" " else line[6:]
            elif line.startswith(b"data:"):
                data.append(line[5:])
            elif line == b"data":
                data.append(b"")
            elif line == b"event":
                name = b""
        self._name = name
        if len(data) > self._settled:
            self._settle()
        return True

    def _give(self, name: bytes, batch: Batch) -> bool:
        """The event that was begun is complete; False when it is too large."""
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        if len(data) > self._max_event_bytes:
            self._drop_event()
            return False
        batch.names.append(name)
        batch.datas.append(data)
        self._data.clear()
        self._data_bytes = self._settled = 0
        return True

    def _settle(self) -> None:
        """Join what this batch added to the unfinished event: a million short lines of data
        cost their bytes, not a million objects.
        """
        added = b"\n".join(self._data[self._settled :])
        self._data[self._settled :] = [added]
        self._settled = len(self._data)
        self._data_bytes += len(added) + 1
        if self._data_bytes - 1 > self._max_event_bytes:
            self._drop_event()

    def _drop_event(self) -> None:
        """The event that was begun is too large."""
        self._stop()
        self._data = []
        self._bare = []

    def _is_bare(self, line: bytes, batch: Batch) -> bool:
        """Take a line of a bare JSON value; the first line that is none completes it."""
        begins = not self._bare and not self._data and line.startswith((b"{", b"["))
        if begins or (self._bare and line and not line.startswith((b"data:", b"event:"))):
            self._bare.append(line)
            self._bare_bytes += len(line) + 1
            if self._bare_bytes - 1 > self._max_event_bytes:
                self._drop_event()
            return True
        if self._bare:
            batch.names.append(b"")
            batch.datas.append(b"\n".join(self._bare))
            self._bare = []
            self._bare_bytes = 0
        return False

    def _before_oversize(self, text: bytes) -> bytes:
        """The lines up to the first that does not fit with its end; reading stops there."""
        start = 0
        while start < len(text):
            end = text.find(b"\n", start)
            if end - start >= self._max_line_bytes:
                self._stop()
                return text[:start]
            start = end + 1
        return text
