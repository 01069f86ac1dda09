"""Reading an HTTP/1.1 answer with a hard bound: bytes in, one answer out (sans-IO).

    head ──blank line──► head (1xx, discarded) | length | chunked | until close | done
    length, chunked, until close ──the body's end──► done
    any ──more bytes than allowed──► cut

Framing follows RFC 9112 §6.3. Everything received counts against the bound: status line,
header fields, interim answers, chunk framing, trailers. So no form of endless answer is
read for longer than the bound, and an answer that was cut is never complete.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final


class MalformedAnswer(Exception):  # noqa: N818 - past tense for what happened
    """The bytes are not an HTTP/1.x answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose head was read. ``complete``: its body ended as its framing says.

    Field names are in lower case; repeated fields are joined by a comma. ``size`` counts
    every byte received. ``reusable``: the connection may carry another request.
    """

    status: int
    fields: dict[str, str]
    body: bytes
    complete: bool
    cut: bool
    size: int
    reusable: bool


class _Phase(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()
    CUT = auto()


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?\r?")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_NO_BODY: Final = frozenset({204, 304})


@dataclass(slots=True)
class AnswerReader:
    """Reads one answer. ``feed`` returns True once nothing more is wanted."""

    max_bytes: int
    size: int = 0
    _phase: _Phase = _Phase.HEAD
    _pending: bytearray = field(default_factory=bytearray)
    _body: bytearray = field(default_factory=bytearray)
    _left: int = 0
    _searched: int = 0
    _status: int = 0
    _fields: dict[str, str] = field(default_factory=dict[str, str])
    _persistent: bool = False

    @property
    def wanted(self) -> int:
        """How many bytes may still be received."""
        return self.max_bytes - self.size

    def feed(self, data: bytes) -> bool:
        """Take the next bytes. Raises :class:`MalformedAnswer`."""
        excess = self.size + len(data) - self.max_bytes
        if excess > 0:
            data = data[:-excess]
        self.size += len(data)
        self._pending += data
        while self._step():
            pass
        if excess > 0 or (self.size >= self.max_bytes and self._phase is not _Phase.DONE):
            self._phase = _Phase.CUT if self._phase is not _Phase.DONE else self._phase
            self._persistent = False
        if self._phase is _Phase.DONE and self._pending:
            self._persistent = False  # bytes nobody asked for: trust nothing that follows
        return self._phase in (_Phase.DONE, _Phase.CUT)

    def eof(self) -> None:
        """The peer closed its side in an orderly way: that ends a body without any framing."""
        if self._phase is _Phase.UNTIL_CLOSE:
            self._phase = _Phase.DONE

    def answer(self) -> Answer | None:
        """The answer so far; None while its head is not complete."""
        if self._status == 0:
            return None
        complete = self._phase is _Phase.DONE
        return Answer(
            status=self._status,
            fields=self._fields,
            body=bytes(self._body),
            complete=complete,
            cut=self._phase is _Phase.CUT,
            size=self.size,
            reusable=complete and self._persistent,
        )

    def _step(self) -> bool:
        """Consume what the present phase can; False when it needs more bytes."""
        match self._phase:
            case _Phase.HEAD:
                return self._read_head()
            case _Phase.LENGTH | _Phase.CHUNK_DATA:
                return self._read_counted()
            case _Phase.CHUNK_SIZE:
                return self._read_chunk_size()
            case _Phase.CHUNK_END:
                return self._read_chunk_end()
            case _Phase.TRAILERS:
                return self._read_trailers()
            case _Phase.UNTIL_CLOSE:
                self._body += self._pending
                self._pending.clear()
                return False
            case _Phase.DONE | _Phase.CUT:
                return False

    def _read_head(self) -> bool:
        end = _HEAD_END.search(self._pending, max(0, self._searched - 3))
        if end is None:
            self._searched = len(self._pending)  # or bytes arriving one by one cost their square
            self._check_beginning()
            return False
        self._searched = 0
        lines = bytes(self._pending[: end.start()]).split(b"\n")
        del self._pending[: end.end()]
        first = _STATUS_LINE.fullmatch(lines[0])
        if first is None:
            raise MalformedAnswer("it does not begin with an HTTP/1.x status line")
        status, fields = int(first[2]), _parse_fields(lines[1:])
        if status == 101:  # noqa: PLR2004 - Switching Protocols, which we never ask for
            raise MalformedAnswer("it switches protocols")
        if status >= 200:  # noqa: PLR2004 - the first final status; interim answers are discarded
            self._status, self._fields = status, fields
            self._begin_body(persistent_by_default=first[1] == b"1")
        return True

    def _check_beginning(self) -> None:
        """Tell a stranger from a slow friend at once, instead of after the whole bound."""
        if not b"HTTP/1.".startswith(self._pending[:7]):
            raise MalformedAnswer("it does not begin with an HTTP/1.x status line")

    def _begin_body(self, *, persistent_by_default: bool) -> None:
        connection = {word.strip() for word in self._fields.get("connection", "").lower().split(",")}
        self._persistent = "close" not in connection and (persistent_by_default or "keep-alive" in connection)
        codings = self._fields.get("transfer-encoding")
        length = self._fields.get("content-length")
        if self._status in _NO_BODY:
            self._phase = _Phase.DONE
        elif codings is not None:
            if length is not None:
                raise MalformedAnswer("it has both Transfer-Encoding and Content-Length")
            chunked = codings.rsplit(",", 1)[-1].strip().lower() == "chunked"
            self._phase = _Phase.CHUNK_SIZE if chunked else _Phase.UNTIL_CLOSE
        elif length is not None:
            self._left = _content_length(length)
            self._phase = _Phase.LENGTH if self._left else _Phase.DONE
        else:
            self._phase = _Phase.UNTIL_CLOSE
        if self._phase is _Phase.UNTIL_CLOSE:
            self._persistent = False

    def _read_counted(self) -> bool:
        part = self._pending[: self._left]
        self._body += part
        del self._pending[: len(part)]
        self._left -= len(part)
        if self._left:
            return False
        self._phase = _Phase.DONE if self._phase is _Phase.LENGTH else _Phase.CHUNK_END
        return True

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line.removesuffix(b"\r")

    def _read_chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise MalformedAnswer("a chunk has no readable size")
        self._left = int(size[1], 16)
        self._phase = _Phase.CHUNK_DATA if self._left else _Phase.TRAILERS
        return True

    def _read_chunk_end(self) -> bool:
        line = self._line()
        if line is None:
            if len(self._pending) > 1:
                raise MalformedAnswer("a chunk is longer than its size")
            return False
        if line:
            raise MalformedAnswer("a chunk is longer than its size")
        self._phase = _Phase.CHUNK_SIZE
        return True

    def _read_trailers(self) -> bool:
        line = self._line()
        if line == b"":
            self._phase = _Phase.DONE
        return bool(line)


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or _NAME.fullmatch(name) is None:
            raise MalformedAnswer("a header field has no readable name")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t\r").decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


def _content_length(value: str) -> int:
    """RFC 9112 §6.3: a list of equal numbers counts as one; anything else is an error."""
    numbers = {number.strip() for number in value.split(",")}
    number = numbers.pop()
    if numbers or _LENGTH.fullmatch(number) is None:
        raise MalformedAnswer("its Content-Length is not a number")
    return int(number)
