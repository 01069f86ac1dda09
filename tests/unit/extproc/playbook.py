"""Playbooks for the Exchange: events in, commands out, compared as lists."""

from collections.abc import Sequence

from capture.outcomes import Outcome
from capture.reduce import Reduced
from extproc.assemble import TurnIdentity, assemble
from extproc.captured import Instant
from extproc.events import Body, BodyModes, Event, Headers, Side, StreamEnd, Trailers
from extproc.exchange import Command, Concluded, Exchange, ExchangeRules
from extproc.policy import OnePolicy, Policy
from ingest_client.sink import Record

START = Instant(1_790_000_000_000_000_000, 1_000)
LATER = Instant(1_790_000_001_000_000_000, 1_000_001_000)

SSE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","role":"assistant",'
    b'"model":"claude-x","usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Hello, "}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"world"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":5}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
REQUEST = b'{"model": "claude-x", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


def request_headers(
    *extra: tuple[str, str],
    path: str = "/v1/messages",
    method: str = "POST",
    end: bool = False,
    observe: bool = True,
    modes: BodyModes | None = None,
) -> Headers:
    """The request's headers."""
    pairs = ((":method", method), (":path", path), (":authority", "api.test"), *extra)
    return Headers(Side.REQUEST, pairs, end, observe, modes)


def response_headers(
    status: str = "200",
    *extra: tuple[str, str],
    content_type: str = "text/event-stream",
    end: bool = False,
    observe: bool = True,
) -> Headers:
    """The response's headers."""
    return Headers(Side.RESPONSE, ((":status", status), ("content-type", content_type), *extra), end, observe)


def request(data: bytes = REQUEST, *, end: bool = True, observe: bool = True) -> Body:
    """A request body message."""
    return Body(Side.REQUEST, data, end, observe)


def response(data: bytes = SSE, *, end: bool = True, observe: bool = True) -> Body:
    """A response body message."""
    return Body(Side.RESPONSE, data, end, observe)


def trailers(side: Side = Side.RESPONSE, *, observe: bool = True) -> Trailers:
    """A trailers message."""
    return Trailers(side, observe)


TURN: tuple[Event, ...] = (request_headers(), request(), response_headers(), response())


def play(*events: Event, policy: Policy | None = None) -> list[Command]:
    """Run an exchange through the events; all commands, in order."""
    exchange = Exchange(ExchangeRules(OnePolicy(policy or Policy())), START)
    commands: list[Command] = []
    for event in events:
        commands += exchange.receive(event, LATER)
    return commands


def answers(commands: Sequence[Command]) -> list[Command]:
    """The commands without the conclusion."""
    return [command for command in commands if not isinstance(command, Concluded)]


def concluded(commands: Sequence[Command]) -> Concluded:
    """The one conclusion."""
    found = [command for command in commands if isinstance(command, Concluded)]
    assert len(found) == 1
    return found[0]


def ending(*events: Event, policy: Policy | None = None) -> Record | Outcome:
    """What becomes of the exchange: its outcome, or the record to keep."""
    end = concluded(play(*events, policy=policy))
    return end.outcome if end.outcome is not None else assemble(end.captured, TurnIdentity("turn-1"))


def reduced(*events: Event) -> Reduced:
    """The turn that the exchange's reducer made."""
    captured = concluded(play(*events)).captured
    assert captured.reducer is not None
    return captured.reducer.finish(captured.ending)


__all__ = ["StreamEnd"]
