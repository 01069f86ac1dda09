"""The limits of tenants in a running service: their file, what is stored, and who is told.

What a tenant keeps is measured in the store every few seconds, in small reads: only what
came since the last time, and all of it again after a deletion and every hour. In between
this process counts what it stores itself. So the quota holds to within what is in flight,
and with several instances on one database to within what those store between two looks.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

from ingest.limits import Excess, Limiter, Overrun, read_limits
from ingest.metrics import Metrics
from ingest.store import held
from ingest.store.connection import StoreError
from ingest.store.rows import NewTurn
from ingest.store.store import Store
from ingest.tenant_rules import TenantRulesError
from ingest.watched import Watched

_log = logging.getLogger("steno.ingest.throttle")
_EVERY_S: Final = 5.0
_AFRESH_S: Final = 3600.0
_TELL_AGAIN_S: Final = 60.0
_CHUNK: Final = 20_000
"""Turns of one read."""


class Throttle:
    """Decides about turns by the limits file (None: there are no limits)."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        """Raises :class:`TenantRulesError` when the file cannot be used."""
        self.limiter = Limiter()
        self._metrics = metrics
        self._path = path
        self._watched = Watched(path) if path else None
        self._told: dict[str, float] = {}
        self._seq = 0
        self._deletions: tuple[int, int] | None = None
        self._afresh_at_s = 0.0
        if path is not None:
            self.limiter.rule(read_limits(path))

    def allow(self, tenant: str, size: int) -> Overrun | None:
        """Let a turn of ``size`` bytes pass, or say why not. May be called from any thread."""
        return self.limiter.admit(tenant, size, time.monotonic())

    def refused(self, tenant: str, excess: Excess) -> None:
        """A turn was answered 429: count it, and name the tenant in the log, at most once a minute."""
        self._metrics.throttled.labels(excess).inc()
        now_s = time.monotonic()
        if now_s < self._told.get(tenant, -math.inf) + _TELL_AGAIN_S:
            return
        self._told = {name: at_s for name, at_s in self._told.items() if now_s < at_s + _TELL_AGAIN_S}
        self._told[tenant] = now_s
        _log.warning("tenant %s is over its limit (%s): its turns are answered 429", tenant, excess)

    def kept(self, turn: NewTurn) -> None:
        """A turn was stored."""
        self.limiter.keep(turn.tenant, turn.body_bytes)

    def reload(self) -> bool:
        """Read the file again if it changed; whether new limits are in force."""
        if self._path is None or self._watched is None or not self._watched.changed():
            return False
        try:
            limits = read_limits(self._path)
        except TenantRulesError as error:
            _log.error("the limits file cannot be used, the old limits stay: %s", error)
            return False
        self.limiter.rule(limits)
        _log.info("%d limits are in force", len(limits))
        return True

    async def run(self, store: Store, stopped: asyncio.Event) -> None:
        """Look after the file and after what is stored, until ``stopped``."""
        if self._path is None:
            return
        while not stopped.is_set():
            self.reload()
            try:
                await self.measure(store)
            except StoreError as error:
                _log.warning("what tenants keep is not known: %s", error)
            try:
                await asyncio.wait_for(stopped.wait(), _EVERY_S)
            except TimeoutError:
                continue

    async def measure(self, store: Store) -> None:
        """Find out how much each tenant keeps, if any rule asks."""
        if not self.limiter.counts_stored:
            return
        deletions = await store.read(held.deletions)
        afresh = deletions != self._deletions or time.monotonic() >= self._afresh_at_s
        seq, stored = (0, Counter[str]()) if afresh else (self._seq, Counter(self.limiter.stored))
        found: list[held.Held] | None = None
        seen = Counter[str]()
        while found is None or found:
            seen = Counter(self.limiter.since)  # what is counted before the last look is in it
            found = await store.read(partial(held.by_tenant, after_seq=seq, limit=_CHUNK))
            for part in found:
                stored[part.tenant] += part.bytes
                seq = max(seq, part.last_seq)
        self.limiter.measured(stored, seen)
        if afresh:
            self._afresh_at_s = time.monotonic() + _AFRESH_S
        self._deletions, self._seq = deletions, seq
