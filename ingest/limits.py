"""How much one tenant may send and keep: rules, buckets, and the decision about a turn.

A bucket holds what may be spent at once and fills at a steady rate. A turn passes while
its tenant's buckets hold at least one turn and one byte; what its body has beyond that is
owed, so a body larger than the burst passes too, and the next ones wait for it. What is
kept is counted in bytes as posted, accepted and rejected turns alike.

Pure but for a lock (bodies are judged in threads, too): monotonic seconds are arguments.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from ingest.access import ANY
from ingest.tenant_rules import TenantRule, read_tenant_rules

_BURST_S: Final = 10.0
"""What a burst holds where the rule does not say: so many seconds of the rate."""
_FULL_WAIT_S: Final = 60.0
"""How long a tenant that keeps too much is told to wait: somebody has to delete or to allow more."""
_MOST_BUCKETS: Final = 10_000
"""From here on buckets of tenants that wait for nothing are forgotten."""
_Rate = Annotated[float, Meta(gt=0, le=1e12)]
_Count = Annotated[int, Meta(ge=1, le=1 << 50)]


@unique
class Excess(StrEnum):
    """Which limit a tenant is over."""

    TURN_RATE = "turn_rate"
    BYTE_RATE = "byte_rate"
    STORED_BYTES = "stored_bytes"


class Limit(TenantRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of ``tenant`` (``*``: of each without a rule of its own); None is no limit.

    A burst is what may come at once: ten seconds of its rate, but at least one, by default.
    """

    turns_per_s: _Rate | None = None
    burst_turns: _Count | None = None
    bytes_per_s: _Rate | None = None
    burst_bytes: _Count | None = None
    stored_bytes: Annotated[int, Meta(ge=0, le=1 << 60)] | None = None


def read_limits(path: Path) -> tuple[Limit, ...]:
    """The limits of a file. Raises :class:`TenantRulesError`."""
    return read_tenant_rules(path, tuple[Limit, ...], "limits, each with its tenant")


@dataclass(frozen=True, slots=True)
class Overrun:
    """A turn that may not pass now. ``wait_s``: when it is worth another try."""

    excess: Excess
    wait_s: float
    words: str


@dataclass(slots=True)
class Bucket:
    """Tokens that flow in at ``rate`` a second, up to ``burst``; below zero they are owed."""

    rate: float
    burst: float
    tokens: float
    at_s: float

    def wait_s(self, now_s: float) -> float:
        """Seconds until one token is there; 0 when it is."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now_s - self.at_s) * self.rate)
        self.at_s = now_s
        return max(0.0, (1 - self.tokens) / self.rate)

    def full(self, now_s: float) -> bool:
        """Whether it is like a new one."""
        self.wait_s(now_s)
        return self.tokens >= self.burst


def _bucket(rate: float | None, burst: int | None, now_s: float) -> Bucket | None:
    if rate is None:
        return None
    size = max(1.0, burst or rate * _BURST_S)
    return Bucket(rate, size, size, now_s)


@dataclass(slots=True)
class _Tenant:
    turns: Bucket | None
    bytes: Bucket | None

    def wait(self, now_s: float) -> tuple[float, Excess]:
        """The longer of the waits, and whose it is."""
        turns = self.turns.wait_s(now_s) if self.turns else 0.0
        size = self.bytes.wait_s(now_s) if self.bytes else 0.0
        return (turns, Excess.TURN_RATE) if turns >= size else (size, Excess.BYTE_RATE)

    def spend(self, size: int) -> None:
        if self.turns:
            self.turns.tokens -= 1
        if self.bytes:
            self.bytes.tokens -= size

    def forgettable(self, now_s: float) -> bool:
        return all(bucket is None or bucket.full(now_s) for bucket in (self.turns, self.bytes))


@dataclass(slots=True)
class Limiter:
    """The rules in force, and what each tenant has left of them."""

    rules: Mapping[str, Limit] = field(default_factory=dict[str, Limit])
    stored: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes that each tenant kept when it was last measured."""
    since: Counter[str] = field(default_factory=Counter[str])
    """Bytes stored by this process and not measured yet."""
    _tenants: dict[str, _Tenant] = field(default_factory=dict[str, _Tenant])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def counts_stored(self) -> bool:
        """Whether any rule needs to know what is stored."""
        return any(rule.stored_bytes is not None for rule in self.rules.values())

    def rule(self, limits: Sequence[Limit]) -> None:
        """Put new rules in force; every bucket begins full."""
        with self._lock:
            self.rules = {limit.tenant: limit for limit in limits}
            self._tenants.clear()

    def admit(self, tenant: str, size: int, now_s: float) -> Overrun | None:
        """Let a turn of ``size`` bytes pass and count it, or say why not; then nothing is counted."""
        rule = self.rules.get(tenant) or self.rules.get(ANY)
        if rule is None:
            return None
        with self._lock:
            return self._over_stored(rule, tenant, size) or self._over_rate(rule, tenant, size, now_s)

    def keep(self, tenant: str, size: int) -> None:
        """A turn of ``size`` bytes was stored."""
        if self.counts_stored:
            with self._lock:
                self.since[tenant] += size

    def measured(self, stored: Mapping[str, int], seen: Mapping[str, int]) -> None:
        """``stored`` was found in the store; ``seen`` is the part of :attr:`since` that is in it."""
        with self._lock:
            self.stored = stored
            self.since.subtract(seen)
            self.since = +self.since

    def _over_stored(self, rule: Limit, tenant: str, size: int) -> Overrun | None:
        if rule.stored_bytes is None:
            return None
        held = self.stored.get(tenant, 0) + self.since[tenant]
        if held + size <= rule.stored_bytes:
            return None
        words = f"it keeps {held} of {rule.stored_bytes} bytes: delete turns, or allow it more"
        return Overrun(Excess.STORED_BYTES, _FULL_WAIT_S, words)

    def _over_rate(self, rule: Limit, tenant: str, size: int, now_s: float) -> Overrun | None:
        state = self._tenants.get(tenant)
        if state is None:
            self._make_room(now_s)
            state = self._tenants[tenant] = _Tenant(
                _bucket(rule.turns_per_s, rule.burst_turns, now_s),
                _bucket(rule.bytes_per_s, rule.burst_bytes, now_s),
            )
        wait_s, excess = state.wait(now_s)
        if not wait_s:
            state.spend(size)
            return None
        rate = f"{rule.turns_per_s:g} turns" if excess is Excess.TURN_RATE else f"{rule.bytes_per_s:g} bytes"
        return Overrun(excess, wait_s, f"it may send {rate} a second")

    def _make_room(self, now_s: float) -> None:
        if len(self._tenants) >= _MOST_BUCKETS:
            self._tenants = {
                name: state for name, state in self._tenants.items() if not state.forgettable(now_s)
            }
