"""One budget for all connections: windows are promises, parts and answers are held."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.events import StreamEnd
from extproc.transport.http2 import frames
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.frames import DEFAULT_WINDOW
from extproc.transport.http2.happenings import Gone
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.memory import Memory
from extproc.transport.reasons import Reason
from tests.unit.extproc.transport.http2.client import GREETING, data, grpc, head, parse

MIB = 1 << 20


def test_windows_shrink_as_the_budget_is_promised_away_and_never_under_http2s_own() -> None:
    memory = Memory(256 * MIB)
    windows = [memory.share(8 * MIB).window for _ in range(200)]
    assert windows == sorted(windows, reverse=True)
    assert (windows[0], windows[-1]) == (8 * MIB, DEFAULT_WINDOW)
    assert memory.promised_bytes < 128 * MIB + 200 * DEFAULT_WINDOW


@given(st.integers(0, 1 << 32), st.lists(st.integers(1, 1 << 30), max_size=50))
def test_what_is_given_back_is_all_there_again(total: int, most: list[int]) -> None:
    memory = Memory(total)
    shares = [memory.share(each) for each in most]
    for number, share in enumerate(shares):
        share.hold(parts=number, answers=2 * number, unsent=3 * number)
    assert memory.held_bytes == sum(6 * number for number in range(len(shares)))
    for share in (*shares, *shares):
        share.give_back()
    assert (memory.promised_bytes, memory.held_bytes, memory.beyond_bytes) == (0, 0, 0)


def test_a_connection_announces_the_window_that_it_was_promised() -> None:
    share = Memory(16 * MIB).share(8 * MIB)
    updates = [each for each in parse(Connection(Limits(), share).take_output()) if each.stream_id == 0]
    assert share.window == MIB
    assert frames.u32(updates[-1].payload) == MIB - DEFAULT_WINDOW


def test_parts_of_messages_are_held_within_what_all_connections_may_hold_together() -> None:
    """What was promised is always there; more only while the other does not hold it."""
    memory = Memory(160 * 1024)
    shares = [memory.share(DEFAULT_WINDOW) for _ in range(2)]
    first, second = (Connection(Limits(), share) for share in shares)
    part = grpc(b"x" * 200_000)[:16_000]
    for connection in (first, second):
        connection.receive_data(GREETING + head(1) + head(3), 0)
    for _ in range(6):
        assert first.receive_data(data(1, part), 0) == []
    heard = [second.receive_data(data(1, part), 0) for _ in range(5)]
    assert heard == [[], [], [], [], [Gone(1, StreamEnd.ERROR)]]
    shares[0].give_back()
    assert [second.receive_data(data(3, part), 0) for _ in range(5)] == [[]] * 5


def test_answers_that_nobody_takes_are_held_within_it_too() -> None:
    memory = Memory(160 * 1024)
    connection = Connection(Limits(), memory.share(DEFAULT_WINDOW))
    connection.receive_data(frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + head(1), 0)
    connection.send_message(1, b"x" * 150_000)
    assert connection.broken is None
    connection.send_message(1, b"x" * 50_000)
    assert connection.broken is Reason.UNREAD_ANSWERS
    assert memory.held_bytes == 0


def test_a_message_that_became_whole_is_held_no_more() -> None:
    memory = Memory(256 * 1024)
    connection = Connection(Limits(), memory.share(DEFAULT_WINDOW))
    whole = grpc(b"x" * 30_000)
    connection.receive_data(GREETING + head(1) + data(1, whole[:16_000]), 0)
    assert memory.held_bytes == 16_000
    connection.receive_data(data(1, whole[16_000:]), 0)
    assert memory.held_bytes == 0


def test_a_stream_that_is_reset_in_the_middle_of_a_message_gives_it_back() -> None:
    memory = Memory(256 * 1024)
    connection = Connection(Limits(), memory.share(DEFAULT_WINDOW))
    connection.receive_data(GREETING + head(1) + data(1, grpc(b"x" * 30_000)[:16_000]), 0)
    connection.receive_data(frames.reset(1, frames.ErrorCode.CANCEL), 0)
    assert memory.held_bytes == 0
