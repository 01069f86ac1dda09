"""What delivery knows of each ingest endpoint, and which one a turn goes to.

An endpoint's *status* is derived, never stored:

    gone       no answer of any kind for ``gone_after_s``
    draining   its heartbeat says that it is about to stop
    not_ready  its heartbeat says so, it is held, or its breaker is open
    working    requests are in flight
    idle       it has accepted turns before, and has none now
    connected  none of these: it has not been asked for anything yet

A *lane* is one tenant at one endpoint, with a breaker of its own: what concerns a tenant
there (403, 429, turns that hang) never holds up the others. Pure: monotonic seconds and
randomness arrive as arguments.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum, unique

from ingest_client.delivery.backoff import Backoff
from ingest_client.delivery.breaker import Breaker, BreakerState
from ingest_client.delivery.classify import SUSPICIOUS, Fate, Scope, Verdict
from ingest_client.delivery.learned import Learned
from ingest_client.delivery.settings import DeliverySettings


@unique
class EndpointStatus(StrEnum):
    """How an endpoint is doing."""

    CONNECTED = "connected"
    WORKING = "working"
    IDLE = "idle"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    GONE = "gone"


@unique
class Readiness(StrEnum):
    """What the last heartbeat that was answered said."""

    READY = "ready"
    NOT_READY = "not_ready"
    DRAINING = "draining"


@dataclass(slots=True)
class Lane:
    """One tenant at one endpoint."""

    breaker: Breaker
    in_flight: int = 0
    held: bool = False

    @property
    def forgettable(self) -> bool:
        """Whether it holds nothing that a new lane would not."""
        return not self.in_flight and self.breaker.state is BreakerState.CLOSED and not self.breaker.blamed


@dataclass(slots=True)
class Load:
    """What is under way at an endpoint now."""

    requests: int = 0
    turns: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Endpoint:
    """One ingest service, as delivery sees it."""

    url: str
    settings: DeliverySettings
    born_s: float
    breaker: Breaker = field(init=False)
    learned: Learned = field(init=False)
    _byte_share: int = field(init=False)
    load: Load = field(default_factory=Load)
    lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    readiness: Readiness = Readiness.READY
    silent: bool = False
    """The last heartbeat was not answered."""
    answered_s: float = field(init=False)
    """When it last answered anything, also an error."""
    chosen_s: float = 0.0
    accepted: int = 0
    failed: int = 0
    hold: Verdict | None = None
    """Why somebody has to look at it; None while it works."""
    last_error: str = ""
    last_error_at_ns: int = 0

    def __post_init__(self) -> None:
        """A new endpoint is trusted until its first silence."""
        backoff = Backoff(self.settings.breaker_base_s, self.settings.breaker_cap_s)
        self.breaker = Breaker(self.settings.breaker_threshold, backoff)
        self.learned = Learned(self.settings)
        # One share more than there are endpoints: those that hang leave memory to the one that does not.
        self._byte_share = self.settings.in_flight_bytes // (len(self.settings.endpoints) + 1)
        self.answered_s = self.born_s

    def status(self, now_s: float) -> EndpointStatus:
        """The status, by the list above."""
        if self.is_gone(now_s):
            return EndpointStatus.GONE
        if self.readiness is Readiness.DRAINING:
            return EndpointStatus.DRAINING
        if self.readiness is Readiness.NOT_READY or self.breaker.probing:
            return EndpointStatus.NOT_READY
        if self.load.requests:
            return EndpointStatus.WORKING
        return EndpointStatus.IDLE if self.accepted else EndpointStatus.CONNECTED

    def is_gone(self, now_s: float) -> bool:
        """Whether it has been silent for too long."""
        return now_s - self.answered_s >= self.settings.gone_after_s

    def heard(self, now_s: float) -> None:
        """It answered something: it is alive."""
        self.answered_s = now_s

    def open_for_any(self, now_s: float) -> bool:
        """Whether any request may begin here now."""
        return (
            self.load.requests < self.settings.requests_per_endpoint
            and self.load.bytes < self._byte_share
            and self.readiness is Readiness.READY
            and self.breaker.allows(now_s)
            and not self.is_gone(now_s)
        )

    def open_for(self, tenant: str, now_s: float) -> bool:
        """Whether a request of this tenant may begin here, as far as the tenant is concerned.

        A tenant may take half of the free slots, and the last one only if it has none: the
        one that came first cannot take them all.
        """
        lane = self.lanes.get(tenant)
        if lane is None:
            return True
        free = self.settings.requests_per_endpoint - self.load.requests
        return lane.in_flight < max(1, free) and lane.breaker.allows(now_s)

    def paused_for(self, tenant: str, now_s: float) -> bool:
        """Whether this tenant's turns have to wait here however idle the endpoint is."""
        lane = self.lanes.get(tenant)
        return lane is not None and lane.breaker.state is BreakerState.OPEN and now_s < lane.breaker.until_s

    def probing(self, tenant: str) -> bool:
        """Whether this tenant's next request decides about the road, and should risk one turn only."""
        lane = self.lanes.get(tenant)
        return self.breaker.probing or (lane is not None and lane.breaker.probing)

    def begin(self, tenant: str, turns: int, size: int, now_s: float) -> None:
        """A request of this tenant begins."""
        self.breaker.begin(now_s)
        lane = self._lane(tenant)
        lane.breaker.begin(now_s)
        lane.in_flight += 1
        self.load.requests += 1
        self.load.turns += turns
        self.load.bytes += size
        self.chosen_s = now_s

    def finish(self, tenant: str, turns: int, size: int) -> None:
        """It ended, however."""
        self.load.requests -= 1
        self.load.turns -= turns
        self.load.bytes -= size
        lane = self._lane(tenant)
        lane.in_flight -= 1
        if lane.forgettable:
            del self.lanes[tenant]

    def revive(self, now_s: float) -> None:
        """It came back: the request that decides whether it works may begin now, unless it asked for time."""
        if self.hold is None:
            self.breaker.hasten(now_s)
            for lane in self.lanes.values():
                if not lane.held:
                    lane.breaker.hasten(now_s)

    def judge(
        self, tenant: str, turn: int, verdict: Verdict, now_s: float, random: Callable[[], float]
    ) -> bool:
        """Learn from how a request ended, whose first turn was ``turn``. Says whether the endpoint or
        the lane was newly held.
        """
        if verdict.status is not None:
            self.heard(now_s)
        lane = self._lane(tenant)
        if verdict.fate in (Fate.ACCEPTED, Fate.REFUSED) or verdict.scope is Scope.TURN:
            self.hold = None
            lane.held = False
            self.breaker.succeed()
            lane.breaker.succeed()
            return False
        self.failed += 1
        if verdict.scope is Scope.TENANT:
            self.hold = None  # the endpoint itself is well
            self.breaker.succeed()
            return self._judge_lane(lane, verdict, now_s, random)
        blamed = turn if verdict.reason in SUSPICIOUS else None
        lane.breaker.fail(now_s, random, blamed)
        return self._judge_endpoint(blamed, verdict, now_s, random)

    def abandon(self, tenant: str, now_s: float) -> None:
        """A request was cancelled: it says nothing about anybody."""
        self.breaker.abandon(now_s)
        self._lane(tenant).breaker.abandon(now_s)

    def _judge_lane(self, lane: Lane, verdict: Verdict, now_s: float, random: Callable[[], float]) -> bool:
        newly = verdict.fate is Fate.HOLD and not lane.held
        lane.held = verdict.fate is Fate.HOLD
        lane.breaker.trip(now_s, random, self._pause_s(verdict, lane.breaker))
        return newly

    def _judge_endpoint(
        self, blamed: int | None, verdict: Verdict, now_s: float, random: Callable[[], float]
    ) -> bool:
        if verdict.fate is Fate.HOLD:
            newly = self.hold is None or self.hold.reason is not verdict.reason
            self.hold = verdict
            self.breaker.trip(now_s, random, self._pause_s(verdict, self.breaker))
            return newly
        if verdict.retry_after_s is not None:
            self.breaker.trip(now_s, random, verdict.retry_after_s)
        else:
            self.breaker.fail(now_s, random, blamed)
        return False

    def _pause_s(self, verdict: Verdict, breaker: Breaker) -> float:
        asked_s = verdict.retry_after_s or 0.0
        if verdict.fate is not Fate.HOLD:
            return asked_s
        hold = Backoff(self.settings.hold_base_s, self.settings.hold_cap_s)
        return max(asked_s, hold.bound_s(breaker.trips + 1))

    def _lane(self, tenant: str) -> Lane:
        lane = self.lanes.get(tenant)
        if lane is None:
            backoff = Backoff(self.settings.breaker_base_s, self.settings.breaker_cap_s)
            lane = self.lanes[tenant] = Lane(Breaker(self.settings.breaker_threshold, backoff))
        return lane


def least_loaded(endpoints: Iterable[Endpoint], tenant: str, now_s: float) -> Endpoint | None:
    """Of those open for the tenant the one with the fewest requests in flight, longest unused first."""
    able = [e for e in endpoints if e.open_for_any(now_s) and e.open_for(tenant, now_s)]
    return min(able, key=lambda e: (e.load.requests, e.load.bytes, e.chosen_s), default=None)
