"""What may be held in memory between reader and disk: an account for every exchange, one sum over all.

    Budget.open(tenant) → Account;  account.resize(bytes) → may it?;  account.close()

Theory of operation. Everything that an exchange keeps (its request, the reduced state of its
answer, itself) is drawn from the worker's budget and given back when the turn is on disk or
counted. A *tenant* may hold at most its share of what the others leave: alone nearly all,
beside another that takes all it can nearly half, and a newcomer always finds room. Exchanges
are counted by the same rule. Whoever is refused sheds capture, never traffic.

Pure, and used on the event loop alone: no locks. Sums are of estimates
(``capture.held``); what a process really takes is more by what the allocator and the
transports need.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

BASE_BYTES: Final = 4 * 1024
"""Of an open exchange that has kept nothing yet: its machine, its headers, its stream (measured:
``docs/decisions/0009``)."""


@unique
class Scope(StrEnum):
    """Whose bound a refusal met."""

    PROCESS = "process"
    TENANT = "tenant"


@unique
class ShedPart(StrEnum):
    """What a refusal cost."""

    EXCHANGE = "exchange"
    """The whole exchange: too many are open."""
    REQUEST = "request"
    """The exchange: its request does not fit."""
    ANSWER = "answer"
    """The rest of a streamed answer: the turn is truncated."""
    DOCUMENT = "document"
    """The exchange: a one-shot answer has no prefix that means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """``tenant_share``: of what other tenants leave, as much as one may hold (0 < share <= 1)."""

    max_bytes: int
    max_exchanges: int
    tenant_share: float


UNLIMITED: Final = BudgetLimits(max_bytes=1 << 62, max_exchanges=1 << 62, tenant_share=1.0)


@dataclass(slots=True)
class Usage:
    """What is in use: bytes, and open accounts."""

    bytes: int = 0
    exchanges: int = 0


class Budget:
    """The worker's budget. ``shed`` counts refusals by what they cost and whose bound it was."""

    __slots__ = ("_tenants", "limits", "shed", "used")

    def __init__(self, limits: BudgetLimits = UNLIMITED) -> None:
        self.limits = limits
        self.used = Usage()
        self.shed: Counter[tuple[ShedPart, Scope]] = Counter()
        self._tenants: dict[str, Usage] = {}

    @property
    def tenants(self) -> Mapping[str, Usage]:
        """Every tenant with an open account."""
        return self._tenants

    def open(self, tenant: str) -> "Account":
        """An account for a new exchange: one that is ``refused`` can hold nothing."""
        usage = self._tenants.get(tenant) or Usage()
        full = self._full(usage.exchanges, self.used.exchanges, 1, self.limits.max_exchanges) or self._full(
            usage.bytes, self.used.bytes, BASE_BYTES, self.limits.max_bytes
        )
        if full is not None:
            self.shed[ShedPart.EXCHANGE, full] += 1
            return Account(None, usage, tenant)
        self._tenants[tenant] = usage
        usage.exchanges += 1
        self.used.exchanges += 1
        account = Account(self, usage, tenant)
        account.take(BASE_BYTES)
        return account

    def refusal(self, usage: Usage, more_bytes: int) -> Scope | None:
        """Whose bound stands in the way of so many more bytes; None: nobody's."""
        return self._full(usage.bytes, self.used.bytes, more_bytes, self.limits.max_bytes)

    def forget(self, tenant: str) -> None:
        """An account was closed: a tenant without any other is no longer known."""
        usage = self._tenants[tenant]
        usage.exchanges -= 1
        self.used.exchanges -= 1
        if not usage.exchanges:
            del self._tenants[tenant]

    def _full(self, mine: int, all_of_it: int, more: int, limit: int) -> Scope | None:
        if all_of_it + more > limit:
            return Scope.PROCESS
        if mine + more > self.limits.tenant_share * (limit - (all_of_it - mine)):
            return Scope.TENANT
        return None


class Account:
    """What one exchange holds of the budget. Closed or refused, it holds nothing and gets nothing."""

    __slots__ = ("_budget", "_tenant", "_usage", "held_bytes")

    def __init__(self, budget: Budget | None, usage: Usage, tenant: str) -> None:
        self._budget = budget
        self._usage = usage
        self._tenant = tenant
        self.held_bytes = 0

    def __reduce__(self) -> tuple[type["Account"], tuple[None, Usage, str]]:
        """What is held is held in this process: a copy that goes to an assembler holds nothing."""
        return Account, (None, Usage(), "")

    @property
    def refused(self) -> bool:
        """Whether it can hold anything (it never will)."""
        return self._budget is None

    def has_room(self, more_bytes: int) -> bool:
        """Whether so many more bytes could be drawn."""
        return self._budget is not None and self._budget.refusal(self._usage, more_bytes) is None

    def draw(self, more_bytes: int, part: ShedPart) -> bool:
        """Hold so many more bytes. False, counted under ``part``: there is no room; nothing changes."""
        if self._budget is None:
            return False
        full = self._budget.refusal(self._usage, more_bytes)
        if full is not None:
            self._budget.shed[part, full] += 1
            return False
        self.take(more_bytes)
        return True

    def take(self, more_bytes: int) -> None:
        """Hold so many bytes more (or fewer) without asking: they are there already, or gone."""
        if self._budget is not None:
            self.held_bytes += more_bytes
            self._usage.bytes += more_bytes
            self._budget.used.bytes += more_bytes

    def close(self) -> None:
        """Give everything back. Closing again does nothing."""
        if self._budget is None:
            return
        self.take(-self.held_bytes)
        self._budget.forget(self._tenant)
        self._budget = None


def closed_account() -> Account:
    """The account of an exchange that keeps nothing, or is not counted."""
    return Account(None, Usage(), "")
