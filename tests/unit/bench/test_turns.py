"""What the benches send is what Envoy would send, and as large as they say."""

import pytest

from bench.envoy_side import framed_message
from bench.tables import bars, table
from bench.turns import make_turn, request_body, sse_frames
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from extproc.events import Body, BodyMode, BodyModes, Headers, Side
from extproc.wire import decode

FRAME_HEADER = 5  # of a DATA frame: length, type, flags; the stream follows


def test_a_request_and_every_frame_of_an_answer_have_their_size() -> None:
    """Bytes are what the results are divided by."""
    assert len(request_body(2048)) == 2048
    assert {len(frame) for frame in sse_frames(30, 200)[:-1]} == {200}


def test_the_frames_are_one_whole_turn() -> None:
    """Else the sidecar would reduce something else than it does for a user."""
    reducer = ResponseReducer(
        Dialect.OPENAI_CHAT, RequestFacts(), ResponseFacts(content_type="text/event-stream")
    )
    for frame in sse_frames(3):
        reducer.feed(frame)
    turn = reducer.finish(Ending.COMPLETE)
    assert isinstance(turn, Turn)
    assert (turn.partial, turn.diagnostics) == (False, ())


@pytest.mark.parametrize("observe", [True, False])
def test_a_turn_shows_its_messages_in_envoys_order(observe: bool) -> None:
    """Head, body, empty end, for both sides; the first says the mode where answers are wanted."""
    turn = make_turn(2, observe=observe)
    events = [decode(message) for message in (*turn.opening, *turn.chunks)]
    first = events[0]
    assert isinstance(first, Headers)
    assert first.modes == (None if observe else BodyModes(BodyMode.STREAMED, BodyMode.STREAMED))
    shown = [
        (type(event), event.side, event.end_of_stream)
        for event in events
        if isinstance(event, Headers | Body) and event.observe is observe
    ]
    assert shown == [
        (Headers, Side.REQUEST, False),
        (Body, Side.REQUEST, False),
        (Body, Side.REQUEST, True),
        (Headers, Side.RESPONSE, False),
        *[(Body, Side.RESPONSE, False)] * 3,
        (Body, Side.RESPONSE, True),
    ]


def test_a_large_message_is_cut_into_frames_that_every_peer_takes() -> None:
    """16 KiB is what nobody may refuse."""
    message = bytes(range(256)) * 200
    framed = framed_message(message)
    assert [int.from_bytes(head[:3]) for head, _ in framed] == [len(piece) for _, piece in framed]
    assert {len(head) for head, _ in framed} == {FRAME_HEADER}
    assert max(len(piece) for _, piece in framed) <= 16384
    assert b"".join(piece for _, piece in framed)[5:] == message


def test_tables_line_up_and_bars_escape_their_labels() -> None:
    """They are pasted into documents as they are."""
    assert table(("a", "bb"), [("ccc", "d")]) == "| a   | bb |\n| --- | -- |\n| ccc | d  |"
    assert "&lt;x&gt;" in bars("t", [("<x>", 1.0)])
