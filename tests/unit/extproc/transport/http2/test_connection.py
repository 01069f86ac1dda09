"""The protocol without a socket: what is heard, what is sent, what is refused."""

import pytest

from extproc.events import StreamEnd
from extproc.transport.base import MAX_MESSAGE_BYTES
from extproc.transport.http2 import frames
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Arrived, Gone, Opened, PeerEnded
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.messages import Status
from extproc.transport.reasons import Reason
from tests.unit.extproc.transport.http2.client import (
    GREETING,
    PATH,
    REQUEST,
    apart,
    block,
    data,
    fields_of,
    greeted,
    grpc,
    head,
    kinds,
    parse,
)

METADATA = {"te": "trailers", "content-type": "application/grpc"}
OPENED = Opened(1, PATH, METADATA, None)


def test_one_rpc_is_told_in_order() -> None:
    heard = greeted().receive_data(head(1) + data(1, grpc(b"a")) + data(1, grpc(b"b"), frames.END_STREAM), 0)
    assert heard == [OPENED, Arrived(1, [b"a", b"b"]), PeerEnded(1)]


def test_messages_that_came_before_a_reset_are_heard_before_it() -> None:
    heard = greeted().receive_data(head(1) + data(1, grpc(b"a")) + frames.reset(1, ErrorCode.CANCEL), 0)
    assert heard == [OPENED, Arrived(1, [b"a"]), Gone(1, StreamEnd.CANCELLED)]


def test_every_byte_may_come_alone() -> None:
    connection = Connection()
    heard = [
        event
        for byte in GREETING + head(1) + data(1, grpc(b"abc")) + data(1, b"", frames.END_STREAM)
        for event in connection.receive_data(bytes([byte]), 0)
    ]
    assert heard == [OPENED, Arrived(1, [b"abc"]), PeerEnded(1)]


def test_frames_of_one_message_each_may_be_cut_anywhere() -> None:
    """The hot path takes them; a cut one must wait for its rest."""
    first = head(1) + head(3) + data(1, grpc(b"a")) + data(3, grpc(b"b"))
    sent = [data(1, grpc(b"c" * 40)), data(3, grpc(b"")), data(1, grpc(b"d" * 40))]
    expected = [Arrived(1, [b"c" * 40]), Arrived(1, [b"d" * 40]), Arrived(3, [b""])]
    whole = b"".join(sent)
    for cut in range(len(whole) + 1):
        connection = greeted()
        connection.receive_data(first, 0)
        heard = connection.receive_data(whole[:cut], 0) + connection.receive_data(whole[cut:], 0)
        assert apart(heard) == expected


def test_a_frame_that_only_looks_like_one_message_is_no_message() -> None:
    """Its kind, flags, prefix or size is another."""
    connection = greeted()
    connection.receive_data(head(1) + data(1, grpc(b"a")), 0)
    assert connection.receive_data(frames.frame(0x40, 0, 1, grpc(b"b")), 0) == []
    assert connection.receive_data(data(1, grpc(b"b"), frames.END_STREAM), 0) == [
        Arrived(1, [b"b"]),
        PeerEnded(1),
    ]
    connection.receive_data(data(1, grpc(b"c")), 0)
    assert kinds(connection.take_output())[-1] == frames.RST_STREAM


def test_a_frame_larger_than_allowed_breaks_the_connection_on_the_hot_path_too() -> None:
    connection = greeted()
    connection.receive_data(head(1) + data(1, grpc(b"a")), 0)
    assert connection.receive_data(data(1, grpc(b"b" * 16_380)), 0) == []
    assert connection.broken is Reason.FRAME_SIZE


def test_windows_are_given_back_before_half_of_them_is_used_whatever_path_the_frames_take() -> None:
    """A peer that keeps to its windows can go on for ever."""
    connection = greeted(Limits(stream_window=65_535, connection_window=131_070))
    connection.receive_data(head(1) + data(1, grpc(b"a")), 0)
    left = {0: 131_070 - 6, 1: 65_535 - 6}
    for _ in range(2000):
        frame = data(1, grpc(b"x" * 250))
        assert len(connection.receive_data(frame, 0)) == 1
        for each in parse(connection.take_output()):
            left[each.stream_id] += frames.u32(each.payload)
        left = {which: room - 255 for which, room in left.items()}
        assert min(left.values()) > 0
        assert (left[0] <= 131_070, left[1] <= 65_535) == (True, True)


def test_messages_need_not_keep_to_frames() -> None:
    whole = grpc(b"first") + grpc(b"") + grpc(b"second")
    for cut in range(1, len(whole)):
        heard = greeted().receive_data(head(1) + data(1, whole[:cut]) + data(1, whole[cut:]), 0)
        assert heard == [OPENED, Arrived(1, [b"first", b"", b"second"])]


def test_padding_is_cut_off_and_counted_against_the_window() -> None:
    connection = greeted(Limits(stream_window=65535, connection_window=65535))
    padded = data(1, b"\xff" + grpc(b"a") + b"\0" * 255, frames.PADDED)
    heard = connection.receive_data(head(1) + padded * 130, 0)
    assert heard == [OPENED, Arrived(1, [b"a"] * 130)]
    updates = [each for each in parse(connection.take_output()) if each.kind == frames.WINDOW_UPDATE]
    assert {each.stream_id for each in updates} == {0, 1}


def test_a_head_may_be_continued() -> None:
    whole = block(REQUEST)
    heard = greeted().receive_data(
        frames.frame(frames.HEADERS, 0, 1, whole[:5])
        + frames.frame(frames.CONTINUATION, 0, 1, whole[5:9])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, whole[9:]),
        0,
    )
    assert heard == [OPENED]


def test_trailers_end_the_peers_side() -> None:
    trailers = frames.frame(
        frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, block([("x-checksum", "1")])
    )
    assert greeted().receive_data(head(1) + trailers, 0) == [OPENED, PeerEnded(1)]


def test_a_deadline_is_told_in_seconds() -> None:
    (heard,) = greeted().receive_data(head(1, ("grpc-timeout", "1500m")), 0)
    assert isinstance(heard, Opened)
    assert heard.timeout_s == 1.5


def test_an_answer_is_a_head_a_message_and_trailers() -> None:
    connection = greeted()
    connection.receive_data(head(1), 0)
    connection.send_message(1, b"answer")
    connection.finish(1)
    sent = parse(connection.take_output())
    assert [each.kind for each in sent] == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert sent[1].payload == grpc(b"answer")
    assert sent[2].flags & frames.END_STREAM


def test_answers_wait_for_the_peers_windows_and_trailers_wait_for_them() -> None:
    connection = Connection()
    connection.receive_data(frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 4}), 0)
    connection.receive_data(head(1), 0)
    connection.take_output()
    connection.send_message(1, b"abcdef")
    connection.finish(1)
    sent = b""
    for _ in range(3):
        got = parse(connection.take_output())
        sent += b"".join(each.payload for each in got if each.kind == frames.DATA)
        assert not any(each.flags & frames.END_STREAM for each in got)
        connection.receive_data(frames.window_update(1, 3), 0)
    got = parse(connection.take_output())
    assert sent + got[0].payload == grpc(b"abcdef")
    assert got[-1].flags & frames.END_STREAM


def test_the_connections_window_holds_back_all_streams_and_lets_all_go_on() -> None:
    connection = greeted()
    connection.receive_data(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**20}) + head(1) + head(3), 0)
    connection.take_output()
    message = b"x" * 50_000
    for stream_id in (1, 3):
        connection.send_message(stream_id, message)
        connection.finish(stream_id)
    sent = {1: 0, 3: 0}
    for each in parse(connection.take_output()):
        sent[each.stream_id] += len(each.payload) if each.kind == frames.DATA else 0
    assert sum(sent.values()) == frames.DEFAULT_WINDOW
    connection.receive_data(frames.window_update(0, 100_000), 0)
    for each in parse(connection.take_output()):
        sent[each.stream_id] += len(each.payload) if each.kind == frames.DATA else 0
    assert sent == {1: len(message) + 5, 3: len(message) + 5}


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        pytest.param(grpc(b"a", flag=1), Status.UNIMPLEMENTED, id="compressed"),
        pytest.param(grpc(b"a", flag=7), Status.INTERNAL, id="no such flag"),
        pytest.param(
            b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), Status.RESOURCE_EXHAUSTED, id="too large"
        ),
    ],
)
def test_a_message_that_cannot_be_taken_ends_its_rpc_alone(payload: bytes, status: Status) -> None:
    connection = greeted()
    heard = connection.receive_data(head(1) + data(1, payload) + data(1, b"more") + head(3), 0)
    assert heard == [OPENED, Gone(1, StreamEnd.ERROR), Opened(3, PATH, METADATA, None)]
    (trailers,) = [each for each in parse(connection.take_output()) if each.kind == frames.HEADERS]
    assert ("grpc-status", str(int(status))) in fields_of(trailers.payload)
    assert connection.broken is None


def test_a_last_message_that_is_not_whole_is_an_error() -> None:
    heard = greeted().receive_data(head(1) + data(1, grpc(b"abc")[:-1], frames.END_STREAM), 0)
    assert heard == [OPENED, Gone(1, StreamEnd.ERROR)]


def test_parts_of_messages_are_held_within_a_budget() -> None:
    connection = greeted(Limits(held_bytes=1000))
    part = grpc(b"x" * 5000)[:600]
    heard = connection.receive_data(head(1) + data(1, part) + head(3) + data(3, part), 0)
    assert heard[-1] == Gone(3, StreamEnd.ERROR)
    assert connection.receive_data(data(1, part[:300]), 0) == []


def test_a_ping_is_answered() -> None:
    connection = greeted()
    connection.receive_data(frames.frame(frames.PING, 0, 0, b"12345678"), 0)
    assert parse(connection.take_output()) == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_draining_takes_what_is_on_its_way_and_refuses_what_comes_after() -> None:
    connection = greeted()
    connection.drain()
    first = parse(connection.take_output())
    assert frames.u32(first[0].payload) == frames.MAX_STREAM_ID
    assert connection.receive_data(head(1), 0) == [OPENED]
    connection.receive_data(frames.frame(frames.PING, frames.ACK, 0, first[1].payload), 0)
    (last,) = parse(connection.take_output())
    assert (last.kind, frames.u32(last.payload)) == (frames.GOAWAY, 1)
    assert connection.receive_data(head(3) + data(1, grpc(b"a")), 0) == [
        Arrived(1, [b"a"]),
    ]
    assert kinds(connection.take_output()) == [frames.RST_STREAM]


def repeated(frame: bytes) -> bytes:
    """More of a frame than any bucket holds."""
    return frame * 60_000


RAPID = b"".join(head(number) + frames.reset(number, ErrorCode.CANCEL) for number in range(1, 4001, 2))
FLOODS = {
    Reason.SETTINGS_FLOOD: frames.settings({}) * 200,
    Reason.PING_FLOOD: frames.frame(frames.PING, 0, 0, b"12345678") * 600,
    Reason.RESET_FLOOD: RAPID,
    Reason.EMPTY_FRAME_FLOOD: head(1) + data(1, b"") * 1100,
    Reason.WINDOW_UPDATE_FLOOD: repeated(frames.window_update(0, 1)),
    Reason.IDLE_FRAME_FLOOD: frames.frame(99, 0, 0, b"") * 1100,
    Reason.STREAM_ERROR_FLOOD: b"".join(head(n, ("connection", "close")) for n in range(1, 2203, 2)),
    Reason.CONTINUATION_FLOOD: frames.frame(frames.HEADERS, 0, 1, b"")
    + frames.frame(frames.CONTINUATION, 0, 1, b"") * 40,
    Reason.HEADER_LIST: frames.frame(
        frames.HEADERS, frames.END_HEADERS, 1, b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12_000
    ),
    Reason.COMPRESSION: frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff" * 20),
    Reason.PROTOCOL: frames.frame(frames.PING, 0, 1, b"12345678"),
    Reason.FRAME_SIZE: frames.frame(frames.PING, 0, 0, b"1"),
    Reason.FLOW_CONTROL: frames.window_update(0, 2**31 - 1),
}


@pytest.mark.parametrize("reason", FLOODS)
def test_a_connection_that_does_harm_is_ended_with_its_reason(reason: Reason) -> None:
    connection = greeted()
    connection.receive_data(FLOODS[reason], 0)
    assert connection.broken is reason
    last = parse(connection.take_output())[-1]
    assert last.kind == frames.GOAWAY
    assert last.payload[8:] == reason.value.encode()
    assert connection.receive_data(head(9001), 0) == []


def test_what_floods_at_once_is_fine_over_time() -> None:
    connection = greeted()
    for second in range(600):
        connection.receive_data(frames.frame(frames.PING, 0, 0, b"12345678") * 2, float(second))
        connection.receive_data(frames.settings({}), float(second))
    assert connection.broken is None


def test_answers_that_nobody_reads_end_the_connection() -> None:
    connection = Connection(Limits(unread_bytes=1000))
    connection.receive_data(frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + head(1), 0)
    connection.send_message(1, b"x" * 2000)
    assert connection.broken is Reason.UNREAD_ANSWERS


def test_a_peer_that_speaks_something_else_is_told_at_once() -> None:
    connection = Connection()
    connection.receive_data(b"GET / HTTP/1.1\r\n", 0)
    assert connection.broken is Reason.PROTOCOL


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*REQUEST, ("Upper", "x")], id="upper case"),
        pytest.param([*REQUEST, ("connection", "close")], id="connection header"),
        pytest.param([*REQUEST, ("te", "gzip")], id="te"),
        pytest.param([*REQUEST, (":path", "/")], id="pseudo header after the others"),
        pytest.param([(":status", "200"), *REQUEST], id="pseudo header of an answer"),
        pytest.param(REQUEST[1:], id="no method"),
        pytest.param([(":path", ""), *REQUEST[:2]], id="empty path"),
    ],
)
def test_a_malformed_head_resets_its_stream_alone(fields: list[tuple[str, str]]) -> None:
    connection = greeted()
    malformed = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block(fields))
    assert connection.receive_data(malformed + head(3), 0) == [Opened(3, PATH, METADATA, None)]
    assert parse(connection.take_output()) == [
        (frames.RST_STREAM, 0, 1, ErrorCode.PROTOCOL_ERROR.to_bytes(4, "big"))
    ]


def test_a_request_that_is_no_grpc_call_is_refused_in_http() -> None:
    connection = greeted()
    assert (
        connection.receive_data(
            frames.frame(
                frames.HEADERS,
                frames.END_HEADERS | frames.END_STREAM,
                1,
                block([(":method", "GET"), (":scheme", "http"), (":path", "/")]),
            ),
            0,
        )
        == []
    )
    first, body, last = parse(connection.take_output())
    assert (":status", "405") in fields_of(first.payload)
    assert (body.kind, last.flags & frames.END_STREAM) == (frames.DATA, frames.END_STREAM)
