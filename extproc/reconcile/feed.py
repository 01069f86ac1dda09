"""A worker's side: one line when an exchange begins, one when it has its place in the ledger.

Lines go to the supervisor through a pipe and never wait: what the pipe and a bounded buffer
cannot take is left out, and the next line that fits says so (``Gap``). What is in the pipe when
the worker dies is read by the supervisor even so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import IO, Final, cast

from capture.classify import Classifier, classify
from capture.outcomes import Outcome
from capture.routes import Kind
from extproc.captured import Captured
from extproc.observe import Observer
from extproc.reconcile.summary import (
    Begun,
    Counted,
    Durable,
    Ended,
    Gap,
    Line,
    Missed,
    decode_missed,
    encode,
    shortened,
)
from ingest_client.ledger import Ledger
from ingest_client.sink import Record

REQUEST_ID: Final = "x-steno-request-id"
"""Initial metadata of an ext_proc stream: names the exchange even if none of its messages arrives."""

MAX_BUFFER_BYTES: Final = 8 << 20
"""About forty thousand exchanges, waiting for a supervisor that does not read."""

CONFIRM_S: Final = 0.1
"""As often as the spool writes what was counted. What a crash leaves unconfirmed counts as not seen."""


class Feed:
    """Tells of exchanges (an ``Observer``, which passes on what it hears).

    ``write`` takes a line and says whether it could.
    """

    def __init__(self, observer: Observer, classifier: Classifier, write: Callable[[bytes], bool]) -> None:
        self._observer = observer
        self._classifier = classifier
        self._write = write
        self._number = 0
        self._durable = 0
        self._missing = 0
        self._missing_from_ns = 0
        self._missing_until_ns = 0

    def begun(self, request_id: str, wall_ns: int) -> int:
        """A stream opened and its request id is known. Returns the exchange's number, from 1."""
        self._number += 1
        self._tell(Begun(self._number, shortened(request_id), wall_ns), wall_ns)
        return self._number

    def kept(self, captured: Captured, record: Record) -> None:
        """A turn (or a quarantined one) is durable."""
        self._observer.kept(captured, record)
        outcome = record.quarantine.outcome.value if record.quarantine is not None else ""
        self._ended(captured, outcome, record.turn_id)

    def ended(self, captured: Captured, outcome: Outcome) -> None:
        """An exchange ended without one."""
        self._observer.ended(captured, outcome)
        self._ended(captured, outcome.value, "")

    def counted(self, missed: Missed) -> None:
        """The ledger has what was missed."""
        self._tell(Counted(missed.count, missed.instead_of), 0)

    async def confirm_forever(self, commit: Callable[[], Awaitable[None]]) -> None:
        """Tell which exchanges are in the ledger on disk. ``commit`` returns when what was counted is."""
        while True:
            await asyncio.sleep(CONFIRM_S)
            if self._number > self._durable:
                number = self._number
                await commit()
                self._durable = number
                self._tell(Durable(number), 0)

    def _ended(self, captured: Captured, outcome: str, turn_id: str) -> None:
        number = captured.exchange_number
        if not number:  # it ended before its headers came, and no metadata names it
            number = self.begun(captured.envelope.request_id, captured.started.wall_ns)
        turn = not captured.head.path or classify(captured.head, self._classifier).kind is not Kind.NON_TURN
        self._tell(Ended(number, outcome, turn, captured.status or 0, captured.response_bytes, turn_id), 0)

    def _tell(self, line: Line, wall_ns: int) -> None:
        if self._missing:
            gap = Gap(self._missing, self._missing_from_ns, self._missing_until_ns)
            self._missing = 0 if self._write(encode(gap)) else self._missing
        if self._missing or not self._write(encode(line)):
            self._missing += 1
            if wall_ns:
                began = self._missing_from_ns if self._missing > 1 else wall_ns
                self._missing_from_ns, self._missing_until_ns = began or wall_ns, wall_ns


def metadata_request_id(initial_metadata: Mapping[str, str]) -> str:
    """The request id that Envoy gave with the stream itself; empty when it was not told to."""
    return shortened(initial_metadata.get(REQUEST_ID, ""))


class Pipe(asyncio.BaseProtocol):
    """The way to the supervisor: a pipe that is never waited for."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, file: IO[bytes]) -> "Pipe":
        """Take a file over (a pipe's end). Raises ValueError when it is no pipe."""
        loop = asyncio.get_running_loop()
        _, pipe = await loop.connect_write_pipe(cls, file)
        return pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop has it."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more."""
        del exc
        self._transport = None

    def write(self, line: bytes) -> bool:
        """Take a line, unless too much waits already or nobody reads."""
        if self._transport is None or self._transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
            return False
        self._transport.write(line)
        return True

    async def close(self, patience_s: float) -> None:
        """Let the last lines out."""
        for _ in range(int(patience_s / _LOOK_S)):
            if self._transport is None or not self._transport.get_write_buffer_size():
                break
            await asyncio.sleep(_LOOK_S)
        if self._transport is not None:
            self._transport.close()


_LOOK_S: Final = 0.02


class Orders:
    """What the supervisor sends: served turn requests that nobody saw, to be counted."""

    def __init__(self, ledger: Ledger, feed: Feed) -> None:
        self._ledger = ledger
        self._feed = feed
        self._rest = b""

    def receive(self, data: bytes) -> None:
        """Take bytes as they come. Raises ``msgspec.MsgspecError`` on what is no order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._count(decode_missed(line))

    def _count(self, missed: Missed) -> None:
        if missed.instead_of:
            self._ledger.restate(Outcome(missed.instead_of), Outcome.NOT_SEEN, missed.count)
        else:
            self._ledger.miss(missed.count)
        self._feed.counted(missed)
