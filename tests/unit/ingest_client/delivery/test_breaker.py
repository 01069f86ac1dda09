"""The circuit breaker: when it opens, for how long, and what closes it."""

from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest_client.delivery.backoff import Backoff
from ingest_client.delivery.breaker import Breaker, BreakerState


def breaker() -> Breaker:
    return Breaker(threshold=3, backoff=Backoff(1.0, 8.0))


def half() -> float:
    return 0.5


def opened(now_s: float = 0.0) -> Breaker:
    found = breaker()
    assert [found.fail(now_s, half, turn) for turn in range(3)] == [False, False, True]
    return found


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    found = breaker()
    for _ in range(10):
        found.fail(0.0, half, 1)
        found.fail(0.0, half, 2)
        found.succeed()
    assert found.state is BreakerState.CLOSED
    assert opened().state is BreakerState.OPEN


def test_one_turn_that_fails_again_and_again_closes_no_road() -> None:
    found = breaker()
    assert not any(found.fail(float(now_s), half, turn=7) for now_s in range(100))
    assert found.state is BreakerState.CLOSED


def test_failures_that_no_turn_can_be_blamed_for_count_each() -> None:
    found = breaker()
    assert [found.fail(0.0, half, None) for _ in range(3)] == [False, False, True]


def test_it_lets_one_request_through_when_its_time_has_come() -> None:
    found = opened()
    assert not found.allows(0.74)
    assert found.allows(0.75)
    found.begin(0.75)
    assert found.state is BreakerState.HALF_OPEN
    assert not found.allows(100.0)


def test_the_deciding_request_closes_it_or_opens_it_for_longer() -> None:
    found = opened()
    found.begin(1.0)
    assert found.fail(1.0, half, 1)
    assert (found.state, found.until_s) == (BreakerState.OPEN, 1.0 + 1.5)
    found.begin(2.5)
    found.succeed()
    assert (found.state, found.trips, found.blamed) == (BreakerState.CLOSED, 0, set())


def test_old_failures_arriving_while_it_is_open_change_nothing() -> None:
    found = opened()
    until_s, trips = found.until_s, found.trips
    for turn in range(20):
        assert not found.fail(0.1, half, turn)
    assert (found.until_s, found.trips) == (until_s, trips)


def test_what_was_asked_for_is_kept_whatever_the_backoff_and_the_heartbeat_say() -> None:
    found = breaker()
    found.trip(0.0, half, at_least_s=60.0)
    found.hasten(5.0)
    assert not found.allows(59.9)
    assert found.allows(60.0)


def test_a_sign_of_life_hastens_the_deciding_request() -> None:
    found = opened()
    found.hasten(0.1)
    assert found.allows(0.1)


def test_a_deciding_request_without_a_result_leaves_the_decision_to_the_next() -> None:
    found = opened()
    found.begin(1.0)
    found.abandon(1.5)
    assert found.allows(1.5)


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens: at most one request decides, and it never stays shut beyond cap and asked-for time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now_s = 0.0
        self.turns = 0
        self.deciding = False

    @rule()
    def wait(self) -> None:
        self.now_s += 0.7

    @precondition(lambda self: self.breaker.allows(self.now_s))
    @rule()
    def begin(self) -> None:
        assert not self.deciding
        self.breaker.begin(self.now_s)
        self.deciding = self.breaker.state is BreakerState.HALF_OPEN

    @rule()
    def succeed(self) -> None:
        self.breaker.succeed()
        self.deciding = False

    @rule()
    def fail(self) -> None:
        self.turns += 1
        self.breaker.fail(self.now_s, half, self.turns)
        self.deciding = False

    @precondition(lambda self: self.deciding)
    @rule()
    def abandon(self) -> None:
        self.breaker.abandon(self.now_s)
        self.deciding = False

    @invariant()
    def opens_again_in_time(self) -> None:
        assert self.deciding or self.breaker.allows(self.now_s + 8.0)


TestBreakerMachine = BreakerMachine.TestCase
