"""One Exchange per ext_proc stream: a pure state machine.

    receive(event, at) → commands

Events come from a transport, commands go back to it (answers, Finish) and to the
capture pipeline (exactly one :class:`Concluded`, always). Time arrives as an
argument. ``extproc.phases`` has the theory and the transition table; here is what
each step does: bytes are **appended**, never replaced, and nothing is concluded
before the response has ended or the stream did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec import Struct

from capture.classify import Classifier, RequestHead, classify, settle
from capture.envelope import is_internal, read_envelope
from capture.jsontext import scrub_text
from capture.outcomes import Outcome
from capture.routes import Kind
from capture.turn import Ending
from extproc.budget import Budget, closed_account
from extproc.captured import OK, Captured, Instant, reducer_for
from extproc.events import (
    Answer,
    AnswerBody,
    AnswerHeaders,
    AnswerTrailers,
    Body,
    BodyMode,
    BodyModes,
    EchoBody,
    Event,
    Finish,
    Headers,
    Side,
    StreamEnd,
    Trailers,
)
from extproc.phases import REQUEST_ENDED, RESPONSE_BEGUN, TRANSITIONS, Input, Phase, input_of
from extproc.policy import PolicySource
from extproc.request_body import RequestBody
from extproc.response_body import ResponseBody

_NO_MODES: Final = BodyModes(BodyMode.NONE, BodyMode.NONE)


class RequestEnded(Struct, frozen=True):
    """A large request is whole: it need not stay in memory until the answer has ended."""

    request: RequestBody


class Concluded(Struct, frozen=True):
    """The exchange has ended. ``outcome`` says why there is no turn; None: assemble one."""

    captured: Captured
    outcome: Outcome | None


Command: TypeAlias = Answer | Finish | RequestEnded | Concluded

_PEEK_BYTES: Final = 256 * 1024
"""A request up to this size is decoded in the reader: about a millisecond."""
SHELVE_BYTES: Final = 64 * 1024
"""A request from this size on is worth a place of its own once it has ended."""

_NOTHING: Final[Sequence[Command]] = ()


@dataclass(frozen=True, slots=True)
class ExchangeRules:
    """What every exchange of a process shares."""

    policies: PolicySource
    classifier: Classifier = field(default_factory=Classifier)
    budget: Budget = field(default_factory=Budget)


class Exchange:
    """The state machine of one stream."""

    __slots__ = (
        "_captured",
        "_finished",
        "_modes",
        "_observe",
        "_request_passed",
        "_response",
        "_rules",
        "phase",
        "unexpected",
    )

    def __init__(self, rules: ExchangeRules, started: Instant) -> None:
        self._rules = rules
        self._captured = _begin(rules, RequestHead("", "", ""), started)
        self._response = ResponseBody(self._captured)
        self._modes: BodyModes | None = None
        self._observe = True
        self._finished = False
        self._request_passed = False
        self.phase = Phase.IDLE
        self.unexpected = 0

    @property
    def captured(self) -> Captured:
        """What has been taken down so far."""
        return self._captured

    def receive(self, event: Event, at: Instant) -> Sequence[Command]:
        """Move, then act. Returns the commands in the order to carry them out."""
        before = self.phase
        if before is Phase.RESPONSE and type(event) is Body and _goes_on(event):
            # By far most messages: a piece of an answer that goes on moves nothing (its row of the table).
            self._response.append(event.data)
            return self._answer(event)
        step = input_of(event)
        self._request_passed = self._request_passed or step is Input.REQUEST_END
        after = TRANSITIONS.get((before, step))
        if after is None:
            self.unexpected += not isinstance(event, StreamEnd)
        else:
            self.phase = after
            self._captured.request_ended = self._captured.request_ended or after in REQUEST_ENDED
            if not isinstance(event, StreamEnd):
                self._take(event, before, at)
        answers = self._answer(event)
        if step is Input.REQUEST_END and after is not None:
            answers = (*answers, *self._end_request())
        if self.phase is Phase.CLOSED and before is not Phase.CLOSED:
            return (*answers, *self._conclude(event, step, at))
        if before is Phase.CLOSED and step is Input.REQUEST_END and not self._finished:
            return (*answers, *self._finish())
        return answers

    # -- taking down ----------------------------------------------------------

    def _take(self, event: Headers | Body | Trailers, before: Phase, at: Instant) -> None:
        if isinstance(event, Body):
            if event.side is Side.RESPONSE:
                self._response.append(event.data)
            else:
                self._append_request(event.data)
        elif isinstance(event, Headers):
            # Headers that come again must not begin anew: what was appended would be gone.
            if event.side is Side.REQUEST and before is Phase.IDLE:
                self._begin_request(event, at)
            elif event.side is Side.RESPONSE and before not in RESPONSE_BEGUN:
                self._begin_response(event)
            else:
                self.unexpected += 1

    def _begin_request(self, event: Headers, at: Instant) -> None:
        headers = first_values(event.headers)
        head = RequestHead(
            method=headers.get(":method", ""),
            host=headers.get(":authority", ""),
            path=headers.get(":path", ""),
            headers=headers,
        )
        self._captured = _begin(self._rules, head, at)
        self._response = ResponseBody(self._captured)
        self._captured.request_ended = self.phase in REQUEST_ENDED

    def _begin_response(self, event: Headers) -> None:
        captured = self._captured
        headers = captured.response_headers = first_values(event.headers)
        captured.status = _status(headers.get(":status", ""))
        if captured.upgraded:
            self.phase = Phase.CLOSED
            return
        self._settle()
        if captured.lost or captured.account.refused or captured.request.over_budget:
            return
        if captured.classification.kind is not Kind.AMBIGUOUS:
            captured.reducer = reducer_for(captured)

    def _append_request(self, data: bytes) -> None:
        request = self._captured.request
        request.append(data)
        if request.shed and not self._captured.lost:
            self._response.lose()
        elif request.over_budget:
            self._response.drop()

    def _end_request(self) -> Sequence[Command]:
        """What a complete request asks for. An ambiguous one that the reader may still have to read stays."""
        request = self._captured.request
        request.ended()
        ambiguous = self._captured.classification.kind is Kind.AMBIGUOUS
        if request.kept_bytes < SHELVE_BYTES or (ambiguous and request.kept_bytes <= _PEEK_BYTES):
            return _NOTHING
        return (RequestEnded(request),)

    def _settle(self) -> None:
        """Decide an ambiguous exchange, where its request is at hand, readable and small: a large or
        compressed one is read behind the reader, and the answer's bytes are held until then.
        """
        captured = self._captured
        coded = captured.head.headers.get("content-encoding", "")
        if captured.classification.kind is not Kind.AMBIGUOUS or coded or not captured.request_ended:
            return
        if captured.request.kept_bytes <= _PEEK_BYTES:
            captured.classification = settle(captured.classification, captured.request.peek())

    # -- answering ------------------------------------------------------------

    def _answer(self, event: Event) -> Sequence[Command]:
        if isinstance(event, StreamEnd):
            return _NOTHING
        self._observe = event.observe
        if event.observe:
            return _NOTHING
        if self._modes is None:
            self._modes = event.modes or _NO_MODES
        match event:
            case Headers():
                return (AnswerHeaders(event.side, _internal(event)),)
            case Body():
                return (self._answer_body(event),)
            case Trailers():
                return (AnswerTrailers(event.side),)

    def _answer_body(self, event: Body) -> Answer:
        if self._mode(event.side) is BodyMode.FULL_DUPLEX_STREAMED:
            return EchoBody(event.side, event.data, event.end_of_stream)
        return AnswerBody(event.side)

    def _mode(self, side: Side) -> BodyMode:
        modes = self._modes or _NO_MODES
        return modes.request if side is Side.REQUEST else modes.response

    # -- concluding -----------------------------------------------------------

    def _conclude(self, event: Event, step: Input, at: Instant) -> Sequence[Command]:
        captured = self._captured
        captured.ended = at
        captured.ending = Ending.CUT if step is Input.STREAM_END else Ending.COMPLETE
        outcome = _ending_outcome(captured, event)
        if outcome is None and captured.lost:
            outcome = Outcome.OVER_BUDGET
        concluded = Concluded(captured, outcome)
        if step is Input.STREAM_END:
            return (concluded,)
        return (*self._finish(), concluded)

    def _finish(self) -> Sequence[Command]:
        """End the RPC, unless Envoy still takes the rest of a request or a WebSocket from
        our answers alone: then closing would lose user bytes.
        """
        duplex = BodyMode.FULL_DUPLEX_STREAMED
        waits = not self._observe and (
            (self._mode(Side.REQUEST) is duplex and not self._request_passed)
            or (self._captured.upgraded and self._mode(Side.RESPONSE) is duplex)
        )
        if waits:
            return _NOTHING
        self._finished = True
        return (Finish(),)


def _goes_on(event: Body) -> bool:
    """Whether it is a piece of the answer, and not the last one."""
    return event.side is Side.RESPONSE and not event.end_of_stream


def _begin(rules: ExchangeRules, head: RequestHead, started: Instant) -> Captured:
    classification = classify(head, rules.classifier)
    policy = rules.policies.snapshot(head)
    wanted = classification.kind is not Kind.NON_TURN and policy.capture
    account = rules.budget.open(policy.tenant) if wanted else closed_account()
    kept = wanted and not account.refused
    return Captured(
        policy=policy,
        head=head,
        classification=classification,
        envelope=read_envelope(head.headers),
        started=started,
        request=RequestBody(policy.request_budget_bytes if kept else None, account),
        account=account,
        lost=wanted and not kept,
    )


def _ending_outcome(captured: Captured, event: Event) -> Outcome | None:
    """Why an exchange that ended so cannot become a turn (``behaviour.md`` §1); None when it may."""
    if captured.upgraded:
        return Outcome.WEBSOCKET
    if not captured.policy.capture:
        return Outcome.POLICY
    if captured.ending is Ending.CUT:
        return _cut_outcome(captured)
    if isinstance(event, Headers) and captured.request_ended:
        return Outcome.UPSTREAM_NO_RESPONSE
    if captured.status is None:
        return Outcome.MISSING_STATUS
    if captured.status != OK and not captured.policy.errors:
        return Outcome.UPSTREAM_STATUS
    return None


def _cut_outcome(captured: Captured) -> Outcome | None:
    if not captured.request_ended:
        return Outcome.CLIENT_DISCONNECT
    if not captured.response_bytes:
        return Outcome.UPSTREAM_NO_RESPONSE
    return None if captured.status == OK else Outcome.CLIENT_DISCONNECT


def first_values(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Header name → value of its first occurrence (``wire.md`` §9), names in lower case as they come.
    Bytes that are not UTF-8 become U+FFFD (``wire.md`` §2): one odd header must not cost the turn.
    """
    return {name: scrub_text(value) for name, value in reversed(headers)}


def _internal(event: Headers) -> tuple[str, ...]:
    if event.side is not Side.REQUEST:
        return ()
    return tuple(dict.fromkeys(name for name, _ in event.headers if is_internal(name)))


def _status(text: str) -> int | None:
    """The status, or None when it is missing or no number (``missing_status``)."""
    return int(text) if text.isascii() and text.isdigit() and int(text) else None
