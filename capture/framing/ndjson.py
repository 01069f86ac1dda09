"""One JSON value a line (Ollama, Cohere v1), for any split of the bytes.

Lines end at LF or CRLF. Lines of white space are nothing. A last line without LF
counts at the end of the body; whether it is whole is for the JSON decoder to say.
A leading byte-order mark is dropped. Events have no names.
"""

from typing import Final

from capture.framing.batch import Batch
from capture.turn import Damage

_BOM: Final = b"\xef\xbb\xbf"

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Longest line kept, as for server-sent events."""


class NdjsonFramer:
    """Cuts a body into lines. A line over the bound stops the reading."""

    __slots__ = ("_at_start", "_max_line_bytes", "_rest", "_rest_bytes", "damage", "stopped")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._at_start = True
        self.damage: dict[Damage, int] = {}
        self.stopped = False

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; return the lines they completed."""
        if self.stopped:
            return Batch([], [])
        # A long line arrives in many chunks: they are kept apart and joined once.
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._hold(data)
            return Batch([], [])
        text = b"".join((*self._rest, data[:cut]))
        self._rest = []
        self._rest_bytes = 0
        batch = self._lines(text)
        self._hold(data[cut:])
        return batch

    def finish(self) -> Batch:
        """The body has ended: the last line needs no LF."""
        text = b"".join(self._rest)
        self._rest = []
        return self._lines(text)

    def _hold(self, data: bytes) -> None:
        if not data or self.stopped:
            return
        self._rest.append(data)
        self._rest_bytes += len(data)
        # The mark and the CR of a CRLF are no part of the line: leave room for them.
        if self._rest_bytes > self._max_line_bytes + len(_BOM) + 1:
            self._stop()

    def _stop(self) -> None:
        self.damage[Damage.OVERSIZE_FRAME] = 1
        self.stopped = True
        self._rest = []

    def _lines(self, text: bytes) -> Batch:
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(_BOM)
        if b"\r\n" in text:
            text = text.replace(b"\r\n", b"\n")
        datas = [line for line in text.split(b"\n") if line and not line.isspace()]
        if len(text) > self._max_line_bytes:
            datas = self._before_oversize(datas)
        return Batch([b""] * len(datas), datas)

    def _before_oversize(self, datas: list[bytes]) -> list[bytes]:
        for position, line in enumerate(datas):
            if len(line) > self._max_line_bytes:
                self._stop()
                return datas[:position]
        return datas
