"""The HTTP/2 connection under any cutting of its bytes, and under bytes of any kind."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.transport.http2 import frames
from extproc.transport.http2.connection import Connection
from extproc.transport.http2.happenings import Arrived, Happening
from extproc.transport.http2.limits import Limits
from tests.unit.extproc.transport.http2.client import GREETING, apart, data, grpc, head, parse

messages = st.lists(st.binary(max_size=300), max_size=6)
any_frames = st.lists(
    st.builds(
        frames.frame,
        st.integers(0, 12),
        st.sampled_from([0, 1, 4, 5, 8, 12, 0x20, 0x2D, 255]),
        st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
        st.one_of(st.binary(max_size=40), st.just(head(1)[9:]), st.just(grpc(b"abc"))),
    ),
    max_size=30,
)


def fed(connection: Connection, stream: bytes, cuts: list[int]) -> list[Happening]:
    """What is heard of a stream of bytes that is cut there."""
    heard: list[Happening] = []
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    for start, end in pairwise(places):
        heard += connection.receive_data(stream[start:end], 0)
    return heard


@given(messages, st.lists(st.integers(1, 100), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=150, deadline=None)
def test_messages_are_the_same_however_they_are_framed_and_read(
    sent: list[bytes], sizes: list[int], cuts: list[int]
) -> None:
    """Neither DATA frames nor reads are message boundaries."""
    body = b"".join(grpc(message) for message in sent)
    parts: list[bytes] = []
    for size in sizes:
        parts.append(body[:size])
        body = body[size:]
    parts.append(body)
    stream = GREETING + head(1) + b"".join(data(1, part) for part in parts)
    heard = fed(Connection(), stream, cuts)
    assert [message for event in heard if isinstance(event, Arrived) for message in event.messages] == sent


@given(any_frames, st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_frames_are_heard_alike_in_any_reads_and_answered_in_whole_frames(
    sent: list[bytes], cuts: list[int]
) -> None:
    """Nothing that a peer can frame raises, and reads change nothing."""
    stream = GREETING + head(1) + b"".join(sent)
    whole, cut = Connection(), Connection()
    assert apart(fed(cut, stream, cuts)) == apart(whole.receive_data(stream, 0))
    assert cut.broken == whole.broken
    output = whole.take_output()
    assert cut.take_output() == output
    gone = [each for each in parse(output) if each.kind == frames.GOAWAY]
    assert len(gone) == (0 if whole.broken is None else 1)


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_leave_a_connection_that_works_or_says_why_not(noise: bytes, greet: bool) -> None:
    """Nothing raises, and what is kept is bounded by one frame."""
    connection = Connection(Limits(held_bytes=1000))
    connection.receive_data((GREETING if greet else b"") + noise, 0)
    parse(connection.take_output())
