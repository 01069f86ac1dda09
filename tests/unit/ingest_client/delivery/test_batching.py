"""Batches: joined byte for byte, decided turn by turn, undecided ones sent again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.batching import UNDECIDED, join, verdicts
from ingest_client.delivery.classify import Fate, Reason

IDS = ["t0", "t1", "t2"]


def fates(status: int, answer: object, shortfall: Reason | None = None) -> list[Fate | Reason]:
    """The fate of each turn; UNDECIDED shows as its reason."""
    found = verdicts(status, json.dumps(answer).encode(), IDS, shortfall)
    return [verdict.reason if verdict is UNDECIDED else verdict.fate for verdict in found]


def result(index: int, status: object, **more: object) -> dict[str, object]:
    return {"index": index, "id": IDS[index], "status": status, **more}


A, R, T, H, U = Fate.ACCEPTED, Fate.REFUSED, Fate.RETRY, Fate.HOLD, Reason.BATCH_UNDECIDED


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1))
def test_the_body_is_the_turns_side_by_side(values: list[dict[str, object]]) -> None:
    bodies = [json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") for value in values]
    body = join(bodies)
    assert json.loads(body) == {"turns": [json.loads(one) for one in bodies]}
    assert all(one in body for one in bodies)


def test_each_result_decides_its_own_turn() -> None:
    answer = {"accepted": 1, "results": [result(0, 202), result(1, 422, error="no"), result(2, 503)]}
    assert fates(202, answer) == [A, R, T]
    assert verdicts(202, json.dumps(answer).encode(), IDS, None)[1].text == "no"


def test_results_count_in_any_order_and_by_position_where_the_index_is_missing() -> None:
    assert fates(202, {"results": [result(2, 202), result(0, 422), result(1, 202)]}) == [R, A, A]
    assert fates(202, {"results": [{"status": 202}, {"status": 422}, {"status": 202}]}) == [A, R, A]


def test_words_for_a_status_are_understood() -> None:
    answer = {"results": [result(0, "accepted"), result(1, "Duplicate"), result(2, "rejected")]}
    assert fates(202, answer) == [A, A, U]


def test_a_turn_without_a_usable_result_is_undecided() -> None:
    assert fates(202, {"results": [result(0, 202)]}) == [A, U, U]
    assert fates(202, {"results": [result(0, 202), result(1, None), result(2, 99)]}) == [A, U, U]


def test_a_result_that_names_another_turn_decides_nothing() -> None:
    assert fates(202, {"results": [{"index": 0, "id": "t1", "status": 202}]}) == [U, U, U]
    assert fates(202, {"results": [{"index": 7, "status": 202}, {"index": -1, "status": 202}]}) == [U, U, U]


def test_without_results_everything_was_accepted_unless_something_was_rejected() -> None:
    assert fates(202, {"status": "accepted"}) == [A, A, A]
    assert fates(200, {"accepted": 3, "rejected": 0, "errors": []}) == [A, A, A]
    assert fates(202, {"accepted": 2, "rejected": 1}) == [U, U, U]
    assert fates(202, {"accepted": 3, "errors": ["turn 1: no"]}) == [U, U, U]
    assert fates(422, {"error": "no"}) == [U, U, U]
    assert fates(400, {"error": "no"}) == [U, U, U]


def test_all_rejected_is_still_decided_turn_by_turn() -> None:
    assert fates(422, {"results": [result(n, 422) for n in range(3)]}) == [R, R, R]
    assert fates(503, {"results": [result(0, 422), result(1, 503), result(2, 422)]}) == [R, T, R]


def test_whole_answers_about_the_endpoint_concern_every_turn() -> None:
    assert fates(503, {}) == [T, T, T]
    assert fates(401, {}) == [H, H, H]


@pytest.mark.parametrize("body", [b"", b"ok", b"\xff", b"{", b"<html>"])
def test_a_202_that_says_nothing_accepts_as_the_single_route_does(body: bytes) -> None:
    assert [verdict.fate for verdict in verdicts(202, body, IDS, None)] == [A, A, A]


@pytest.mark.parametrize("body", [b"[]", b'{"results":7}', b'{"results":[1]}', b'{"rejected":"2"}', b"7"])
def test_a_202_that_says_something_strange_accepts_nothing(body: bytes) -> None:
    assert verdicts(202, body, IDS, None) == [UNDECIDED] * 3


def test_an_incomplete_answer_accepts_nothing_whatever_it_says() -> None:
    answer = {"results": [result(n, 202) for n in range(3)]}
    assert fates(202, answer, Reason.CONNECTION_LOST) == [T, T, T]
    assert fates(202, answer, Reason.ANSWER_TOO_LARGE) == [U, U, U]


@given(st.integers(200, 599), st.binary(max_size=200))
def test_any_answer_gives_one_verdict_per_turn(status: int, body: bytes) -> None:
    assert len(verdicts(status, body, IDS, None)) == len(IDS)
