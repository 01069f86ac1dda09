"""The bytes of one response body, reduced to a turn: coding → framing → fold.

    feed(chunk) …  finish(ending) → Turn | Refused | Undecodable

``ResponseReducer`` keeps the reduced turn and at most one batch of unread bytes.
Whatever the chunking, the turn is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from capture.coding import CodingError, decoder
from capture.dialects.catalog import CATALOG
from capture.dialects.fold import DialectEntry, Fold, RequestFacts
from capture.dialects.signature import spoken
from capture.framing import Framing
from capture.framing.batch import Batch, Framer
from capture.framing.choice import declared, sniffed
from capture.framing.eventstream import EventStreamFramer
from capture.framing.json_array import JsonArrayFramer
from capture.framing.ndjson import NdjsonFramer
from capture.framing.sse import MAX_LINE_BYTES, SseFramer
from capture.held import held_bytes
from capture.turn import Damage, Diagnostic, Dialect, Ending, Refused, Turn

BATCH_BYTES: Final = 4 * 1024
"""Unread bytes are parsed when there are this many: one call for some twenty events."""

SLICE_BYTES: Final = 256 * 1024
"""Text that is read in one go: even events of nothing take milliseconds."""

FEED_SLICES: Final = 2
"""Slices that one ``feed`` reads at most. What a compressed chunk leaves unread waits for ``work``."""

_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Undecodable:
    """The content coding could not be undone (``response_decode``)."""

    reason: str


Reduced: TypeAlias = Turn | Refused | Undecodable


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseFacts:
    """What the response headers say that reduction needs (values as received)."""

    content_type: str = ""
    content_encoding: str = ""


class ResponseReducer:
    """Reduces one response body."""

    __slots__ = (
        "_coding",
        "_content_type",
        "_dialect",
        "_document",
        "_entry",
        "_failure",
        "_fold",
        "_framer",
        "_framing",
        "_pending",
        "_pending_bytes",
        "_read_out",
        "_request",
        "_truncated",
        "_unread",
        "_unread_bytes",
        "decoded_bytes",
    )

    def __init__(self, dialect: Dialect, request: RequestFacts, response: ResponseFacts) -> None:
        self._dialect = dialect
        self._request = request
        self._entry = CATALOG[dialect]
        self._fold: Fold | None = None
        self._content_type = response.content_type.lower()
        self._coding = decoder(response.content_encoding)
        self._framing: Framing | None = None
        self._framer: Framer | None = None
        self._document: list[bytes] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._unread: Iterator[bytes] | None = None
        self._unread_bytes = 0
        self._read_out = False
        self._failure: Undecodable | None = None
        self._truncated = False
        self.decoded_bytes = 0

    def feed(self, data: bytes) -> None:
        """Append the next bytes of the body. Takes milliseconds at most, whatever they are."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= BATCH_BYTES:
            for _ in range(FEED_SLICES):
                if not self.work():
                    break

    def work(self) -> bool:
        """Read one slice of what was fed. True: there may be more to read."""
        text = self._next_slice()
        if text is not None:
            self._read(text)
        return text is not None

    def snapshot(self) -> Reduced:
        """The turn as it stands: for a checkpoint. Reduction goes on afterwards."""
        self.work()
        return self._turn(Ending.OPEN)

    def read_out(self) -> None:
        """The body has ended: read the rest. Afterwards no decompressor is left, and it can be pickled."""
        if self._read_out:
            return
        self._read_out = True
        while self.work():
            pass
        if self._failure is None:
            self._read_last()
        self._coding = decoder("")

    def finish(self, ending: Ending) -> Reduced:
        """The body has ended. Call once; ``ending`` is COMPLETE or CUT."""
        self.read_out()
        if self._framer is not None:
            self._events(self._framer.finish())
        else:
            document = self.document
            self._fold_for(document).document(document)
        return self._turn(ending)

    @property
    def waiting_bytes(self) -> int:
        """What was fed and is not read yet."""
        return self._pending_bytes + self._unread_bytes

    @property
    def held_bytes(self) -> int:
        """About how much memory what was read takes. For a stream this is looked up (``capture.held``)."""
        if self._framer is None:
            return self.decoded_bytes
        return held_bytes(self._framer) + held_bytes(self._fold)

    @property
    def document(self) -> bytes:
        """The decoded one-shot body so far; empty for a stream."""
        return b"".join(self._document)

    @property
    def is_stream(self) -> bool:
        """Whether the body has turned out to be framed as a stream."""
        return self._framer is not None

    @property
    def expects_stream(self) -> bool:
        """Whether the body is a stream, or will be one by its content type."""
        if self._framing is not None:
            return self.is_stream
        return declared(self._content_type, self._entry.stream) not in (None, Framing.DOCUMENT)

    def _read_last(self) -> None:
        try:
            self._read(self._coding.finish(), whole=True)
            self._truncated = self._coding.truncated
        except CodingError as error:
            self._failure = Undecodable(str(error))

    def _next_slice(self) -> bytes | None:
        """The next text to read; None: there is none."""
        while self._failure is None:
            if self._unread is None:
                if not self._pending:
                    return None
                data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
                self._pending = []
                self._unread_bytes, self._pending_bytes = self._pending_bytes, 0
                self._unread = self._slices(data)
            try:
                return next(self._unread)
            except StopIteration:
                self._unread = None
                self._unread_bytes = 0
            except CodingError as error:
                self._failure = Undecodable(str(error))
        self._pending = []
        self._pending_bytes = self._unread_bytes = 0
        self._unread = None
        return None

    def _slices(self, data: bytes) -> Iterator[bytes]:
        """The text of these bytes, joined from small pieces and cut from large ones."""
        waiting: list[bytes] = []
        size = 0
        for piece in self._coding.pieces(data):
            waiting.append(piece)
            size += len(piece)
            if size >= SLICE_BYTES:
                text = b"".join(waiting)
                waiting, size = [], 0
                for start in range(0, len(text), SLICE_BYTES):
                    yield text[start : start + SLICE_BYTES]
        if size:
            yield b"".join(waiting)

    def _read(self, data: bytes, *, whole: bool = False) -> None:
        """Take decoded bytes. Until the framing is settled they wait as the document."""
        self.decoded_bytes += len(data)
        if self._framing is None and (data or whole):
            if not self._document:
                data = data.lstrip(_SPACE)  # means nothing in any framing, and could go on for ever
            data = b"".join((*self._document, data))
            self._document = []
            self._settle_framing(data, whole=whole)
        if self._framer is not None:
            self._events(self._framer.feed(data))
        elif data:
            self._document.append(data)

    def _settle_framing(self, head: bytes, *, whole: bool) -> None:
        stream = self._entry.stream
        framing = declared(self._content_type, stream)
        if framing is Framing.SSE and self._entry.doubts_stream_type:  # no stream's line starts so
            start = head.lstrip()[:1]
            if not start and not whole:
                return
            framing = Framing.DOCUMENT if start == b"{" else framing
        self._framing = framing or sniffed(head, stream, whole=whole)
        if self._framing is not None:
            self._framer = _framer(self._framing, self._entry)

    def _events(self, batch: Batch) -> None:
        if batch.datas:
            fold = self._fold or self._fold_for(batch.datas[0])
            fold.events(batch.names, batch.datas)

    def _fold_for(self, first: bytes) -> Fold:
        """The fold of the dialect that the answer's first event really speaks."""
        if self._fold is None:
            self._fold = CATALOG[spoken(first, self._dialect)].fold(self._request)
        return self._fold

    def _turn(self, ending: Ending) -> Reduced:
        if self._failure is not None:
            return self._failure
        # A checkpoint before the first event must not settle whose format the answer has.
        fold = self._fold or self._entry.fold(self._request)
        turn = fold.turn(ending)
        if isinstance(turn, Refused):
            return turn
        damage = dict(self._framer.damage) if self._framer is not None else {}
        if self._truncated:
            damage[Damage.TRUNCATED_CODING] = 1
        return _with_damage(turn, damage) if damage else turn


def _with_damage(turn: Turn, damage: dict[Damage, int]) -> Turn:
    found = tuple(Diagnostic(kind, count) for kind, count in damage.items())
    wire = turn.wire
    if Damage.OVERSIZE_FRAME in damage:  # the contract's word for a stream that reading stopped in
        wire = replace(wire, extra={**wire.extra, "reducer_error": "a line is longer than can be read"})
    return replace(turn, diagnostics=turn.diagnostics + found, wire=wire)


def _framer(framing: Framing, entry: DialectEntry) -> Framer | None:
    match framing:
        case Framing.SSE:
            longest = MAX_LINE_BYTES if entry.max_line_bytes is None else entry.max_line_bytes
            return SseFramer(longest, bare_json=entry.bare_json_in_stream)
        case Framing.NDJSON:
            return NdjsonFramer()
        case Framing.JSON_ARRAY:
            return JsonArrayFramer()
        case Framing.EVENTSTREAM:
            return EventStreamFramer()
        case Framing.DOCUMENT:
            return None
