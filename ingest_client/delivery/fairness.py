"""Whose turn it is: round robin between tenants, weighed in bytes.

Deficit round robin in its surplus form: each round a tenant's credit grows by one
quantum; with credit it may send, whatever the size, and then owes the difference, so a
tenant of large turns waits more rounds than a tenant of small ones and nothing ever
has to be cut to a quantum. A tenant that floods costs the others one send of its own
per round, not its backlog.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MAX_DEBTORS: Final = 1024


@dataclass(slots=True)
class _Queue(Generic[T]):
    items: deque[tuple[int, T]] = field(default_factory=deque[tuple[int, T]])
    cost: int = 0
    credit: int = 0


class FairQueues(Generic[T]):
    """One queue per tenant, and a ring that says who is next. Bounded by its caller."""

    def __init__(self, quantum: int) -> None:
        """``quantum`` is what each tenant may spend per round, in the unit of the costs."""
        self._quantum = quantum
        self._queues: dict[str, _Queue[T]] = {}
        self._ring: deque[str] = deque()
        self._debts: dict[str, int] = {}
        self.items = 0
        self.cost = 0

    def push(self, tenant: str, item: T, cost: int) -> None:
        """Add to the end of the tenant's queue."""
        self._queue(tenant).items.append((cost, item))
        self._count(self._queues[tenant], 1, cost)

    def length(self, tenant: str) -> int:
        """How many items of this tenant wait."""
        queue = self._queues.get(tenant)
        return len(queue.items) if queue else 0

    def tenants(self) -> list[str]:
        """Those who wait, the next one first."""
        return list(self._ring)

    def next_tenant(self, may_send: Callable[[str], bool]) -> str | None:
        """The tenant whose turn it is, of those who may send now; None where none may.

        Tenants who may not send are passed over and gain nothing: a blocked tenant must
        not save up credit.
        """
        passed_over = 0
        while passed_over < len(self._ring):
            tenant = self._ring[0]
            if may_send(tenant):
                queue = self._queues[tenant]
                if queue.credit > 0:
                    return tenant
                queue.credit += self._quantum
                passed_over = 0
            else:
                passed_over += 1
            self._ring.rotate(-1)
        return None

    def take(
        self, tenant: str, max_items: int, max_cost: int, together: Callable[[T], bool]
    ) -> list[tuple[int, T]]:
        """Take from the front: at least one, then while both limits hold and the next one may go
        ``together`` with others. Spends the credit.
        """
        queue = self._queues[tenant]
        taken = [queue.items.popleft()]
        spent = taken[0][0]
        while queue.items and len(taken) < max_items:
            cost, item = queue.items[0]
            if spent + cost > max_cost or not together(item):
                break
            taken.append(queue.items.popleft())
            spent += taken[-1][0]
        queue.credit -= spent
        self._count(queue, -len(taken), -spent)
        self._leave_if_empty(tenant, queue)
        return taken

    def take_all(self, tenant: str) -> list[tuple[int, T]]:
        """Empty one tenant's queue without spending credit."""
        queue = self._queues.get(tenant)
        if queue is None:
            return []
        taken = list(queue.items)
        queue.items.clear()
        self._count(queue, -len(taken), -queue.cost)
        self._leave_if_empty(tenant, queue)
        return taken

    def peek(self, tenant: str) -> T:
        """The tenant's first item."""
        return self._queues[tenant].items[0][1]

    def _queue(self, tenant: str) -> _Queue[T]:
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = _Queue(credit=self._debts.pop(tenant, 0))
            self._ring.append(tenant)
        return queue

    def _count(self, queue: _Queue[T], items: int, cost: int) -> None:
        queue.cost += cost
        self.items += items
        self.cost += cost

    def _leave_if_empty(self, tenant: str, queue: _Queue[T]) -> None:
        """A tenant leaves the ring with its debt, never with credit; with the ring empty all is forgiven."""
        if queue.items:
            return
        del self._queues[tenant]
        self._ring.remove(tenant)
        if queue.credit < 0:
            self._debts[tenant] = queue.credit
        if not self._ring or len(self._debts) > _MAX_DEBTORS:
            self._debts.clear()
