"""What every transport does with one stream: serialised messages in, serialised answers out.

Decodes, counts, hands events to the handler and encodes its answers, and keeps the
promise that capture never hurts traffic: when the handler raises, the fault is logged
with its traceback and counted, and ``PassThrough`` answers from that message on, so
Envoy sees a processor that changes nothing.

A message that cannot be decoded is counted and logged. In observability mode reading
goes on. Otherwise Envoy waits for an answer that nobody can give: the RPC is finished,
and Envoy, configured to fail open, goes on without us.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from extproc.events import (
    Answer,
    AnswerBody,
    AnswerHeaders,
    AnswerTrailers,
    Body,
    BodyMode,
    BodyModes,
    EchoBody,
    Finish,
    Headers,
    Side,
    StreamEnd,
    Trailers,
)
from extproc.transport.base import Command, Message, StreamAcceptor, StreamHandler, TransportCounters
from extproc.wire import Undecodable, decode, encode

_log = logging.getLogger(__name__)
_NOTHING: tuple[bytes, ...] = ()
_JOINED_BYTES = 64 * 1024
_RESPONSE = Side.RESPONSE  # an enum's member costs a lookup in its class


def _is_piece(event: Message | Undecodable) -> TypeGuard[Body]:
    """Whether it is a piece of an answer that nobody waits for: a small one, or joining would copy much."""
    return (
        type(event) is Body
        and event.observe
        and event.side is _RESPONSE
        and not event.end_of_stream
        and len(event.data) <= _JOINED_BYTES
    )


def _is_last(event: Message) -> bool:
    """Whether a message ends its side."""
    return isinstance(event, Trailers) or event.end_of_stream


class PassThrough:
    """A handler that captures nothing and changes nothing: the answer of last resort.

    ``modes`` are those of the stream's first message, where it had any; ``request_over``
    says that the request's last message was answered before.
    """

    def __init__(self, modes: BodyModes | None = None, *, request_over: bool = False) -> None:
        self._modes = modes
        self._request_over = request_over

    def receive(self, event: Message) -> Sequence[Command]:
        """Let the message pass; finish the RPC once both sides are over."""
        self._modes = event.modes or self._modes
        over = _is_last(event)
        if over and event.side is Side.REQUEST:
            self._request_over = True
        answers: list[Command] = [] if event.observe else [self._answer(event)]
        if over and event.side is Side.RESPONSE and (event.observe or self._request_over):
            answers.append(Finish())
        return answers

    def ended(self, end: StreamEnd) -> None:
        """Nothing was captured, so nothing ends."""

    def _answer(self, event: Message) -> Answer:
        """What Envoy waits for after this message."""
        match event:
            case Headers(side=side):
                return AnswerHeaders(side)
            case Trailers(side=side):
                return AnswerTrailers(side)
            case Body(side=side):
                if self._echoes(side):
                    return EchoBody(side, event.data, event.end_of_stream)
                return AnswerBody(side)

    def _echoes(self, side: Side) -> bool:
        """Whether Envoy forwards only the bytes that it gets back."""
        if self._modes is None:
            return False
        mode = self._modes.request if side is Side.REQUEST else self._modes.response
        return mode is BodyMode.FULL_DUPLEX_STREAMED


class Stream:
    """One ext_proc stream of a transport.

    The transport calls ``receive`` with the messages as they come, writes what it returns, ends the RPC
    with OK once ``finished`` is true, and calls ``ended`` exactly once, whatever happened.
    """

    def __init__(
        self, acceptor: StreamAcceptor, initial_metadata: Mapping[str, str], counters: TransportCounters
    ) -> None:
        self.finished = False
        self.observing = False  # whether the last message came from a peer that reads no answers
        self._counters = counters
        self._modes: BodyModes | None = None
        self._request_over = False
        self._end: StreamEnd | None = None
        counters.streams_opened += 1
        self._handler: StreamHandler | None = None
        self._receiver: StreamHandler = PassThrough()
        try:
            self._handler = self._receiver = acceptor.open(initial_metadata)
        except Exception:  # noqa: BLE001 -- the stream must be answered even so
            self._fault("a stream was accepted, but not captured: the handler could not be made")

    def receive(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        """Take serialised messages; return the serialised answers to write now. The hot path.

        Pieces of an answer that came together, and that nobody waits for, go on as one piece.
        """
        counters = self._counters
        answers: list[bytes] = []
        pieces: list[Body] = []
        for message in messages:
            if self.finished:
                break
            counters.messages += 1
            counters.message_bytes += len(message)
            event = decode(message)
            if _is_piece(event):
                pieces.append(event)
                continue
            if pieces:
                self._take_together(pieces)
                pieces.clear()
            if isinstance(event, Undecodable):
                self._undecodable(event, message)
            else:
                answers += self._take(event)
        if pieces:
            self._take_together(pieces)
        return answers

    def _take_together(self, pieces: Sequence[Body]) -> None:
        whole = pieces[0]
        if len(pieces) > 1:
            data = b"".join([piece.data for piece in pieces])
            whole = Body(_RESPONSE, data, end_of_stream=False, observe=True)
        self._take(whole)

    def _take(self, event: Message) -> Sequence[bytes]:
        """Give one event to the handler; return the serialised answers."""
        self.observing = event.observe
        if event.modes is not None:
            self._modes = event.modes
        if event.side is Side.REQUEST and _is_last(event):
            self._request_over = True
        try:
            commands = self._receiver.receive(event)
            return self._encoded(commands) if commands else _NOTHING
        except Exception:  # noqa: BLE001 -- whatever breaks above must not reach the user's traffic
            return self._uncaptured(event)

    def ended(self, end: StreamEnd) -> None:
        """The RPC is over: tell the handler. Its first fault outweighs ``end``."""
        self._end = self._end or end
        self._counters.streams_ended[self._end] += 1
        if self._handler is None:
            return
        try:
            self._handler.ended(self._end)
        except Exception:  # noqa: BLE001 -- one stream's fault stays its own
            self._fault("the handler failed at the end of its stream")

    def _uncaptured(self, event: Message) -> Sequence[bytes]:
        """The handler has failed: answer as if there were none, from this message on."""
        self._fault("the handler failed; the stream goes on uncaptured")
        self._end = StreamEnd.ERROR
        self._receiver = PassThrough(self._modes, request_over=self._request_over)
        return self._encoded(self._receiver.receive(event))

    def _encoded(self, commands: Sequence[Command]) -> Sequence[bytes]:
        """Serialised answers, up to the first ``Finish``; none for a peer that reads none."""
        answers: list[bytes] = []
        for command in commands:
            if isinstance(command, Finish):
                self.finished = True
                break
            if not self.observing:
                answers.append(encode(command))
        self._counters.answers += len(answers)
        return answers

    def _undecodable(self, why: Undecodable, message: bytes) -> None:
        """Count a message that says nothing to us; step out where Envoy waits for an answer."""
        self._counters.undecodable[why] += 1
        _log.warning(
            "a message could not be decoded",
            extra={"reason": why.value, "bytes": len(message), "observing": self.observing},
        )
        if not self.observing:
            self.finished = True
            self._end = StreamEnd.ERROR

    def _fault(self, what: str) -> None:
        """Our bug: count it, and log it with its traceback."""
        self._counters.handler_errors += 1
        _log.exception(what)
