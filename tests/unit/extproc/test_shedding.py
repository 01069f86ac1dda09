"""Exchanges that meet the budget: prefixes are kept, what cannot fit is lost, answers stay right."""

import json
from typing import Any

import pytest

from capture.outcomes import Outcome
from capture.turn import Turn
from extproc.assemble import TurnIdentity, assemble
from extproc.budget import BASE_BYTES, Budget, BudgetLimits, Scope, ShedPart
from extproc.events import AnswerBody, AnswerHeaders, Event, Finish, Side
from extproc.exchange import Command, Concluded, Exchange, ExchangeRules
from extproc.policy import OnePolicy, Policy
from ingest_client.sink import Record
from tests.unit.extproc.playbook import (
    LATER,
    REQUEST,
    START,
    TURN,
    concluded,
    request,
    request_headers,
    response,
    response_headers,
)

KIB = 1024
OPENING = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","role":"assistant",'
    b'"model":"claude-x","usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)


def delta(text: str) -> bytes:
    body = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + json.dumps(body).encode() + b"\n\n"


def small(max_bytes: int, max_exchanges: int = 100) -> Budget:
    return Budget(BudgetLimits(max_bytes=max_bytes, max_exchanges=max_exchanges, tenant_share=1.0))


def play(budget: Budget, *events: Event, policy: Policy | None = None) -> list[Command]:
    exchange = Exchange(ExchangeRules(OnePolicy(policy or Policy()), budget=budget), START)
    return [command for event in events for command in exchange.receive(event, LATER)]


def ending(end: Concluded) -> Record | Outcome:
    return end.outcome or assemble(end.captured, TurnIdentity("turn-1"))


def payload(made: Record | Outcome) -> dict[str, Any]:
    assert isinstance(made, Record)
    assert made.quarantine is None
    document: dict[str, Any] = json.loads(made.body)
    return document


def long_answer(chunks: int) -> list[Event]:
    """Each chunk is 16 KiB of new text: nothing of it can be reduced away."""
    bodies = [OPENING, *(delta(f"{number:05d}" + "x" * 16 * KIB) for number in range(chunks))]
    return [response(body, end=False) for body in bodies]


def test_over_the_budget_the_beginning_of_a_stream_is_kept_as_a_truncated_turn() -> None:
    budget = small(400 * KIB)
    end = concluded(play(budget, *TURN[:3], *long_answer(100), response(delta("the end"))))
    made = payload(ending(end))
    text = made["meta"]["canonical"]["text"]
    assert made["meta"]["truncated"] is True
    whole = "".join(f"{number:05d}" + "x" * 16 * KIB for number in range(100)) + "the end"
    assert whole.startswith(text), "a prefix, without a hole"
    assert 100 * KIB < len(text) < 400 * KIB
    assert made["meta"]["response_bytes"] > 100 * 16 * KIB, "it was read to its end all the same"
    assert budget.shed == {(ShedPart.ANSWER, Scope.PROCESS): 1}
    assert budget.used.bytes <= 400 * KIB


def test_an_answer_is_kept_as_far_as_an_ingest_body_could_take_it() -> None:
    """By what it reduces to: pings and framing do not count."""
    policy = Policy(answer_budget_bytes=200 * KIB)
    pings = [response(b"event: ping\ndata: {}\n\n" * 1000, end=False) for _ in range(100)]
    events = (*TURN[:3], *pings, *long_answer(100), response(delta("the end")))
    made = payload(ending(concluded(play(small(1 << 30), *events, policy=policy))))
    text = made["meta"]["canonical"]["text"]
    assert made["meta"]["truncated"] is True
    assert 100 * KIB < len(text) <= 270 * KIB
    short = (*TURN[:3], *pings, *long_answer(2), response(delta("the end")))
    made = payload(ending(concluded(play(small(1 << 30), *short, policy=policy))))
    assert "truncated" not in made["meta"]


def test_what_waits_to_be_read_counts_as_kept() -> None:
    """Chunks that come faster than they are read: of each half a megabyte is read at once."""
    policy = Policy(answer_budget_bytes=3 << 20)
    chunk = response(delta("x" * 1000) * 2000, end=False)
    end = concluded(
        play(
            small(1 << 30),
            *TURN[:3],
            response(OPENING, end=False),
            *[chunk] * 8,
            response(b""),
            policy=policy,
        )
    )
    assert len(payload(ending(end))["meta"]["canonical"]["text"]) < 6 << 20


def test_a_document_that_no_ingest_body_could_take_is_lost() -> None:
    body = json.dumps({"content": [{"type": "text", "text": "x" * 100 * KIB}]}).encode()
    pieces = [response(body[at : at + 8 * KIB], end=False) for at in range(0, len(body), 8 * KIB)]
    events = (*TURN[:2], response_headers("200", content_type="application/json"), *pieces, response(b""))
    end = concluded(play(small(1 << 30), *events, policy=Policy(answer_budget_bytes=64 * KIB)))
    assert end.outcome is Outcome.OVER_BUDGET


def test_a_stream_that_finds_no_room_at_all_is_a_truncated_turn_with_its_request() -> None:
    budget = small(64 * KIB)
    account = budget.open("other")
    assert account.draw(64 * KIB - 2 * BASE_BYTES - len(REQUEST), ShedPart.REQUEST)
    made = payload(ending(concluded(play(budget, *TURN))))
    assert (made["meta"]["truncated"], made["meta"]["partial"]) == (True, True)
    assert made["request"] == json.loads(REQUEST)


def test_a_request_that_does_not_fit_is_lost_and_nothing_of_it_stays() -> None:
    budget = small(64 * KIB)
    big = b'{"messages": ["' + b"x" * 100 * KIB + b'"]}'
    exchange = Exchange(ExchangeRules(OnePolicy(), budget=budget), START)
    commands = [c for e in (request_headers(), request(big)) for c in exchange.receive(e, LATER)]
    assert budget.used.bytes == BASE_BYTES
    commands += [c for event in TURN[2:] for c in exchange.receive(event, LATER)]
    end = concluded(commands)
    assert end.outcome is Outcome.OVER_BUDGET
    assert end.captured.reducer is None, "its answer is not even read"
    assert budget.shed == {(ShedPart.REQUEST, Scope.PROCESS): 1}


def test_a_document_that_does_not_fit_is_lost() -> None:
    """Half a JSON text is no answer."""
    budget = small(64 * KIB)
    body = json.dumps({"content": [{"type": "text", "text": "x" * 100 * KIB}]}).encode()
    pieces = [response(body[at : at + 8 * KIB], end=False) for at in range(0, len(body), 8 * KIB)]
    head = response_headers("200", content_type="application/json")
    end = concluded(play(budget, *TURN[:2], head, *pieces, response(b"")))
    assert end.outcome is Outcome.OVER_BUDGET
    assert end.captured.account.held_bytes == BASE_BYTES
    assert budget.shed == {(ShedPart.DOCUMENT, Scope.PROCESS): 1}


def test_an_exchange_too_many_is_lost_from_its_beginning_and_keeps_nothing() -> None:
    budget = small(1 << 30, max_exchanges=1)
    kept = budget.open("default")
    end = concluded(play(budget, *TURN))
    assert end.outcome is Outcome.OVER_BUDGET
    assert (end.captured.request.kept_bytes, end.captured.account.held_bytes) == (0, 0)
    kept.close()
    assert ending(concluded(play(budget, *TURN))) is not Outcome.OVER_BUDGET


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((request_headers(path="/v1/models"), *TURN[1:]), Outcome.NON_TURN_REQUEST),
        ((*TURN[:2], response_headers("500"), response(b"no")), Outcome.UPSTREAM_STATUS),
    ],
)
def test_what_is_no_turn_is_excluded_and_not_lost(events: tuple[Event, ...], outcome: Outcome) -> None:
    end = concluded(play(small(1 << 30, max_exchanges=0), *events))
    assert ending(end) is outcome


def test_answers_stay_right_where_envoy_waits_for_them() -> None:
    """Capture is shed, traffic is not: every message is answered, whatever was lost."""
    big = b'{"messages": ["' + b"x" * 100 * KIB + b'"]}'
    commands = play(
        small(64 * KIB),
        request_headers(observe=False),
        request(big, observe=False),
        response_headers(observe=False),
        response(end=False, observe=False),
        response(observe=False),
    )
    assert [command for command in commands if not isinstance(command, Concluded)] == [
        AnswerHeaders(Side.REQUEST),
        AnswerBody(Side.REQUEST),
        AnswerHeaders(Side.RESPONSE),
        AnswerBody(Side.RESPONSE),
        AnswerBody(Side.RESPONSE),
        Finish(),
    ]


def test_the_end_of_an_exchange_gives_everything_back() -> None:
    budget = small(1 << 20)
    end = concluded(play(budget, *TURN))
    assert budget.used.bytes > 0
    end.captured.release()
    assert (budget.used.bytes, budget.used.exchanges) == (0, 0)


def test_a_small_request_gives_back_what_it_drew_ahead() -> None:
    budget = small(1 << 20)
    exchange = Exchange(ExchangeRules(OnePolicy(), budget=budget), START)
    for event in TURN[:2]:
        exchange.receive(event, LATER)
    assert budget.used.bytes == BASE_BYTES + len(REQUEST)


def test_an_answer_is_drawn_ahead_by_what_it_reduces_to() -> None:
    """Token frames of which a fraction is kept: a 100 KB stream draws much less than that."""
    budget = small(1 << 20)
    frames = [response(delta(" word") + b" " * 60, end=False) for _ in range(600)]
    exchange = Exchange(ExchangeRules(OnePolicy(), budget=budget), START)
    for event in (*TURN[:3], response(OPENING, end=False), *frames):
        exchange.receive(event, LATER)
    assert exchange.captured.response_bytes > 100_000
    assert budget.used.bytes < 40_000
    assert exchange.captured.reducer is not None
    assert isinstance(exchange.captured.reducer.snapshot(), Turn)
