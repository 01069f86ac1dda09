"""The metrics of open exchanges: every row is there, and says what the parts say."""

import json

from prometheus_client import CollectorRegistry

from extproc.assemblers import Assembler
from extproc.budget import Budget, BudgetLimits, Scope, ShedPart
from extproc.captured import Instant
from extproc.checkpoints import Checkpointer
from extproc.open_metrics import OpenMetrics
from extproc.shelf import Shelf
from ingest_client.ledger import Ledger
from tests.unit.extproc.test_pipeline import CountingSink


def _metrics(budget: Budget) -> tuple[OpenMetrics, CollectorRegistry]:
    sink = CountingSink(Ledger())
    checkpointer = Checkpointer(checkpoints=sink, sink=sink, name=str, clock=lambda: Instant(0, 0))
    checkpointer.counters.written = 3
    metrics = OpenMetrics(budget, Shelf(None), Assembler(), checkpointer, waiting_bytes=lambda: 7)
    registry = CollectorRegistry()
    registry.register(metrics)
    return metrics, registry


def test_what_is_held_and_shed_is_shown_with_every_row_from_the_start() -> None:
    budget = Budget(BudgetLimits(max_bytes=100_000, max_exchanges=2, tenant_share=1.0))
    _, registry = _metrics(budget)
    for part in ShedPart:
        for scope in Scope:
            assert registry.get_sample_value("steno_shed_total", {"part": part, "scope": scope}) == 0
    account = budget.open("a")
    assert not account.draw(200_000, ShedPart.REQUEST)
    assert registry.get_sample_value("steno_held_bytes") == account.held_bytes
    assert registry.get_sample_value("steno_held_exchanges") == 1
    assert registry.get_sample_value("steno_waiting_bytes") == 7
    assert registry.get_sample_value("steno_shed_total", {"part": "request", "scope": "process"}) == 1
    assert registry.get_sample_value("steno_exchange_checkpoints_total", {"result": "written"}) == 3
    assert registry.get_sample_value("steno_assembler_events_total", {"result": "deaths"}) == 0


def test_the_state_page_names_the_tenants_that_hold_most_and_no_others() -> None:
    budget = Budget()
    for number in range(30):
        budget.open(f"tenant-{number}").take(number)
    metrics, registry = _metrics(budget)
    state = json.loads(json.dumps(metrics.state()))
    assert next(iter(state["tenants"])) == "tenant-29"
    assert len(state["tenants"]) == 10
    assert registry.get_sample_value("steno_held_tenants") == 30
    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    assert labels == {"part", "scope", "result"}
