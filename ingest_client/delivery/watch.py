"""Watches over one endpoint: heartbeats, and word in the log when its status changes."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingest_client.delivery.classify import Fate, Scope, Verdict
from ingest_client.delivery.clock import Clock
from ingest_client.delivery.connection import ExchangeFailed
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.endpoints import Endpoint, EndpointStatus, Readiness
from ingest_client.delivery.heartbeat import PING_PATH, read_pulse
from ingest_client.delivery.http import HttpEndpoint
from ingest_client.delivery.plaintext import readable
from ingest_client.delivery.settings import DeliverySettings

log: Final = logging.getLogger("steno.delivery")

_UNWELL: Final = frozenset({EndpointStatus.GONE, EndpointStatus.DRAINING, EndpointStatus.NOT_READY})


@dataclass(slots=True)
class Watch:
    """One endpoint's nurse. ``changed`` is called after each heartbeat: something may be possible again."""

    endpoint: Endpoint
    http: HttpEndpoint
    settings: DeliverySettings
    counters: DeliveryCounters
    clock: Clock
    random: Callable[[], float]
    changed: Callable[[], None]

    async def run(self) -> None:
        """Heartbeats for ever; cancel to stop."""
        while True:
            await self._beat()
            well = self.endpoint.readiness is Readiness.READY and not self.endpoint.silent
            wait_s = self.settings.heartbeat_s if well else self.settings.heartbeat_anxious_s
            # Up to a tenth less, so that a fleet does not beat in step.
            await asyncio.sleep(wait_s * (1 - 0.1 * self.random()))

    def judge(self, tenant: str, turn: int, verdict: Verdict) -> None:
        """A request, whose first turn was ``turn``, ended so: learn from it, and tell people, once."""
        endpoint, now_s = self.endpoint, self.clock.monotonic_s()
        was_closed = endpoint.breaker.probing
        newly_held = endpoint.judge(tenant, turn, verdict, now_s, self.random)
        if verdict.fate is not Fate.ACCEPTED:
            self._note(f"{verdict.reason.value} ({verdict.status}): {verdict.text}")
        if newly_held:
            self.counters.holds += 1
            whom = f" for tenant {tenant!r}" if verdict.scope is Scope.TENANT else ""
            log.error("ingest %s held%s: %s", endpoint.url, whom, endpoint.last_error)
        if endpoint.breaker.probing and not was_closed:
            self.counters.breaker_opens += 1
            if not newly_held:
                log.warning("ingest %s: road closed after %s", endpoint.url, endpoint.last_error)
        elif was_closed and not endpoint.breaker.probing:
            log.info("ingest %s: road open again", endpoint.url)

    async def _beat(self) -> None:
        before = self.endpoint.status(self.clock.monotonic_s())
        try:
            reply = await self.http.get(PING_PATH, self.settings.connect_timeout_s)
        except ExchangeFailed as failed:
            self.counters.heartbeats_missed += 1
            self.endpoint.silent = True
            self._note(readable(f"heartbeat: {failed.reason.value}: {failed}"))
        else:
            self._hear(reply.answer.status, reply.answer.body)
        self._tell(before, self.endpoint.status(self.clock.monotonic_s()))
        self.changed()

    def _hear(self, status: int, body: bytes) -> None:
        endpoint, now_s = self.endpoint, self.clock.monotonic_s()
        self.counters.heartbeats_answered += 1
        pulse = read_pulse(status, body)
        endpoint.heard(now_s)
        endpoint.learned.prefers(pulse.batch_turns, pulse.batch_bytes)
        was_ready = endpoint.readiness is Readiness.READY and not endpoint.silent
        endpoint.silent = False
        endpoint.readiness = pulse.readiness
        if pulse.readiness is Readiness.READY and not was_ready:
            endpoint.revive(now_s)

    def _tell(self, before: EndpointStatus, after: EndpointStatus) -> None:
        if before is not after and (before in _UNWELL or after in _UNWELL):
            level = logging.ERROR if after is EndpointStatus.GONE else logging.INFO
            log.log(
                level,
                "ingest %s is %s, was %s: %s",
                self.endpoint.url,
                after,
                before,
                self.endpoint.last_error,
            )

    def _note(self, error: str) -> None:
        self.endpoint.last_error = error
        self.endpoint.last_error_at_ns = self.clock.now_ns()
