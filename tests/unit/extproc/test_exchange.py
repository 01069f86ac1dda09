"""The Exchange, as lists of events and commands."""

import gzip
import json

import pytest

from capture.outcomes import Outcome
from capture.turn import Ending, Turn
from extproc.events import (
    AnswerBody,
    AnswerHeaders,
    AnswerTrailers,
    Body,
    BodyMode,
    BodyModes,
    EchoBody,
    Event,
    Finish,
    Side,
    StreamEnd,
    Trailers,
)
from extproc.phases import TRANSITIONS, Input, Phase
from extproc.policy import Policy
from ingest_client.sink import Record
from tests.unit.extproc.playbook import (
    REQUEST,
    SSE,
    TURN,
    answers,
    concluded,
    ending,
    play,
    reduced,
    request,
    request_headers,
    response,
    response_headers,
    trailers,
)

DUPLEX = BodyModes(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)


def payload(record: Record | Outcome) -> dict[str, object]:
    """The marshalled payload of a kept turn."""
    assert isinstance(record, Record)
    assert record.quarantine is None
    decoded: dict[str, object] = json.loads(record.body)
    return decoded


# -- answers --------------------------------------------------------------------


def test_observability_mode_is_never_answered_and_the_rpc_is_finished_at_the_end() -> None:
    assert answers(play(*TURN)) == [Finish()]


def test_every_message_is_answered_when_envoy_waits_for_answers() -> None:
    commands = play(
        request_headers(observe=False, modes=BodyModes(BodyMode.STREAMED, BodyMode.STREAMED)),
        request(end=False, observe=False),
        request(b"", observe=False),
        response_headers(observe=False),
        response(end=False, observe=False),
        trailers(observe=False),
    )
    assert answers(commands) == [
        AnswerHeaders(Side.REQUEST),
        AnswerBody(Side.REQUEST),
        AnswerBody(Side.REQUEST),
        AnswerHeaders(Side.RESPONSE),
        AnswerBody(Side.RESPONSE),
        AnswerTrailers(Side.RESPONSE),
        Finish(),
    ]


@pytest.mark.parametrize(
    "mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL, BodyMode.STREAMED, BodyMode.NONE]
)
def test_bodies_pass_untouched_in_every_mode_but_full_duplex(mode: BodyMode) -> None:
    commands = play(request_headers(observe=False, modes=BodyModes(mode, mode)), request(observe=False))
    assert answers(commands) == [AnswerHeaders(Side.REQUEST), AnswerBody(Side.REQUEST)]


def test_full_duplex_bodies_are_echoed_byte_for_byte() -> None:
    commands = play(
        request_headers(observe=False, modes=DUPLEX),
        request(observe=False),
        response_headers(observe=False),
        response(b"a", end=False, observe=False),
        response(b"", observe=False),
    )
    assert answers(commands) == [
        AnswerHeaders(Side.REQUEST),
        EchoBody(Side.REQUEST, REQUEST, end_of_stream=True),
        AnswerHeaders(Side.RESPONSE),
        EchoBody(Side.RESPONSE, b"a", end_of_stream=False),
        EchoBody(Side.RESPONSE, b"", end_of_stream=True),
        Finish(),
    ]


def test_a_full_duplex_request_is_echoed_to_its_end_after_an_early_response() -> None:
    """Closing the RPC at the response's end would lose the rest of the upload."""
    commands = play(
        request_headers(observe=False, modes=DUPLEX),
        request(b"1", end=False, observe=False),
        response_headers("401", observe=False),
        response(b"no", observe=False),
        request(b"2", observe=False),
    )
    assert answers(commands)[-2:] == [EchoBody(Side.REQUEST, b"2", end_of_stream=True), Finish()]
    assert concluded(commands).outcome is Outcome.UPSTREAM_STATUS


def test_capture_headers_are_removed_where_the_mode_allows_it() -> None:
    headers = request_headers(
        ("x-tapes-cwd", "/"), ("x-steno-tenant", "a"), ("x-tapes-cwd", "/b"), ("accept", "*/*"), observe=False
    )
    assert play(headers) == [AnswerHeaders(Side.REQUEST, ("x-tapes-cwd", "x-steno-tenant"))]


# -- the turn -------------------------------------------------------------------


def test_a_streamed_turn_is_kept_with_its_request_as_it_came() -> None:
    made = payload(ending(*TURN))
    assert made["provider"] == "anthropic"
    assert made["request"] == json.loads(REQUEST)
    response = made["response"]
    assert isinstance(response, dict)
    assert response["message"] == {"role": "assistant", "content": [{"type": "text", "text": "Hello, world"}]}
    assert response["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8, "total_duration_ns": 0,
    }  # fmt: skip


def test_the_wire_names_our_turn_id_and_keeps_the_clients_request_id_beside_it() -> None:
    made = payload(ending(request_headers(("x-request-id", "theirs")), *TURN[1:]))
    meta = made["meta"]
    assert isinstance(meta, dict)
    assert (meta["request_id"], meta["client_request_id"]) == ("turn-1", "theirs")


def test_a_key_in_the_path_never_leaves_the_process() -> None:
    made = payload(ending(request_headers(path="/v1/messages?key=s3cret&beta=true"), *TURN[1:]))
    assert b"s3cret" not in json.dumps(made).encode()
    meta = made["meta"]
    assert isinstance(meta, dict)
    assert meta["path"] == "/v1/messages?key=[redacted]&beta=true"


# -- the three old bugs ---------------------------------------------------------


def test_regression_chunks_are_appended_never_overwritten() -> None:
    """The old capture kept only the last chunk of each body."""
    pieces = [SSE[start : start + 7] for start in range(0, len(SSE), 7)]
    halves = (request(REQUEST[:20], end=False), request(REQUEST[20:]))
    chunked = ending(
        request_headers(), *halves, response_headers(), *(response(piece, end=False) for piece in pieces),
        response(b""),
    )  # fmt: skip
    assert payload(chunked)["response"] == payload(ending(*TURN))["response"]
    assert payload(chunked)["request"] == json.loads(REQUEST)


def test_regression_nothing_is_dispatched_before_end_of_stream() -> None:
    """The old capture dispatched on the first SSE frame."""
    frames = [frame + b"\n\n" for frame in SSE.split(b"\n\n")[:-1]]
    before_the_end: tuple[Event, ...] = (
        request_headers(), request(), response_headers(), *(response(frame, end=False) for frame in frames)
    )  # fmt: skip
    assert play(*before_the_end) == []
    assert answers(play(*before_the_end, response(b""))) == [Finish()]
    assert concluded(play(*before_the_end, response(b""))).outcome is None


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b'{"a": 1} {"b": 2}',
        b'{"model": "m", "messages": ["\\ud800"]}',
        b"[" * 5000 + b"]" * 5000,
    ],
    ids=["no-json", "two-values", "unpaired-surrogate", "too-deep"],
)
def test_regression_a_marshal_error_is_quarantined_with_its_reason(body: bytes) -> None:
    """The old capture swallowed the error and posted an empty body."""
    record = ending(request_headers(), request(body), *TURN[2:])
    assert isinstance(record, Record)
    assert record.quarantine is not None
    assert record.quarantine.outcome is Outcome.MARSHAL_ERROR
    assert record.quarantine.reason
    kept = json.loads(record.body)
    assert kept["quarantined"] == "marshal_error"
    assert kept["request"] == {"text": body.decode()}


# -- endings --------------------------------------------------------------------


def test_a_second_end_of_stream_never_concludes_twice() -> None:
    commands = play(*TURN, response(b"more"), response(SSE), StreamEnd.EOF, StreamEnd.CANCELLED)
    assert payload(ending(*TURN, response(b"more"), response(SSE), StreamEnd.EOF)) == payload(ending(*TURN))
    assert concluded(commands).outcome is None


@pytest.mark.parametrize("end", list(StreamEnd))
def test_a_stream_that_ends_without_end_of_stream_is_a_partial_turn(end: StreamEnd) -> None:
    cut = SSE[: SSE.index(b"world")]
    record = ending(request_headers(), request(), response_headers(), response(cut, end=False), end)
    made = payload(record)
    assert isinstance(made["meta"], dict)
    assert made["meta"]["partial"] is True
    turn = reduced(request_headers(), request(), response_headers(), response(cut, end=False), end)
    assert isinstance(turn, Turn)
    assert turn.choices[0].text == "Hello, "


def test_a_client_that_leaves_after_the_last_frame_leaves_a_whole_turn() -> None:
    commands = play(
        request_headers(), request(), response_headers(), response(end=False), StreamEnd.CANCELLED
    )
    captured = concluded(commands).captured
    assert captured.ending is Ending.CUT
    turn = reduced(request_headers(), request(), response_headers(), response(end=False), StreamEnd.CANCELLED)
    assert isinstance(turn, Turn)
    assert not turn.partial


def test_trailers_end_a_body_as_end_of_stream_does() -> None:
    by_trailers = ending(request_headers(), request(), response_headers(), response(end=False), trailers())
    assert payload(by_trailers) == payload(ending(*TURN))


def test_request_trailers_end_the_request() -> None:
    record = ending(request_headers(), request(end=False), Trailers(Side.REQUEST, observe=True), *TURN[2:])
    assert payload(record)["request"] == json.loads(REQUEST)


def test_a_response_that_ends_before_its_request_is_one_exchange_with_its_outcome() -> None:
    early = (request_headers(), request(b"{", end=False), response_headers("401"), response(b"no"))
    assert ending(*early, request(b"}")) is Outcome.UPSTREAM_STATUS


def test_a_request_whose_end_was_not_seen_is_sent_when_its_json_is_whole() -> None:
    record = ending(request_headers(), request(end=False), *TURN[2:])
    assert payload(record)["request"] == json.loads(REQUEST)


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((StreamEnd.EOF,), Outcome.CLIENT_DISCONNECT),
        ((request_headers(), StreamEnd.EOF), Outcome.CLIENT_DISCONNECT),
        ((request_headers(), request(end=False), StreamEnd.EOF), Outcome.CLIENT_DISCONNECT),
        (
            (request_headers(), request(end=False), response_headers(), response(end=False), StreamEnd.EOF),
            Outcome.CLIENT_DISCONNECT,
        ),
        ((request_headers(), request(), StreamEnd.EOF), Outcome.UPSTREAM_NO_RESPONSE),
        ((request_headers(), request(), response_headers(), StreamEnd.EOF), Outcome.UPSTREAM_NO_RESPONSE),
        ((request_headers(), request(), response_headers(end=True)), Outcome.UPSTREAM_NO_RESPONSE),
        (
            (request_headers(), request(), response_headers("500"), response(b"x", end=False), StreamEnd.EOF),
            Outcome.CLIENT_DISCONNECT,
        ),
        ((request_headers(), request(), response_headers("500"), response(b"x")), Outcome.UPSTREAM_STATUS),
        ((request_headers(), request(), response_headers("abc"), response(b"x")), Outcome.MISSING_STATUS),
        ((request_headers(), request(), response(b"x")), Outcome.MISSING_STATUS),
        ((request_headers(), request(), response_headers(), response(b"")), Outcome.EMPTY_RESPONSE),
        ((request_headers(path="/v1/models"), request(), *TURN[2:]), Outcome.NON_TURN_REQUEST),
        ((request_headers(method="GET"), request(), *TURN[2:]), Outcome.NON_TURN_REQUEST),
    ],
)
def test_every_other_ending_has_its_outcome(events: tuple[Event, ...], outcome: Outcome) -> None:
    assert ending(*events) is outcome


def test_a_websocket_upgrade_is_excluded_under_its_own_reason() -> None:
    commands = play(
        request_headers(("upgrade", "websocket"), path="/v1/realtime", method="GET"),
        response_headers("101"),
        Body(Side.RESPONSE, b"frame", end_of_stream=False, observe=True),
        Body(Side.REQUEST, b"frame", end_of_stream=False, observe=True),
        StreamEnd.EOF,
    )
    assert concluded(commands).outcome is Outcome.WEBSOCKET


def test_a_websocket_over_http2_is_a_websocket_too() -> None:
    commands = play(
        request_headers((":protocol", "websocket"), method="CONNECT"), response_headers("200"), StreamEnd.EOF
    )
    assert concluded(commands).outcome is Outcome.WEBSOCKET


def test_a_request_over_its_budget_is_counted_and_every_chunk_still_answered() -> None:
    policy = Policy(request_budget_bytes=10)
    events = (request_headers(observe=False), request(observe=False), *TURN[2:])
    assert ending(*events, policy=policy) is Outcome.REQUEST_OVER_BUDGET
    assert AnswerBody(Side.REQUEST) in play(*events, policy=policy)


def test_a_tenant_without_capture_is_excluded_by_policy() -> None:
    assert ending(*TURN, policy=Policy(capture=False)) is Outcome.POLICY


def test_errors_become_turns_where_the_policy_keeps_them() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'
    record = ending(
        request_headers(), request(), response_headers("529", content_type="application/json"), response(body),
        policy=Policy(errors=True),
    )  # fmt: skip
    meta = payload(record)["meta"]
    assert isinstance(meta, dict)
    assert meta["canonical"]["provider_error"] == {
        "status": 529, "type": "overloaded_error", "message": "busy", "where": "http",
    }  # fmt: skip


def test_headers_that_come_again_do_not_begin_anew() -> None:
    again = (*TURN[:3], response(SSE[:300], end=False), response_headers(), response(SSE[300:]))
    assert payload(ending(*again)) == payload(ending(*TURN))


def test_the_table_leaves_no_phase_without_a_way_to_close() -> None:
    for phase in Phase:
        if phase is not Phase.CLOSED:
            assert TRANSITIONS[phase, Input.STREAM_END] is Phase.CLOSED
    assert all(phase is not Phase.CLOSED for phase, _ in TRANSITIONS)


# -- ambiguous paths ------------------------------------------------------------

CHAT = b'{"object": "chat.completion", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'
ASKED = b'{"messages": [{"role": "user", "content": "hi"}]}'


@pytest.mark.parametrize("early", [False, True], ids=["in order", "answered before the request ended"])
@pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
def test_a_shared_path_is_settled_by_its_request_whenever_that_can_be_read(
    *, early: bool, coded: bool
) -> None:
    coding = (("content-encoding", "gzip"),) if coded else ()
    head = request_headers(*coding, path="/serving-endpoints/m/invocations")
    asked = request(gzip.compress(ASKED) if coded else ASKED)
    answered = response_headers(content_type="application/json")
    order = (head, answered, asked) if early else (head, asked, answered)
    made = payload(ending(*order, response(CHAT)))
    assert isinstance(made["meta"], dict)
    assert (made["meta"]["dialect"], made["meta"]["canonical"]["text"]) == ("openai_chat", "hi")


def test_a_shared_path_without_a_turn_in_its_request_is_excluded() -> None:
    head = request_headers(path="/serving-endpoints/m/invocations")
    record = ending(head, request(b'{"inputs": [1]}'), response_headers(), response(b"{}"))
    assert record is Outcome.NON_TURN_REQUEST


def test_a_compressed_error_is_readable() -> None:
    body = gzip.compress(b'{"error": {"type": "overloaded_error", "message": "busy"}}')
    record = ending(
        request_headers(), request(), response_headers("529", ("content-encoding", "gzip")), response(body),
        policy=Policy(errors=True),
    )  # fmt: skip
    meta = payload(record)["meta"]
    assert isinstance(meta, dict)
    assert meta["canonical"]["provider_error"]["message"] == "busy"


def test_a_header_that_is_no_utf8_costs_no_turn() -> None:
    record = ending(request_headers(("x-request-id", "caf\udce9"), ("x-tapes-cwd", "\udcff")), *TURN[1:])
    meta = payload(record)["meta"]
    assert isinstance(meta, dict)
    assert meta["client_request_id"] == "caf\ufffd"


def test_an_answer_before_any_request_byte_is_kept_and_not_posted_with_null() -> None:
    record = ending(request_headers(), response_headers(), response())
    assert isinstance(record, Record)
    assert record.quarantine is not None
    assert record.quarantine.outcome is Outcome.REQUEST_DECODE
