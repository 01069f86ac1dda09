"""Messages that come together: which go on as one, and in which order."""

from collections.abc import Mapping

from extproc.events import Body, Side
from extproc.pb.ext_proc_pb2 import HttpBody, HttpTrailers, ProcessingRequest
from extproc.transport.base import Message, StreamHandler, TransportCounters
from extproc.transport.stream import Stream
from tests.unit.extproc.transport.peer import RecordedStream, exchange


class Keeper(RecordedStream):
    """Keeps events as they come."""

    def receive(self, event: Message) -> tuple[()]:
        self.events.append(event)
        return ()


class Acceptor:
    def __init__(self) -> None:
        self.kept = Keeper({}, lambda _: ())

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        return self.kept


def heard(*messages: bytes) -> list[Message]:
    """What a handler hears of messages that came together, after a request's headers."""
    acceptor = Acceptor()
    stream = Stream(acceptor, {}, TransportCounters())
    stream.receive((exchange(observe=True)[0],))
    stream.receive(messages)
    return acceptor.kept.events[1:]


def piece(data: bytes, *, observe: bool = True, last: bool = False) -> bytes:
    body = HttpBody(body=data, end_of_stream=last)
    return ProcessingRequest(response_body=body, observability_mode=observe).SerializeToString()


def body(data: bytes, *, observe: bool = True, last: bool = False) -> Body:
    return Body(Side.RESPONSE, data, end_of_stream=last, observe=observe)


def test_pieces_of_an_observed_answer_go_on_as_one() -> None:
    assert heard(piece(b"a"), piece(b""), piece(b"b")) == [body(b"ab")]


def test_the_last_piece_goes_on_by_itself_after_the_others() -> None:
    assert heard(piece(b"a"), piece(b"b"), piece(b"c", last=True)) == [body(b"ab"), body(b"c", last=True)]


def test_who_waits_for_answers_gets_one_for_each_piece() -> None:
    found = heard(piece(b"a", observe=False), piece(b"b", observe=False))
    assert [each.data for each in found if isinstance(each, Body)] == [b"a", b"b"]


def test_large_pieces_are_not_copied_to_be_joined() -> None:
    large = b"x" * 100_000
    assert heard(piece(b"a"), piece(large), piece(b"b"), piece(b"c")) == [
        body(b"a"),
        body(large),
        body(b"bc"),
    ]


def test_what_cannot_be_decoded_stands_between_the_pieces_and_costs_none() -> None:
    assert heard(piece(b"a"), b"\xff", piece(b"b")) == [body(b"a"), body(b"b")]


def test_nothing_is_taken_after_the_end() -> None:
    trailers = ProcessingRequest(
        response_trailers=HttpTrailers(), observability_mode=True
    ).SerializeToString()
    assert len(heard(piece(b"a"), trailers)) == 2
