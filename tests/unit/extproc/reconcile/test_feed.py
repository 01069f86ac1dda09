"""A worker's lines, and the orders that it takes."""

import asyncio
import os
from typing import Final

import pytest

from capture.classify import Classifier, RequestHead, classify
from capture.envelope import read_envelope
from capture.outcomes import Outcome, State
from extproc.captured import Captured
from extproc.policy import Policy
from extproc.reconcile.feed import CONFIRM_S, Feed, Orders, Pipe, metadata_request_id
from extproc.reconcile.summary import Begun, Counted, Durable, Ended, Gap, Line, Missed, decode_line, encode
from extproc.request_body import RequestBody
from ingest_client.ledger import Ledger
from ingest_client.sink import Record
from tests.patience import eventually
from tests.unit.extproc.playbook import START

CLASSIFIER: Final = Classifier()


class Wire:
    """Takes lines while ``open``."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.open = True

    def write(self, line: bytes) -> bool:
        """Take one."""
        if self.open:
            self.lines.append(decode_line(line))
        return self.open


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.endings: list[str] = []

    def kept(self, captured: Captured, record: Record) -> None:
        """A turn."""
        del captured
        self.endings.append(record.turn_id)

    def ended(self, captured: Captured, outcome: Outcome) -> None:
        """No turn."""
        del captured
        self.endings.append(outcome.value)


def captured(*, number: int = 1, path: str = "/v1/messages", method: str = "POST") -> Captured:
    """An exchange that has ended."""
    head = RequestHead(method, "api.test", path, {"x-request-id": "r"})
    return Captured(
        policy=Policy(),
        head=head,
        classification=classify(head, CLASSIFIER),
        envelope=read_envelope(head.headers),
        started=START,
        request=RequestBody(None),
        status=200,
        response_bytes=7,
        exchange_number=number,
    )


def test_a_turn_is_told_of_when_it_begins_and_when_it_is_kept() -> None:
    wire, heard = Wire(), Heard()
    feed = Feed(heard, CLASSIFIER, wire.write)
    assert feed.begun("r", 5) == 1
    feed.kept(captured(), Record(turn_id="t", tenant="", body=b"", created_at_ns=0))
    assert wire.lines == [Begun(1, "r", 5), Ended(1, "", True, 200, 7, "t")]
    assert heard.endings == ["t"]


@pytest.mark.parametrize(
    ("path", "method", "turn"),
    [
        ("/v1/messages", "POST", True),
        ("/v1/messages", "GET", False),
        ("/v1/models", "GET", False),
        ("", "", True),
    ],
)
def test_only_a_head_that_is_no_turns_takes_an_exchange_out(path: str, method: str, turn: bool) -> None:
    """One whose head never came may be a turn."""
    wire = Wire()
    feed = Feed(Heard(), CLASSIFIER, wire.write)
    feed.ended(captured(path=path, method=method), Outcome.CLIENT_DISCONNECT)
    assert wire.lines == [Ended(1, "client_disconnect", turn, 200, 7)]


def test_an_exchange_that_had_no_name_is_announced_at_its_end() -> None:
    wire = Wire()
    feed = Feed(Heard(), CLASSIFIER, wire.write)
    feed.begun("other", 5)
    feed.ended(captured(number=0), Outcome.MISSING_STATUS)
    assert wire.lines[1:] == [Begun(2, "r", START.wall_ns), Ended(2, "missing_status", True, 200, 7)]


def test_lines_that_could_not_be_written_are_told_of_with_the_first_that_can() -> None:
    wire = Wire()
    feed = Feed(Heard(), CLASSIFIER, wire.write)
    wire.open = False
    for moment in (10, 20, 30):
        feed.begun("r", moment)
    feed.ended(captured(), Outcome.POLICY)
    wire.open = True
    feed.begun("r", 40)
    feed.begun("r", 50)
    assert wire.lines == [Gap(4, 10, 30), Begun(4, "r", 40), Begun(5, "r", 50)]


def test_a_second_gap_begins_anew() -> None:
    wire = Wire()
    feed = Feed(Heard(), CLASSIFIER, wire.write)
    for moment in (10, 20):
        wire.open = False
        feed.begun("r", moment)
        wire.open = True
        feed.begun("r", moment + 1)
    gaps = [line for line in wire.lines if isinstance(line, Gap)]
    assert gaps == [Gap(1, 10, 10), Gap(1, 20, 20)]


def test_orders_are_counted_and_confirmed_however_they_are_cut() -> None:
    ledger, wire = Ledger(), Wire()
    ledger.observe()
    ledger.end(Outcome.CLIENT_DISCONNECT)
    orders = Orders(ledger, Feed(Heard(), CLASSIFIER, wire.write))
    data = encode(Missed(3)) + encode(Missed(1, "client_disconnect"))
    for at in range(0, len(data), 7):
        orders.receive(data[at : at + 7])
    assert wire.lines == [Counted(3, ""), Counted(1, "client_disconnect")]
    assert (ledger.observed, ledger.ended[Outcome.NOT_SEEN], ledger.imbalance) == (4, 4, 0)
    assert ledger.total(State.EXCLUDED) == 0
    assert ledger.take_unsaved() == {"observed": 4, "client_disconnect": 0, "not_seen": 4}


async def test_exchanges_are_confirmed_once_what_was_counted_is_on_disk() -> None:
    """Those that begin while the disk works are left for the next time."""
    wire, written = Wire(), asyncio.Event()
    feed = Feed(Heard(), CLASSIFIER, wire.write)

    async def commit() -> None:
        feed.begun("late", 2)
        await written.wait()

    feed.begun("r", 1)
    confirming = asyncio.ensure_future(feed.confirm_forever(commit))
    await eventually(lambda: len(wire.lines) == 2)
    await asyncio.sleep(CONFIRM_S)
    assert wire.lines == [Begun(1, "r", 1), Begun(2, "late", 2)]
    written.set()
    await eventually(lambda: len(wire.lines) > 2)
    confirming.cancel()
    assert wire.lines[2] == Durable(1)


def test_the_id_in_a_streams_metadata_names_it() -> None:
    assert metadata_request_id({"x-steno-request-id": "r"}) == "r"
    assert metadata_request_id({"x-steno-request-id": "-"}) == ""
    assert metadata_request_id({}) == ""


async def test_a_pipe_that_nobody_reads_takes_no_more_at_its_bound_and_gives_all_it_took() -> None:
    reading, writing = os.pipe()
    pipe = await Pipe.open(os.fdopen(writing, "wb"))
    line = b"x" * 999_999 + b"\n"
    taken = 0
    while pipe.write(line):
        taken += 1
    assert 8 <= taken <= 10
    got, _ = await asyncio.gather(asyncio.to_thread(_all_bytes, reading), pipe.close(60.0))
    assert got == taken * len(line)
    assert not pipe.write(line)


def _all_bytes(fd: int) -> int:
    with os.fdopen(fd, "rb") as reader:
        return len(reader.read())
