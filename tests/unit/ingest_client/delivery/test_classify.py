"""Every status has one fate; only a complete 200 or 202 is an acceptance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.classify import (
    HOLDING_FAILURES,
    Fate,
    Reason,
    Scope,
    classify_failure,
    classify_status,
)

TABLE = [
    (200, Fate.ACCEPTED, Scope.TURN),
    (202, Fate.ACCEPTED, Scope.TURN),
    (400, Fate.REFUSED, Scope.TURN),
    (413, Fate.REFUSED, Scope.TURN),
    (422, Fate.REFUSED, Scope.TURN),
    (301, Fate.HOLD, Scope.ENDPOINT),
    (302, Fate.HOLD, Scope.ENDPOINT),
    (308, Fate.HOLD, Scope.ENDPOINT),
    (401, Fate.HOLD, Scope.ENDPOINT),
    (403, Fate.HOLD, Scope.TENANT),
    (404, Fate.HOLD, Scope.ENDPOINT),
    (405, Fate.HOLD, Scope.ENDPOINT),
    (408, Fate.RETRY, Scope.ENDPOINT),
    (425, Fate.RETRY, Scope.ENDPOINT),
    (429, Fate.RETRY, Scope.TENANT),
    (500, Fate.RETRY, Scope.ENDPOINT),
    (502, Fate.RETRY, Scope.ENDPOINT),
    (503, Fate.RETRY, Scope.ENDPOINT),
    (599, Fate.RETRY, Scope.ENDPOINT),
    # Nobody foresaw these: no turn is lost over them, and none is thought delivered.
    (201, Fate.HOLD, Scope.ENDPOINT),
    (204, Fate.HOLD, Scope.ENDPOINT),
    (409, Fate.HOLD, Scope.ENDPOINT),
    (418, Fate.HOLD, Scope.ENDPOINT),
]


@pytest.mark.parametrize(("status", "fate", "scope"), TABLE)
def test_a_status_means_what_the_contract_says(status: int, fate: Fate, scope: Scope) -> None:
    verdict = classify_status(status)
    assert (verdict.fate, verdict.scope, verdict.status) == (fate, scope, status)


@given(st.integers(200, 599))
def test_only_200_and_202_accept_and_only_three_refuse(status: int) -> None:
    fate = classify_status(status).fate
    assert (fate is Fate.ACCEPTED) == (status in {200, 202})
    assert (fate is Fate.REFUSED) == (status in {400, 413, 422})


@given(
    st.integers(200, 599),
    st.sampled_from([Reason.TIMED_OUT, Reason.CONNECTION_LOST, Reason.ANSWER_TOO_LARGE]),
)
def test_an_incomplete_answer_is_never_an_acceptance(status: int, shortfall: Reason) -> None:
    verdict = classify_status(status, shortfall=shortfall)
    assert verdict.fate is not Fate.ACCEPTED
    if status in {200, 202}:
        assert (verdict.fate, verdict.reason) == (Fate.RETRY, shortfall)


@given(st.sampled_from(Reason), st.text(max_size=20))
def test_without_a_status_a_turn_is_kept(reason: Reason, text: str) -> None:
    verdict = classify_failure(reason, text)
    assert verdict.fate is (Fate.HOLD if reason in HOLDING_FAILURES else Fate.RETRY)
    assert (verdict.status, verdict.text) == (None, text)
