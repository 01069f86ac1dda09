"""The loop: claim what is due, choose whose turn it is and where it goes, settle what came of it.

    spool ──claim──► ready, a queue per tenant ──send──► endpoint ──verdict──► settlement ──► spool

Invariants:

- Everything claimed is *held* until it is settled or released (``holding``). Held bytes
  and turns are bounded, and what is not claimed costs no memory here.
- Sending never waits for one endpoint or one tenant: whatever cannot be sent now is
  passed over, and what a paused tenant had claimed goes back to the spool.
- A turn leaves by exactly one of acknowledge, retry, dead letter and release. When the
  process dies first, the spool makes it pending again: at least once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final as Constant

from ingest_client.beat import until_next
from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.backoff import Backoff
from ingest_client.delivery.classify import Fate, Reason, Scope, Verdict
from ingest_client.delivery.clock import Clock
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.courier import Courier, Delivered
from ingest_client.delivery.endpoints import Endpoint, least_loaded
from ingest_client.delivery.holding import Holding
from ingest_client.delivery.http import HttpEndpoint
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings
from ingest_client.delivery.settlement import Final, Settled, Settlement
from ingest_client.delivery.snapshot import DeliverySnapshot, endpoint_snapshot
from ingest_client.delivery.watch import Watch
from ingest_client.spool.api import Claimed, Queue

log: Constant = logging.getLogger("steno.delivery")

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

_LOOK_AGAIN_S: Constant = 0.05
_EARLY_S: Constant = 0.002

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
        self._backoff = Backoff(settings.retry_base_s, settings.retry_cap_s)
        self._holding = Holding(settings)
        self._settlement = Settlement(queue, self.counters, self._let_go, on_final)
        self._couriers = {courier.endpoint.url: courier for courier in map(self._courier, settings.endpoints)}
        self._endpoints = [courier.endpoint for courier in self._couriers.values()]
        self._watches = {url: self._watch(courier) for url, courier in self._couriers.items()}
        self._sends: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._room = asyncio.Event()
        self._claimed_at_s = float("-inf")
        self._claiming = True
        self._sending = True
        self._stopping = False
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
                    *(group.create_task(watch.run()) for watch in self._watches.values()),
                ]
                await self._stopped.wait()
                for task in loops:
                    task.cancel()
        finally:
            self._group = None
            for courier in self._couriers.values():
                courier.http.close()

    async def close(self, grace_s: float, *, drain: bool = False) -> None:
        """Stop within ``grace_s`` seconds: what is in flight may finish, the rest stays in the spool.

        With ``drain`` go on claiming and sending while anything is left and an endpoint takes it.
        """
        end_s = self._clock.monotonic_s() + grace_s
        self._claiming = self._sending = drain
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s * (1 - _SETTLE_SHARE)):
                while self._busy(drain):
                    self._room.clear()
                    await self._room.wait()
        self._claiming = self._sending = False
        await asyncio.sleep(0)  # a task that never ran could not say what became of its turns
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
            ready_turns=self._holding.ready.items,
            ready_bytes=self._holding.ready.cost,
            held_turns=self._holding.turns,
            held_bytes=self._holding.bytes,
            stopping=not self._sending,
        )

    # Claiming.

    async def _feed(self) -> None:
        """Claim when there is room, something due, and somewhere to send it."""
        while True:
            now_s = self._clock.monotonic_s()
            unwanted = self._unwanted(now_s)
            waiting = self._queue.backlog.keys()
            if not self._claiming or not self._has_room or not self._anywhere(now_s):
                await self._wait_for_room(self._settings.poll_s)
            elif waiting - unwanted and (rest_s := self._gathers_for(waiting - unwanted, now_s)) > 0:
                await asyncio.sleep(rest_s)
            elif waiting - unwanted and await self._claim(unwanted):
                self._send_what_may_go()
            elif waiting & unwanted:
                # The spool would report their turns as work for ever: look at the others at a pace.
                await self._wait_for_room(_LOOK_AGAIN_S)
            else:
                await self._wait_for_work()

    async def _claim(self, unwanted: set[str]) -> bool:
        """Take turns into the ready queues; says whether there were any."""
        claimed = await self._queue.claim(
            self._holding.room_turns,
            self._holding.room_bytes,
            self._clock.now_ns(),
            per_tenant=self._holding.per_tenant,
            except_tenants=unwanted,
        )
        self._holding.take_in(claimed)
        if claimed:
            self._claimed_at_s = self._clock.monotonic_s()
        return bool(claimed)

    def _gathers_for(self, tenants: set[str], now_s: float) -> float:
        """How long to wait for more turns of these tenants to claim with those that wait; 0: claim now."""
        gather_s = self._settings.gather_s
        if not gather_s or self._stopping:
            return 0.0
        waiting = [backlog for tenant, backlog in self._queue.backlog.items() if tenant in tenants]
        turns = sum(each.turns for each in waiting)
        size = sum(each.body_bytes for each in waiting)
        if turns >= self._settings.batch_turns or size >= self._settings.batch_bytes:
            return 0.0
        # Ticks are compared, not distances: a claim comes a little after its tick.
        return until_next(gather_s) if now_s // gather_s == self._claimed_at_s // gather_s else 0.0

    @property
    def _has_room(self) -> bool:
        return self._holding.room_turns > 0 and self._holding.room_bytes > 0

    def _unwanted(self, now_s: float) -> set[str]:
        """Tenants of whom enough is here, or whose turns could not be sent anyway."""
        lanes = {tenant for endpoint in self._endpoints for tenant in endpoint.lanes}
        return self._holding.full() | {tenant for tenant in lanes if self._paused(tenant, now_s)}

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
            async with asyncio.timeout(until_next(self._settings.poll_s)):
                await self._queue.wait_for_work()
        if not self._queue.backlog:
            await asyncio.sleep(_EARLY_S)  # it woke early: do not spin until the commit shows

    # Sending.

    def _send_what_may_go(self) -> None:
        """Begin requests until no tenant has a turn that an endpoint could take now."""
        while self._sending and self._group is not None and self._holding.ready.items:
            now_s = self._clock.monotonic_s()
            able = [endpoint for endpoint in self._endpoints if endpoint.open_for_any(now_s)]
            if not able:
                return
            tenant = self._holding.ready.next_tenant(lambda t: any(e.open_for(t, now_s) for e in able))  # noqa: B023 - called at once
            if tenant is None:
                return
            endpoint = least_loaded(able, tenant, now_s)
            assert endpoint is not None
            turns = self._parcel(endpoint, tenant, now_s)
            endpoint.begin(tenant, len(turns), sum(len(turn.body) for turn in turns), now_s)
            task = self._group.create_task(self._send(endpoint, tenant, turns))
            self._sends.add(task)
            task.add_done_callback(self._sends.discard)

    def _parcel(self, endpoint: Endpoint, tenant: str, now_s: float) -> list[Claimed]:
        """The tenant's next turns that travel together to this endpoint."""
        alone = endpoint.probing(tenant)
        max_turns = 1 if alone else endpoint.learned.batch_turns(now_s)
        turns = self._holding.parcel(tenant, max_turns, endpoint.learned.batch_bytes(now_s))
        if len(turns) > 1:
            endpoint.learned.batch_begins()
        return turns

    async def _send(self, endpoint: Endpoint, tenant: str, turns: list[Claimed]) -> None:
        size = sum(len(turn.body) for turn in turns)
        started_ns = self._clock.now_ns()
        try:
            delivered = await self._couriers[endpoint.url].deliver(turns)
        except asyncio.CancelledError:
            self._claiming = self._sending = False
            endpoint.abandon(tenant, self._clock.monotonic_s())
            delivered = _undelivered(turns, Reason.SHUTDOWN, "stopped before the answer was complete")
        except Exception:
            log.exception("delivery to %s failed by our own fault", endpoint.url)
            delivered = _undelivered(turns, Reason.OUR_FAULT, "our own fault: see the log")
        if delivered.overall.reason is not Reason.SHUTDOWN:
            self._watches[endpoint.url].judge(tenant, turns[0].seq, delivered.overall)
        if len(turns) > 1:
            endpoint.learned.batch_unknown()
        endpoint.finish(tenant, len(turns), size)
        self._settle(endpoint, turns, delivered, started_ns)
        self._send_what_may_go()

    # Settling.

    def _settle(
        self, endpoint: Endpoint, turns: list[Claimed], delivered: Delivered, started_ns: int
    ) -> None:
        ended_ns = self._clock.now_ns()
        settled: list[Settled] = []
        for turn, verdict in zip(turns, delivered.verdicts, strict=True):
            self.counters.attempts[verdict.reason] += 1
            if verdict.fate is Fate.ACCEPTED:
                endpoint.accepted += 1
            self._holding.decided(turn, verdict, batched=len(turns) > 1)
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
                answer_headers=delivered.answer_headers,
                answer_body=delivered.answer_body,
            )
            settled.append(Settled(turn, verdict, attempt))
        self._settlement.put(settled)

    def _delay_s(self, turn: Claimed, verdict: Verdict) -> float:
        if verdict.fate in (Fate.ACCEPTED, Fate.REFUSED) or verdict.reason in _AT_ONCE:
            return 0.0
        return max(self._backoff.delay_s(turn.attempts + 1, self._random), verdict.retry_after_s or 0.0)

    def _let_go(self, turns: int, size: int) -> None:
        self._holding.let_go(turns, size)
        self._room.set()

    def _release(self, tenant: str) -> None:
        """What a paused tenant had claimed goes back to the spool, so that it fills no memory."""
        turns = self._holding.give_back(tenant)
        if turns and self._group is not None:
            self._group.create_task(self._release_turns(turns))

    async def _release_turns(self, turns: list[Claimed]) -> None:
        await self._queue.release([turn.seq for turn in turns])
        self.counters.released += len(turns)
        self._holding.released(turns)
        self._room.set()

    async def _release_all(self) -> None:
        for tenant in self._holding.ready.tenants():
            await self._release_turns(self._holding.give_back(tenant))

    def _busy(self, drain: bool) -> bool:
        """Whether a stop still has something to wait for."""
        if self._sends or not self._settlement.idle:
            return True
        if not drain:
            return False
        return bool(self._holding.ready.items or self._queue.backlog) and self._anywhere(
            self._clock.monotonic_s()
        )

    # Time.

    async def _tick(self) -> None:
        """Look again at whatever time alone changes: breakers, pauses, resting connections."""
        while True:
            await asyncio.sleep(until_next(self._settings.poll_s))
            now_s = self._clock.monotonic_s()
            for tenant in self._holding.ready.tenants():
                if self._paused(tenant, now_s):
                    self._release(tenant)
            for courier in self._couriers.values():
                courier.http.close_idle(asyncio.get_running_loop().time())
            self._send_what_may_go()
            self._room.set()

    def _changed(self) -> None:
        """An endpoint may be open again."""
        self._send_what_may_go()
        self._room.set()

    # Parts.

    def _courier(self, settings: EndpointSettings) -> Courier:
        endpoint = Endpoint(settings.url, self._settings, self._clock.monotonic_s())
        http = HttpEndpoint(settings, self._settings, self.counters)
        return Courier(endpoint, http, self.counters, self._clock)

    def _watch(self, courier: Courier) -> Watch:
        return Watch(
            endpoint=courier.endpoint,
            http=courier.http,
            settings=self._settings,
            counters=self.counters,
            clock=self._clock,
            random=self._random,
            changed=self._changed,
        )


def _undelivered(turns: list[Claimed], reason: Reason, text: str) -> Delivered:
    verdict = Verdict(
        Fate.RETRY, reason, Scope.TURN if reason is Reason.SHUTDOWN else Scope.ENDPOINT, None, text
    )
    return Delivered([verdict] * len(turns), verdict, 0, 0)
