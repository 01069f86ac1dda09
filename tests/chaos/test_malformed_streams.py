"""Malformed answers through the whole capture: no crash, one outcome, the same turn for every split (T10).

Each damaged stream is one seed's: a stream of some dialect, damaged in one to three ways, announced as what
it is or as something else, given to one exchange in one message and to another in random pieces.
``STENO_T10_STREAMS`` sets how many (``docs/reliability.md``); ``python -m tests.fuzz`` looks further.
"""

import gzip
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from bench.streams import STREAMS, Stream
from capture.outcomes import Outcome
from capture.turn import Dialect
from extproc.assemble import TurnIdentity, assemble
from extproc.events import Body, Event, Headers, Side, StreamEnd
from extproc.exchange import Concluded, Exchange, ExchangeRules
from extproc.policy import OnePolicy
from ingest_client.sink import Record
from tests.unit.extproc.playbook import LATER, START

STREAM_COUNT = int(os.environ.get("STENO_T10_STREAMS", "10000"))
PARTS = 10
WORDS = 12
SPLIT_WORDS = 3

PLACES = {
    Dialect.ANTHROPIC_MESSAGES: ("api.anthropic.com", "/v1/messages"),
    Dialect.OPENAI_CHAT: ("api.openai.com", "/v1/chat/completions"),
    Dialect.OPENAI_COMPLETIONS: ("api.openai.com", "/v1/completions"),
    Dialect.OPENAI_RESPONSES: ("api.openai.com", "/v1/responses"),
    Dialect.GEMINI: ("generativelanguage.googleapis.com", "/v1beta/models/g:streamGenerateContent"),
    Dialect.BEDROCK_CONVERSE: ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/m/converse-stream"),
    Dialect.BEDROCK_INVOKE: (
        "bedrock-runtime.eu-west-1.amazonaws.com",
        "/model/meta.llama3/invoke-with-response-stream",
    ),
    Dialect.COHERE_V1: ("api.cohere.com", "/v1/chat"),
    Dialect.COHERE_V2: ("api.cohere.com", "/v2/chat"),
    Dialect.OLLAMA_CHAT: ("localhost:11434", "/api/chat"),
    Dialect.OLLAMA_GENERATE: ("localhost:11434", "/api/generate"),
}
MESSAGES = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
REQUESTS = {Dialect.COHERE_V1: b'{"model":"m","stream":true,"message":"hi"}'}  # its path is others' too
TYPES = (
    "", "application/json", "text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream",
)  # fmt: skip
TOKENS = (
    b"\n\n", b"\r", b"data: ", b"event: error\n", b"[DONE]", b"{", b"}", b"[", b"]", b'"', b"\\", b"null", b"1e999",
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"{" * 300, b'{"error":{"message":"m"}}', b'{"type":"error"}',
)  # fmt: skip
VALUES = (
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b'""',
    b"true",
    b'{"a":[{"b":1}]}',
    b"99999999999999999999999",
    b"0.5",
)

Kept = Record | Outcome


def captured(stream: Stream, content_type: str, encoding: str, pieces: Sequence[bytes]) -> Kept:
    """What one exchange makes of an answer that arrives in these pieces."""
    host, path = PLACES[stream.dialect]
    exchange = Exchange(ExchangeRules(OnePolicy()), START)
    asked = ((":method", "POST"), (":path", path), (":authority", host), ("content-type", "application/json"))
    answered = ((":status", "200"), ("content-type", content_type), ("content-encoding", encoding))
    events: list[Event | StreamEnd] = [
        Headers(Side.REQUEST, asked, False, True),
        Body(Side.REQUEST, REQUESTS.get(stream.dialect, MESSAGES), True, True),
        Headers(Side.RESPONSE, answered, False, True),
        *(Body(Side.RESPONSE, piece, False, True) for piece in pieces),
        Body(Side.RESPONSE, b"", True, True),
        StreamEnd.EOF,
    ]
    commands = [command for event in events for command in exchange.receive(event, LATER)]
    (concluded,) = [command for command in commands if isinstance(command, Concluded)]
    return concluded.outcome or assemble(concluded.captured, TurnIdentity("t"))


# Kinds of damage: (dice, body, some other stream) → body


def _flip(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    flipped = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 20))):
        flipped[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    return bytes(flipped)


def _cut(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    return body[: dice.randrange(1, len(body) + 1)]


def _lose(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + body[start + dice.choice((1, 2, 30, 300)) :]


def _repeat(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + body[start : start + dice.choice((1, 30, 300))] * 2 + body[start:]


def _shuffle(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    dice.shuffle(lines)
    return b"".join(lines)


def _insert(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + dice.choice(TOKENS) + body[start:]


def _retype(dice: random.Random, body: bytes, _other: bytes) -> bytes:
    """The value behind some colon becomes another; what is left of the old one follows it."""
    colon = body.find(b":", dice.randrange(len(body)))
    end = min((at for at in (body.find(mark, colon) for mark in (b",", b"}")) if at > 0), default=colon)
    return body[: colon + 1] + dice.choice(VALUES) + body[end:]


def _mix(dice: random.Random, body: bytes, other: bytes) -> bytes:
    return body[: dice.randrange(len(body))] + other[dice.randrange(len(other)) :]


DAMAGE: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    _flip, _cut, _lose, _repeat, _shuffle, _insert, _retype, _mix,
)  # fmt: skip


def malformed(dice: random.Random, stream: Stream) -> bytes:
    """A body of the dialect, damaged in one to three ways."""
    body = stream.make(WORDS)
    for _ in range(dice.randrange(1, 4)):
        body = dice.choice(DAMAGE)(dice, body or b" ", dice.choice(STREAMS).make(WORDS))
    return body or b" "


def in_pieces(dice: random.Random, body: bytes) -> list[bytes]:
    """The body in up to a dozen pieces, empty ones among them."""
    places = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(1, 12)))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def coded(dice: random.Random, body: bytes) -> tuple[str, bytes]:
    """One in eight under a content coding: sound, damaged, or a lie."""
    match dice.randrange(24):
        case 0:
            return "gzip", gzip.compress(body, mtime=0)
        case 1:
            return "gzip", _flip(dice, gzip.compress(body, mtime=0), b"")
        case 2:
            return dice.choice(("gzip", "br", "zstd", "deflate", "snappy")), body
        case _:
            return "", body


@pytest.mark.timeout(60 + STREAM_COUNT // 20)
@pytest.mark.parametrize("part", range(PARTS))
def test_malformed_streams_end_alike_in_any_pieces(part: int) -> None:
    """One outcome each, whatever the pieces; and the damage reaches turns, quarantine and refusals alike."""
    seen: Counter[str] = Counter()
    for seed in range(part * STREAM_COUNT // PARTS, (part + 1) * STREAM_COUNT // PARTS):
        dice = random.Random(seed)
        stream = STREAMS[seed % len(STREAMS)]
        encoding, body = coded(dice, malformed(dice, stream))
        content_type = stream.content_type if dice.random() < 0.8 else dice.choice(TYPES)
        whole = captured(stream, content_type, encoding, [body])
        assert captured(stream, content_type, encoding, in_pieces(dice, body)) == whole, seed
        assert captured(stream, content_type, encoding, in_pieces(dice, body)) == whole, seed
        seen[_kind(whole)] += 1
    assert seen["turn"] > seen["quarantined"] > 0, seen


def _kind(kept: Kept) -> str:
    if isinstance(kept, Outcome):
        return kept.value
    return "turn" if kept.quarantine is None else "quarantined"


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_a_stream_split_at_every_byte_gives_the_same_turn(stream: Stream) -> None:
    """Two messages, cut at each place there is."""
    body = stream.make(SPLIT_WORDS)
    whole = captured(stream, stream.content_type, "", [body])
    assert _kind(whole) == "turn"
    for place in range(1, len(body)):
        assert captured(stream, stream.content_type, "", [body[:place], body[place:]]) == whole, place
