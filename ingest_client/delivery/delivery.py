"""The loop: claim what is due, choose whose turn it is and where it goes, settle what came of it.

    spool ──claim──► ready, a queue per tenant ──send──► endpoint ──verdict──► settlement ──► spool

Invariants:

- Everything claimed is *held* until it is settled or released. Held bytes and turns are
  bounded, and what is not claimed costs no memory here.
- Sending never waits for one endpoint or one tenant: whatever cannot be sent now is
  passed over, and what a paused tenant had claimed goes back to the spool.
- A turn leaves by exactly one of acknowledge, retry, dead letter and release. When the
  process dies first, the spool makes it pending again: at least once.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final as Constant

from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.backoff import Backoff
from ingest_client.delivery.classify import Fate, Reason, Scope, Verdict
from ingest_client.delivery.clock import Clock
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.courier import Courier, Delivered
from ingest_client.delivery.endpoints import Endpoint, EndpointStatus, Readiness, least_loaded
from ingest_client.delivery.fairness import FairQueues
from ingest_client.delivery.heartbeat import PING_PATH, read_pulse
from ingest_client.delivery.http import ExchangeFailed, HttpEndpoint
from ingest_client.delivery.settings import DeliverySettings
from ingest_client.delivery.settlement import Final, Settled, Settlement
from ingest_client.delivery.snapshot import DeliverySnapshot, endpoint_snapshot
from ingest_client.spool.api import Claimed, Queue

log: Constant = logging.getLogger(__name__)

_AT_ONCE: Constant = frozenset(
    {
        Reason.CODING_REFUSED,
        Reason.BATCH_UNSUPPORTED,
        Reason.BATCH_TOO_LARGE,
        Reason.BATCH_UNDECIDED,
        Reason.SHUTDOWN,
    }
)
"""Reasons that have nothing to do with the turn or the endpoint's health: no wait."""

_TENANT_SHARE: Constant = 8
"""A tenant that holds this part of all held bytes claims no more."""

_LOOK_AGAIN_S: Constant = 0.05
_EARLY_S: Constant = 0.002

_MAX_SUSPECTS: Constant = 65_536
"""Beyond so many the list is forgotten, and begun anew."""

_SUSPICIOUS: Constant = frozenset(
    {
        Reason.TIMED_OUT,
        Reason.CONNECTION_LOST,
        Reason.SERVER_ERROR,
        Reason.ANSWER_MALFORMED,
        Reason.ANSWER_TOO_LARGE,
    }
)
"""What one turn may do to all that travel with it."""

_SETTLE_SHARE: Constant = 0.1
"""Of the grace at a stop, for writing down what was decided."""


def _ignore(_: Final) -> None:
    """Nobody listens."""


class Delivery:
    """Delivers turns from a spool to ingest endpoints until closed."""

    def __init__(
        self,
        queue: Queue,
        settings: DeliverySettings,
        clock: Clock,
        random: Callable[[], float],
        on_final: Callable[[Final], None] = _ignore,
    ) -> None:
        """``random`` draws from [0, 1). ``on_final`` hears of every turn that is accepted or refused."""
        self.counters = DeliveryCounters()
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._random = random
        self._ready: FairQueues[Claimed] = FairQueues(settings.quantum_bytes)
        self._backoff = Backoff(settings.retry_base_s, settings.retry_cap_s)
        self._couriers = [self._courier(index) for index in range(len(settings.endpoints))]
        self._endpoints = [courier.endpoint for courier in self._couriers]
        self._settlement = Settlement(queue, self.counters, self._freed, on_final)
        self._held_turns = 0
        self._held_bytes = 0
        self._held_by_tenant: Counter[str] = Counter()
        self._suspects: Counter[int] = Counter()
        self._sends: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._room = asyncio.Event()
        self._claiming = True
        self._sending = True
        self._stopped = asyncio.Event()

    # What others call.

    async def run(self) -> None:
        """Deliver until :meth:`close`; cancelling it leaves the rest to the spool's next start."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                loops = [
                    group.create_task(self._feed()),
                    group.create_task(self._tick()),
                    group.create_task(self._settlement.run()),
                    *(group.create_task(self._heartbeats(courier)) for courier in self._couriers),
                ]
                await self._stopped.wait()
                for task in loops:
                    task.cancel()
        finally:
            self._group = None
            for courier in self._couriers:
                courier.http.close()

    async def close(self, grace_s: float, *, drain: bool = False) -> None:
        """Stop within ``grace_s`` seconds: what is in flight may finish, the rest stays in the spool.

        With ``drain`` go on claiming and sending while anything is left and an endpoint takes it.
        """
        end_s = self._clock.monotonic_s() + grace_s
        self._claiming = self._sending = drain
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s * (1 - _SETTLE_SHARE)):
                while self._busy(drain):
                    self._room.clear()
                    await self._room.wait()
        self._claiming = self._sending = False
        for task in list(self._sends):
            task.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)
        if self._group is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, end_s - self._clock.monotonic_s())):
                    await self._release_all()
                    await self._settlement.wait_idle()
        self._stopped.set()

    def snapshot(self) -> DeliverySnapshot:
        """Delivery as it is now, for ``/state``."""
        now_s = self._clock.monotonic_s()
        return DeliverySnapshot(
            endpoints=tuple(endpoint_snapshot(endpoint, now_s) for endpoint in self._endpoints),
            ready_turns=self._ready.items,
            ready_bytes=self._ready.cost,
            held_turns=self._held_turns,
            held_bytes=self._held_bytes,
            stopping=not self._sending,
        )

    # Claiming.

    async def _feed(self) -> None:
        """Claim when there is room, something due, and somewhere to send it."""
        while True:
            now_s = self._clock.monotonic_s()
            room = self._room_for_more()
            unwanted = self._not_wanted(now_s)
            waiting = self._queue.backlog.keys()
            if not self._claiming or min(room) <= 0 or not self._anywhere(now_s):
                await self._wait_for_room(self._settings.poll_s)
            elif waiting - unwanted and await self._claim(room, unwanted):
                self._send_what_may_go()
            elif waiting & unwanted:
                # The spool would report their turns as work for ever: look at the others at a pace.
                await self._wait_for_room(_LOOK_AGAIN_S)
            else:
                await self._wait_for_work()

    async def _claim(self, room: tuple[int, int], unwanted: set[str]) -> bool:
        """Take turns into the ready queues; says whether there were any."""
        claimed = await self._queue.claim(
            room[0],
            min(room[1], self._settings.in_flight_bytes // _TENANT_SHARE),
            self._clock.now_ns(),
            per_tenant=max(1, self._settings.ready_turns_per_tenant // 2),
            except_tenants=unwanted,
        )
        for turn in claimed:
            size = len(turn.body)
            self._held_turns += 1
            self._held_bytes += size
            self._held_by_tenant[turn.tenant] += size
            self._ready.push(turn.tenant, turn, size)
        return bool(claimed)

    def _room_for_more(self) -> tuple[int, int]:
        return (
            self._settings.in_flight_turns - self._held_turns,
            self._settings.in_flight_bytes - self._held_bytes,
        )

    def _not_wanted(self, now_s: float) -> set[str]:
        """Tenants of whom enough is here, or whose turns could not be sent anyway."""
        enough = max(1, self._settings.ready_turns_per_tenant // 2)
        share = self._settings.in_flight_bytes // _TENANT_SHARE
        full = {tenant for tenant in self._ready.tenants() if self._ready.length(tenant) >= enough}
        full |= {tenant for tenant, size in self._held_by_tenant.items() if size >= share}
        lanes = {tenant for endpoint in self._endpoints for tenant in endpoint.lanes}
        return full | {tenant for tenant in lanes if self._paused(tenant, now_s)}

    def _paused(self, tenant: str, now_s: float) -> bool:
        return all(endpoint.paused_for(tenant, now_s) for endpoint in self._endpoints)

    def _anywhere(self, now_s: float) -> bool:
        return any(endpoint.open_for_any(now_s) for endpoint in self._endpoints)

    async def _wait_for_room(self, at_most_s: float) -> None:
        """Until something was settled, or an endpoint came back, or time is up."""
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._room.wait()

    async def _wait_for_work(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.poll_s):
                await self._queue.wait_for_work()
        if not self._queue.backlog:
            await asyncio.sleep(_EARLY_S)  # it woke early: do not spin until the commit shows

    # Sending.

    def _send_what_may_go(self) -> None:
        """Begin requests until no tenant has a turn that an endpoint could take now."""
        while self._sending and self._group is not None and self._ready.items:
            now_s = self._clock.monotonic_s()
            able = [endpoint for endpoint in self._endpoints if endpoint.open_for_any(now_s)]
            if not able:
                return
            tenant = self._ready.next_tenant(lambda t: any(e.open_for(t, now_s) for e in able))  # noqa: B023
            if tenant is None:
                return
            endpoint = least_loaded(able, tenant, now_s)
            assert endpoint is not None
            courier = self._couriers[self._endpoints.index(endpoint)]
            turns = self._parcel(endpoint, tenant, now_s)
            endpoint.begin(tenant, len(turns), sum(len(turn.body) for turn in turns), now_s)
            task = self._group.create_task(self._send(courier, tenant, turns))
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    def _parcel(self, endpoint: Endpoint, tenant: str, now_s: float) -> list[Claimed]:
        """The tenant's next turns that travel together to this endpoint."""
        lane = endpoint.lanes.get(tenant)
        probing = endpoint.breaker.probing or (lane is not None and lane.breaker.probing)
        alone = probing or not self._may_join(self._ready.peek(tenant))
        max_turns = 1 if alone else endpoint.learned.batch_turns(now_s)
        taken = self._ready.take(tenant, max_turns, endpoint.learned.batch_bytes(now_s), self._may_join)
        if len(taken) > 1:
            endpoint.learned.batch_begins()
        return [turn for _, turn in taken]

    def _may_join(self, turn: Claimed) -> bool:
        return self._suspects[turn.seq] < self._settings.alone_after_failures

    async def _send(self, courier: Courier, tenant: str, turns: list[Claimed]) -> None:
        endpoint = courier.endpoint
        size = sum(len(turn.body) for turn in turns)
        started_ns = self._clock.now_ns()
        try:
            delivered = await courier.deliver(turns)
        except asyncio.CancelledError:
            endpoint.abandon(tenant, self._clock.monotonic_s())
            delivered = _undelivered(turns, Reason.SHUTDOWN, "stopped before the answer was complete")
        except Exception:
            log.exception("delivery to %s failed by our own fault", endpoint.url)
            delivered = _undelivered(turns, Reason.OUR_FAULT, "our own fault: see the log")
        now_s = self._clock.monotonic_s()
        if delivered.overall.reason is not Reason.SHUTDOWN:
            self._judge(endpoint, tenant, delivered.overall, now_s)
        if len(turns) > 1:
            endpoint.learned.batch_unknown()
        endpoint.finish(tenant, len(turns), size)
        self._settle(endpoint, turns, delivered, started_ns)
        self._give_back_paused(now_s)
        self._send_what_may_go()

    def _judge(self, endpoint: Endpoint, tenant: str, verdict: Verdict, now_s: float) -> None:
        was_open = endpoint.breaker.probing
        newly_held = endpoint.judge(tenant, verdict, now_s, self._random)
        if verdict.fate is not Fate.ACCEPTED:
            endpoint.last_error = f"{verdict.reason.value} ({verdict.status}): {verdict.text}"
            endpoint.last_error_at_ns = self._clock.now_ns()
        if newly_held:
            self.counters.holds += 1
            log.error(
                "ingest %s held%s: %s (status %s): %s",
                endpoint.url,
                f" for tenant {tenant!r}" if verdict.scope is Scope.TENANT else "",
                verdict.reason.value,
                verdict.status,
                verdict.text,
            )
        if endpoint.breaker.probing and not was_open:
            self.counters.breaker_opens += 1
            if not newly_held:
                log.warning("ingest %s: road closed after %s", endpoint.url, endpoint.last_error)
        elif was_open and not endpoint.breaker.probing:
            log.info("ingest %s: road open again", endpoint.url)

    # Settling.

    def _settle(
        self, endpoint: Endpoint, turns: list[Claimed], delivered: Delivered, started_ns: int
    ) -> None:
        ended_ns = self._clock.now_ns()
        settled: list[Settled] = []
        for turn, verdict in zip(turns, delivered.verdicts, strict=True):
            self.counters.attempts[verdict.reason] += 1
            self._held_by_tenant[turn.tenant] -= len(turn.body)
            if verdict.fate is Fate.ACCEPTED:
                endpoint.accepted += 1
            self._suspect(turn, verdict, batched=len(turns) > 1)
            attempt = Attempt(
                number=turn.attempts + 1,
                endpoint=endpoint.url,
                started_at_ns=started_ns,
                ended_at_ns=ended_ns,
                fate=verdict.fate,
                reason=verdict.reason,
                status=verdict.status,
                error=verdict.text,
                delay_s=self._delay_s(turn, verdict),
                turns=len(turns),
                request_bytes=delivered.request_bytes,
                answer_bytes=delivered.answer_bytes,
            )
            settled.append(Settled(turn, verdict, attempt))
        if not self._held_by_tenant[turns[0].tenant]:
            del self._held_by_tenant[turns[0].tenant]
        self._settlement.put(settled)

    def _suspect(self, turn: Claimed, verdict: Verdict, *, batched: bool) -> None:
        """Remember which turns were in batches that failed: they travel alone sooner or later."""
        if verdict.fate in (Fate.ACCEPTED, Fate.REFUSED):
            self._suspects.pop(turn.seq, None)
        elif verdict.reason is Reason.BATCH_UNDECIDED:
            self._suspects[turn.seq] = self._settings.alone_after_failures
        elif batched and verdict.reason in _SUSPICIOUS:
            self._suspects[turn.seq] += 1
        if len(self._suspects) > _MAX_SUSPECTS:
            self._suspects.clear()

    def _delay_s(self, turn: Claimed, verdict: Verdict) -> float:
        if verdict.fate in (Fate.ACCEPTED, Fate.REFUSED) or verdict.reason in _AT_ONCE:
            return 0.0
        return max(self._backoff.delay_s(turn.attempts + 1, self._random), verdict.retry_after_s or 0.0)

    def _freed(self, turns: int, size: int) -> None:
        self._held_turns -= turns
        self._held_bytes -= size
        self._room.set()

    def _give_back_paused(self, now_s: float) -> None:
        """What a paused tenant had claimed goes back to the spool, so that it fills no memory."""
        for tenant in self._ready.tenants():
            if self._paused(tenant, now_s):
                self._release(tenant)

    def _release(self, tenant: str) -> None:
        turns = [turn for _, turn in self._ready.take_all(tenant)]
        if turns and self._group is not None:
            self._group.create_task(self._release_turns(turns))

    async def _release_turns(self, turns: list[Claimed]) -> None:
        await self._queue.release([turn.seq for turn in turns])
        self.counters.released += len(turns)
        for turn in turns:
            self._held_by_tenant[turn.tenant] -= len(turn.body)
        self._freed(len(turns), sum(len(turn.body) for turn in turns))

    async def _release_all(self) -> None:
        for tenant in self._ready.tenants():
            await self._release_turns([turn for _, turn in self._ready.take_all(tenant)])

    def _busy(self, drain: bool) -> bool:
        """Whether a stop still has something to wait for."""
        if self._sends or not self._settlement.idle:
            return True
        if not drain:
            return False
        return bool(self._ready.items or self._queue.backlog) and self._anywhere(self._clock.monotonic_s())

    # Time.

    async def _tick(self) -> None:
        """Look again at whatever time alone changes: breakers, pauses, resting connections."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            self._give_back_paused(self._clock.monotonic_s())
            for courier in self._couriers:
                courier.http.close_idle(asyncio.get_running_loop().time())
            self._send_what_may_go()
            self._room.set()

    async def _heartbeats(self, courier: Courier) -> None:
        while True:
            well = await self._heartbeat(courier)
            wait_s = self._settings.heartbeat_s if well else self._settings.heartbeat_anxious_s
            # Up to a tenth less, so that a fleet does not beat in step.
            await asyncio.sleep(wait_s * (1 - 0.1 * self._random()))

    async def _heartbeat(self, courier: Courier) -> bool:
        """One heartbeat; says whether the endpoint is well."""
        endpoint = courier.endpoint
        before = endpoint.status(self._clock.monotonic_s())
        try:
            reply = await courier.http.get(PING_PATH, self._settings.connect_timeout_s)
        except ExchangeFailed as failed:
            self.counters.heartbeats_missed += 1
            endpoint.last_error = f"heartbeat: {failed.reason.value}: {failed}"
            endpoint.last_error_at_ns = self._clock.now_ns()
            endpoint.silent = True
        else:
            self._heard(courier, reply.answer.status, reply.answer.body)
        now_s = self._clock.monotonic_s()
        self._report_change(endpoint, before, endpoint.status(now_s))
        self._send_what_may_go()
        return endpoint.readiness is Readiness.READY and not endpoint.silent

    def _heard(self, courier: Courier, status: int, body: bytes) -> None:
        endpoint, now_s = courier.endpoint, self._clock.monotonic_s()
        self.counters.heartbeats_answered += 1
        pulse = read_pulse(status, body)
        endpoint.heard(now_s)
        endpoint.learned.prefers(pulse.batch_turns, pulse.batch_bytes)
        returned = endpoint.silent or (
            endpoint.readiness is not Readiness.READY and pulse.readiness is Readiness.READY
        )
        endpoint.silent = False
        endpoint.readiness = pulse.readiness
        if returned:
            endpoint.revive(now_s)
            self._room.set()

    def _report_change(self, endpoint: Endpoint, before: EndpointStatus, after: EndpointStatus) -> None:
        unwell = {EndpointStatus.GONE, EndpointStatus.DRAINING, EndpointStatus.NOT_READY}
        if before is not after and (before in unwell or after in unwell):
            level = logging.ERROR if after is EndpointStatus.GONE else logging.INFO
            log.log(level, "ingest %s is %s (was %s) %s", endpoint.url, after, before, endpoint.last_error)

    def _courier(self, index: int) -> Courier:
        settings = self._settings.endpoints[index]
        endpoint = Endpoint(settings.url, self._settings, self._clock.monotonic_s())
        http = HttpEndpoint(settings, self._settings, self.counters)
        return Courier(endpoint, http, self.counters, self._clock)


def _undelivered(turns: list[Claimed], reason: Reason, text: str) -> Delivered:
    verdict = Verdict(
        Fate.RETRY, reason, Scope.TURN if reason is Reason.SHUTDOWN else Scope.ENDPOINT, None, text
    )
    return Delivered([verdict] * len(turns), verdict, 0, 0)
