"""What is known of an endpoint: its status, whom it concerns, who is chosen."""

import itertools

import pytest

from ingest_client.delivery.classify import Fate, Reason, Scope, Verdict, classify_failure, classify_status
from ingest_client.delivery.endpoints import Endpoint, EndpointStatus, Readiness, least_loaded
from tests.unit.ingest_client.delivery.running import quick

SETTINGS = quick("http://a", "http://b", breaker_threshold=3, requests_per_endpoint=8)
ACCEPTED = classify_status(202)
BROKEN = classify_status(500)
_TURNS = itertools.count()
LOST = classify_failure(Reason.CONNECTION_LOST, "")


def half() -> float:
    return 0.5


def endpoint(url: str = "http://a") -> Endpoint:
    return Endpoint(url, SETTINGS, 0.0)


def ask(found: Endpoint, verdict: Verdict, tenant: str = "t", now_s: float = 0.0) -> bool:
    """One request from beginning to end."""
    found.begin(tenant, 1, 100, now_s)
    newly_held = found.judge(tenant, next(_TURNS), verdict, now_s, half)
    found.finish(tenant, 1, 100)
    return newly_held


def test_the_status_follows_its_life() -> None:
    found = endpoint()
    seen = [found.status(0.0)]
    found.begin("t", 1, 10, 0.0)
    seen.append(found.status(0.0))
    found.judge("t", 1, ACCEPTED, 0.0, half)
    found.accepted += 1
    found.finish("t", 1, 10)
    seen.append(found.status(0.0))
    for _ in range(3):
        ask(found, BROKEN)
    seen.append(found.status(0.0))
    ask(found, ACCEPTED, now_s=10.0)
    seen.append(found.status(10.0))
    found.readiness = Readiness.DRAINING
    seen.append(found.status(10.0))
    found.readiness = Readiness.NOT_READY
    seen.append(found.status(10.0))
    seen.append(found.status(40.0))
    assert seen == [
        EndpointStatus.CONNECTED,
        EndpointStatus.WORKING,
        EndpointStatus.IDLE,
        EndpointStatus.NOT_READY,
        EndpointStatus.IDLE,
        EndpointStatus.DRAINING,
        EndpointStatus.NOT_READY,
        EndpointStatus.GONE,
    ]


def test_silence_for_thirty_seconds_is_gone_and_any_answer_brings_it_back() -> None:
    found = endpoint()
    assert not found.is_gone(29.9)
    assert found.is_gone(30.0)
    assert not found.open_for_any(30.0)
    found.heard(31.0)
    assert found.open_for_any(31.0)


@pytest.mark.parametrize("readiness", [Readiness.DRAINING, Readiness.NOT_READY])
def test_who_asks_to_be_left_alone_gets_no_turns(readiness: Readiness) -> None:
    found = endpoint()
    found.readiness = readiness
    assert not found.open_for_any(0.0)


@pytest.mark.parametrize("status", [401, 404, 405, 302, 418, 201])
def test_what_concerns_the_endpoint_holds_it_at_once_and_is_told_once(status: int) -> None:
    found = endpoint()
    assert ask(found, classify_status(status))
    assert not found.open_for_any(0.0)
    assert found.hold is not None
    assert not ask(found, classify_status(status), now_s=100.0)
    ask(found, ACCEPTED, now_s=1000.0)
    assert found.hold is None
    assert ask(found, classify_status(status), now_s=2000.0)


@pytest.mark.parametrize("status", [403, 429])
def test_what_concerns_a_tenant_pauses_that_tenant_alone(status: int) -> None:
    found = endpoint()
    ask(found, classify_status(status, retry_after_s=5.0), tenant="a")
    assert not found.open_for("a", 0.1)
    assert found.paused_for("a", 4.9)
    assert found.open_for("a", 5.0)
    assert found.open_for("b", 0.1)
    assert found.open_for_any(0.1)


def test_a_403_is_told_once_and_a_429_never() -> None:
    found = endpoint()
    assert ask(found, classify_status(403), tenant="a")
    assert not ask(found, classify_status(403), tenant="a", now_s=50.0)
    assert not ask(found, classify_status(429), tenant="b")


def test_retry_after_on_503_pauses_the_endpoint_that_long() -> None:
    found = endpoint()
    ask(found, classify_status(503, retry_after_s=9.0))
    found.revive(1.0)
    assert not found.open_for_any(8.9)
    assert found.open_for_any(9.0)


def test_turns_of_one_tenant_that_fail_pause_that_tenant_while_others_succeed() -> None:
    found = endpoint()
    for _ in range(3):
        ask(found, LOST, tenant="bad")
        ask(found, ACCEPTED, tenant="good")
    assert found.open_for_any(0.0)
    assert found.open_for("good", 0.0)
    assert not found.open_for("bad", 0.0)


def test_a_refused_turn_is_no_fault_of_the_endpoint() -> None:
    found = endpoint()
    for _ in range(50):
        ask(found, classify_status(422))
    assert found.open_for_any(0.0)


def test_a_tenant_takes_half_of_what_is_free_so_that_the_last_slots_are_hard_to_take() -> None:
    found = endpoint()
    taken: list[int] = []
    for tenant in ("a", "b", "c", "d"):
        count = 0
        while found.open_for_any(0.0) and found.open_for(tenant, 0.0):
            found.begin(tenant, 1, 1, 0.0)
            count += 1
        taken.append(count)
    assert taken == [4, 2, 1, 1]


def test_bytes_in_flight_are_shared_between_endpoints() -> None:
    found = endpoint()
    found.begin("t", 1, SETTINGS.in_flight_bytes, 0.0)
    assert not found.open_for_any(0.0)


def test_lanes_without_anything_to_remember_are_forgotten() -> None:
    found = endpoint()
    for number in range(100):
        ask(found, ACCEPTED, tenant=f"t{number}")
    assert found.lanes == {}


def test_a_cancelled_request_says_nothing() -> None:
    found = endpoint()
    for _ in range(3):
        ask(found, BROKEN)
    found.begin("t", 1, 1, 10.0)
    assert not found.open_for_any(10.0)
    found.abandon("t", 10.0)
    found.finish("t", 1, 1)
    assert found.open_for_any(10.0)


def test_the_least_loaded_is_chosen_then_the_longest_unused() -> None:
    first, second = endpoint("http://a"), endpoint("http://b")
    chosen: list[str] = []
    for number in range(6):
        found = least_loaded([first, second], "t", 0.0)
        assert found is not None
        found.begin("t", 1, 100, float(number))
        chosen.append(found.url)
    assert chosen.count("http://a") == chosen.count("http://b") == 3
    for _ in range(3):
        first.finish("t", 1, 100)
    assert least_loaded([first, second], "t", 6.0) is first


def test_nobody_is_chosen_where_nobody_is_open() -> None:
    found = endpoint()
    ask(found, Verdict(Fate.HOLD, Reason.NOT_FOUND, Scope.ENDPOINT, 404))
    assert least_loaded([found], "t", 0.0) is None
