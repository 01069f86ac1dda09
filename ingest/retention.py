"""Deletion on demand and by age, in small transactions beside the writers."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from ingest.access import ANY
from ingest.store.connection import StoreError
from ingest.store.deletion import Scope, delete_some, named
from ingest.store.reads import tenants
from ingest.store.rows import Event, State
from ingest.store.store import Store
from ingest.tenant_rules import TenantRule, read_tenant_rules

_log = logging.getLogger("steno.ingest.retention")
_DAY_US: Final = 86_400_000_000
_EVERY_S: Final = 3600.0
_Days = Annotated[int, Meta(ge=1, le=36_500)]
"""A hundred years: more is a mistake, and would lead out of what a time can say."""


class Rule(TenantRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep turns of ``tenant`` (``*``: of those without a rule of their own) for so many days;
    None keeps them for good. ``rejected_days`` is for turns that were answered 422.
    """

    accepted_days: _Days | None = None
    rejected_days: _Days | None = 30


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file. Raises :class:`TenantRulesError`."""
    return read_tenant_rules(path, tuple[Rule, ...], "tenant, accepted_days, rejected_days")


def scopes(rules: Sequence[Rule], tenants: Sequence[str], now_us: int) -> list[Scope]:
    """What has outlived its rule."""
    by_tenant = {rule.tenant: rule for rule in rules}
    found: list[Scope] = []
    for tenant in tenants:
        rule = by_tenant.get(tenant) or by_tenant.get(ANY) or Rule()
        for state, days in ((State.ACCEPTED, rule.accepted_days), (State.REJECTED, rule.rejected_days)):
            if days is not None:
                found.append(Scope(tenant=tenant, before_us=now_us - days * _DAY_US, state=state))
    return found


class Retention:
    """Deletes what may not be kept."""

    def __init__(self, store: Store, rules: Sequence[Rule], told: Callable[[Sequence[Event]], None]) -> None:
        self._store = store
        self._rules = rules
        self._told = told

    async def delete(self, scope: Scope, who: str, stopped: asyncio.Event | None = None) -> int:
        """Delete everything in ``scope``, or what could be until ``stopped``; how many turns."""
        total = 0
        scope = await self._store.read(partial(named, scope=scope))
        while stopped is None or not stopped.is_set():
            now_us = time.time_ns() // 1000
            count, events = await self._store.write(partial(delete_some, scope=scope, who=who, now_us=now_us))
            if not count:
                break
            total += count
            self._told(events)
        return total

    async def run(self, stopped: asyncio.Event) -> None:
        """Look after the rules, now and every hour."""
        while not stopped.is_set():
            try:
                await self.sweep(time.time_ns() // 1000, stopped)
            except StoreError as error:
                _log.warning("retention waits for the store: %s", error)
            try:
                await asyncio.wait_for(stopped.wait(), _EVERY_S)
            except TimeoutError:
                continue

    async def sweep(self, now_us: int, stopped: asyncio.Event | None = None) -> int:
        """Delete what has outlived its rule, or what could be until ``stopped``; how many turns.

        A stop waits for one batch only: the next sweep, at the next start, goes on.
        """
        outlived = scopes(self._rules, await self._store.read(tenants), now_us)
        return sum([await self.delete(scope, "retention", stopped) for scope in outlived])
