"""What a dialect is: a pure fold of provider events into a turn.

A dialect never sees bytes of the wire, content codings or chunk borders; those are
gone by the time it is called. It keeps the reduced turn, never the events. It never
raises on provider data: damage is counted and the fold goes on.

    events | document  →  fold  →  turn(ending)

``turn`` only reads: a running exchange is checkpointed with it (``Ending.OPEN``),
as often as wanted, before it is asked for the last time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from capture import jsontext
from capture.framing import Framing
from capture.turn import Damage, Diagnostic, Ending, Refused, Turn

EventT = TypeVar("EventT")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a fold may know of the request. ``model`` is the request's own, from its
    body or its path (Bedrock names the model family only there); empty when unknown.
    """

    path: str = ""
    model: str = ""


class Fold(Protocol):
    """The state of one answer being reduced."""

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of stream events. ``names[i]`` may be empty."""
        ...

    def document(self, body: bytes) -> None:
        """Fold a one-shot answer: the whole decoded body."""
        ...

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off. Changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class DialectEntry:
    """A row of the catalog.

    ``stream``: the framing of a streamed answer when its content type does not tell.
    ``max_line_bytes``: longest event line read (None: the framing's own bound).
    ``doubts_stream_type``: a body that starts as a JSON object is read as one even under
    a stream's content type (gateways answer errors so; the contract has Anthropic's read
    as an empty stream).
    ``bare_json_in_stream``: a JSON value between the events of an SSE stream is an event.
    """

    fold: Callable[[RequestFacts], Fold]
    stream: Framing
    max_line_bytes: int | None = None
    doubts_stream_type: bool = False
    bare_json_in_stream: bool = False


class DamageLog:
    """Counts kinds of damage, each with its first example (at most 200 characters)."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Damage, tuple[int, str]] = {}

    def add(self, damage: Damage, detail: str = "", count: int = 1) -> None:
        """Count ``damage``; the first detail given is kept."""
        seen, first = self._seen.get(damage, (0, ""))
        self._seen[damage] = (seen + count, first or detail[:200])

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was counted, in the order first met."""
        return tuple(Diagnostic(damage, count, detail) for damage, (count, detail) in self._seen.items())


class EventReader(Generic[EventT]):
    """Decodes a batch of JSON events into one struct type, the whole batch in one call.

    Decoding a batch as lines costs half of decoding its events one by one. When any
    event of the batch is damaged, the batch is read again event by event, tolerantly.
    The struct must accept every event kind: peek at its ``type`` member afterwards
    (a tagged union would refuse the kinds that a provider adds tomorrow).
    """

    __slots__ = ("_decoder", "_type")

    def __init__(self, struct: type[EventT]) -> None:
        self._type = struct
        self._decoder = msgspec.json.Decoder(struct)

    def read(self, datas: Sequence[bytes]) -> Iterable[EventT | None]:
        """One struct for each of ``datas``, None where the text does not parse."""
        lines = b"\n".join(datas)
        if lines.count(b"\n") >= len(datas):  # data of several lines could pass for several events
            return [self.read_one(data) for data in datas]
        try:
            events = self._decoder.decode_lines(lines)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return [self.read_one(data) for data in datas]
        if len(events) != len(datas):  # an empty data line, or two values on one line
            return [self.read_one(data) for data in datas]
        return events

    def read_one(self, data: bytes) -> EventT | None:
        """Decode one event, repairing what can be repaired."""
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
        try:
            return msgspec.convert(jsontext.decode(data), self._type)
        except (jsontext.JsonError, msgspec.ValidationError, RecursionError):
            return None
