"""Metrics of exchanges that are open or wait for the disk, read when scraped: what they hold, what was shed.

Tenants are no label here (their number has no bound); ``/state`` shows those that hold most.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from extproc.assemblers import Assembler
from extproc.budget import Budget, Scope, ShedPart
from extproc.checkpoints import Checkpointer
from extproc.shelf import Shelf

_SHOWN_TENANTS: Final = 10


class OpenMetrics:
    """The budget, the shelf, the assembler and the checkpoints of one worker."""

    def __init__(
        self,
        budget: Budget,
        shelf: Shelf,
        assembler: Assembler,
        checkpointer: Checkpointer,
        *,
        waiting_bytes: Callable[[], int],
    ) -> None:
        """``waiting_bytes`` says what ended turns hold that wait for the pipeline."""
        self._budget = budget
        self._shelf = shelf
        self._assembler = assembler
        self._checkpointer = checkpointer
        self._waiting_bytes = waiting_bytes

    def collect(self) -> Iterable[Metric]:
        """The families."""
        used, limits = self._budget.used, self._budget.limits
        for name, text, value in (
            ("held_bytes", "Memory that exchanges hold between reader and disk, about.", used.bytes),
            ("held_bytes_limit", "What they may hold together (memory_budget).", limits.max_bytes),
            (
                "held_exchanges",
                "Exchanges with a turn in them that are open or wait for disk.",
                used.exchanges,
            ),
            ("held_exchanges_limit", "How many there may be (open_exchanges).", limits.max_exchanges),
            ("held_tenants", "Tenants that have some.", len(self._budget.tenants)),
            (
                "waiting_bytes",
                "Bytes of ended turns that wait to be made (queue_bytes).",
                self._waiting_bytes(),
            ),
            ("shelf_bytes", "Disk that the requests of open exchanges take.", self._shelf.used_bytes),
            (
                "assembler_running",
                "1 while there is an assembler.",
                self._assembler.pid is not None,
            ),
        ):
            yield GaugeMetricFamily(f"steno_{name}", text, value=value)
        yield self._shed()
        yield _by_result(
            "steno_shelf_requests", "Large requests, by what became of them.", asdict(self._shelf.counters)
        )
        yield _by_result(
            "steno_assembler_events",
            "Assemblers (processes that make large turns) and their jobs.",
            asdict(self._assembler.counters),
        )
        yield _by_result(
            "steno_exchange_checkpoints",
            "Snapshots of open exchanges, by what became of them.",
            asdict(self._checkpointer.counters),
        )

    def state(self) -> dict[str, object]:
        """The same for ``/state``, with the tenants that hold most."""
        most = sorted(self._budget.tenants.items(), key=lambda item: item[1].bytes, reverse=True)
        return {
            **asdict(self._budget.used),
            "limits": asdict(self._budget.limits),
            "shed": {f"{part}/{scope}": count for (part, scope), count in sorted(self._budget.shed.items())},
            "tenants": {tenant: asdict(usage) for tenant, usage in most[:_SHOWN_TENANTS]},
            "shelf": {"bytes": self._shelf.used_bytes, **asdict(self._shelf.counters)},
            "assembler": {"pid": self._assembler.pid, **asdict(self._assembler.counters)},
        }

    def _shed(self) -> Metric:
        shed = CounterMetricFamily(
            "steno_shed",
            "Refusals for lack of room: what they cost, and whose bound it was.",
            labels=("part", "scope"),
        )
        for part in ShedPart:
            for scope in Scope:
                shed.add_metric([part.value, scope.value], self._budget.shed[part, scope])
        return shed


def _by_result(name: str, text: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=("result",))
    for result, count in counts.items():
        family.add_metric([result], count)
    return family
