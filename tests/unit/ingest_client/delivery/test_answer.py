"""Reading an HTTP answer: every cut gives the same, nothing beyond the bound is read."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.answer import Answer, AnswerReader, MalformedAnswer

BOUND = 4096

WHOLE = {
    "length": b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nok",
    "empty": b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nT: v\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 202 Accepted\nContent-Length: 2\n\nok",
    "no reason phrase": b"HTTP/1.1 202\r\nContent-Length: 2\r\n\r\nok",
    "equal lengths": b"HTTP/1.1 202 A\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
}
every_answer = pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE.keys())


def read(parts: list[bytes], bound: int = BOUND) -> Answer | None:
    reader = AnswerReader(bound)
    for part in parts:
        if reader.feed(part):
            break
    return reader.answer()


@every_answer
def test_every_cut_gives_the_same_answer(raw: bytes) -> None:
    whole = read([raw])
    assert whole is not None
    assert whole.complete
    assert whole.reusable
    assert whole.body == (b"" if whole.status == 204 or b"Length: 0" in raw else b"ok")
    assert read([bytes([byte]) for byte in raw]) == whole
    for cut in range(1, len(raw)):
        assert read([raw[:cut], raw[cut:]]) == whole


@every_answer
def test_every_missing_end_leaves_it_incomplete(raw: bytes) -> None:
    for cut in range(len(raw)):
        reader = AnswerReader(BOUND)
        reader.feed(raw[:cut])
        reader.eof()
        answer = reader.answer()
        assert answer is None or not answer.complete


@every_answer
def test_bytes_after_the_end_make_the_connection_unusable(raw: bytes) -> None:
    answer = read([raw + b"HTTP/1.1 500"])
    assert answer is not None
    assert answer.complete
    assert not answer.reusable


def test_body_and_fields_are_read_as_sent() -> None:
    answer = read(
        [b"HTTP/1.1 422 No\r\nX-A: 1\r\nx-a: 2\r\nRetry-After:  9 \r\nContent-Length: 3\r\n\r\nbad"]
    )
    assert answer is not None
    assert (answer.status, answer.body) == (422, b"bad")
    assert answer.fields == {"x-a": "1, 2", "retry-after": "9", "content-length": "3"}


def test_without_framing_the_orderly_close_is_the_end() -> None:
    reader = AnswerReader(BOUND)
    assert not reader.feed(b"HTTP/1.1 202 OK\r\n\r\nsome")
    assert not reader.feed(b" text")
    answer = reader.answer()
    assert answer is not None
    assert not answer.complete
    reader.eof()
    answer = reader.answer()
    assert answer is not None
    assert (answer.body, answer.complete, answer.reusable) == (b"some text", True, False)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 202 A\r\n", True),
        (b"HTTP/1.1 202 A\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 202 A\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 202 A\r\n", False),
        (b"HTTP/1.0 202 A\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_the_peer_decides_whether_the_connection_lives_on(head: bytes, reusable: bool) -> None:
    answer = read([head + b"Content-Length: 0\r\n\r\n"])
    assert answer is not None
    assert answer.reusable is reusable


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 202\r\n\r\n",
        b"HTTP/1.1 2x2 OK\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nname : x\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    ],
)
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read([raw])


def endless(kind: str) -> tuple[bytes, bytes]:
    return {
        "fields": (b"HTTP/1.1 202 A\r\n", b"X-Y: " + b"z" * 50 + b"\r\n"),
        "field": (b"HTTP/1.1 202 A\r\nX:", b"z" * 50),
        "length": (b"HTTP/1.1 202 A\r\nContent-Length: 10000000000\r\n\r\n", b"z" * 50),
        "chunks": (b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nabcde\r\n"),
        "chunk size": (b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x" * 50),
        "trailers": (b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
        "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "until close": (b"HTTP/1.1 202 A\r\n\r\n", b"z" * 50),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["fields", "field", "length", "chunks", "chunk size", "trailers", "interim", "until close"]
)
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_no_form_of_endless_answer_is_read_beyond_the_bound(kind: str, at_once: int) -> None:
    start, more = endless(kind)
    reader = AnswerReader(BOUND)
    done = bool(start) and reader.feed(start)
    fed = 0
    while not done:
        done = reader.feed(more * at_once)
        fed += 1
        assert fed < BOUND
    answer = reader.answer()
    assert reader.size == BOUND
    assert reader.wanted == 0
    assert answer is None or (answer.cut and not answer.complete and not answer.reusable)


def test_an_answer_of_exactly_the_bound_is_complete() -> None:
    head = b"HTTP/1.1 202 A\r\nContent-Length: %4d\r\n\r\n"
    size = BOUND - len(head % 1000)
    raw = head % size + b"z" * size
    assert len(raw) == BOUND
    answer = read([raw])
    assert answer is not None
    assert answer.complete
    assert read([raw], bound=BOUND - 1) != answer


@given(st.lists(st.binary(max_size=200), max_size=30))
def test_any_bytes_end_in_an_answer_or_in_a_refusal(parts: list[bytes]) -> None:
    try:
        answer = read(parts, bound=512)
    except MalformedAnswer:
        return
    assert answer is None or answer.size <= 512


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_in_a_chunked_body_read_the_same_however_cut(data: bytes, cuts: list[int]) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(data[i : i + 7]), data[i : i + 7]) for i in range(0, len(data), 7)
    )
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    answer = read([raw[a:b] for a, b in itertools.pairwise(edges)])
    assert answer is not None
    assert answer.complete
    assert answer.body == data
