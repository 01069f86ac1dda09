"""Merged metrics: counters go on over all lives of a worker, and the ledger over all spools."""

from collections import Counter as Count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from capture.outcomes import Outcome, State
from extproc.merge import LEDGER, WORST, MergedMetrics, Process
from extproc.metrics import WorkerMetrics
from extproc.transport.base import TransportCounters
from ingest_client.ledger import Ledger
from tests.paths import PROJECT

REFERENCE = PROJECT / "docs" / "reference.md"
OLD, NEW, OTHER = (0, 1), (0, 2), (1, 1)


def page(*, messages: int = 0, observed: int = 0, lag_s: float = 0.0, turn_s: float | None = None) -> str:
    """What a worker's page is made of, in small."""
    registry = CollectorRegistry()
    Counter("steno_extproc_messages", "M.", registry=registry).inc(messages)
    Counter("steno_exchanges_observed", "O.", registry=registry).inc(observed)
    Gauge("steno_exchanges", "E.", ("state",), registry=registry).labels("delivered").set(observed)
    Gauge("steno_extproc_streams_open", "S.", registry=registry).set(messages)
    Gauge("steno_loop_lag_worst_seconds", "L.", registry=registry).set(lag_s)
    turns = Histogram("steno_turn_duration_seconds", "T.", buckets=(1.0,), registry=registry)
    if turn_s is not None:
        turns.observe(turn_s)
    return generate_latest(registry).decode()


def samples(text: bytes) -> dict[str, float]:
    """The samples of a page by name and worker (where there is one)."""
    return {
        f"{sample.name}/{sample.labels['worker']}" if "worker" in sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.labels.get("le", "+Inf") == "+Inf"
    }


@pytest.mark.parametrize("cut", [0, 100, 300])
def test_a_last_page_that_a_full_disk_has_cut_counts_as_none(cut: int) -> None:
    """What the process showed before stands."""
    merged = MergedMetrics(durable=True)
    merged.render({OLD: page(messages=2)})
    merged.ended(OLD, page(messages=3)[:cut] + ("steno_extproc{" if cut else ""))
    assert samples(merged.render({}))["steno_extproc_messages_total/0"] == 2


def test_workers_are_told_apart_by_a_label_and_the_ledger_is_the_sidecars() -> None:
    merged = MergedMetrics(durable=True)
    found = samples(merged.render({OLD: page(messages=2, observed=5), OTHER: page(messages=3, observed=7)}))
    assert (found["steno_extproc_messages_total/0"], found["steno_extproc_messages_total/1"]) == (2, 3)
    assert (found["steno_exchanges_observed_total"], found["steno_exchanges"]) == (12, 12)


def test_two_generations_of_a_worker_are_summed_but_of_conditions_the_worst_stands() -> None:
    merged = MergedMetrics(durable=True)
    found = samples(
        merged.render(
            {OLD: page(messages=2, lag_s=0.5, turn_s=3), NEW: page(messages=3, lag_s=0.1, turn_s=4)}
        )
    )
    assert found["steno_extproc_messages_total/0"] == 5
    assert found["steno_extproc_streams_open/0"] == 5
    assert found["steno_loop_lag_worst_seconds/0"] == 0.5
    assert found["steno_turn_duration_seconds_count/0"] == 2
    assert found["steno_turn_duration_seconds_sum/0"] == 7


def test_what_a_process_counted_to_its_end_is_carried_along_and_its_gauges_are_not() -> None:
    merged = MergedMetrics(durable=True)
    merged.render({OLD: page(messages=10, turn_s=1)})
    merged.ended(OLD, page(messages=14, turn_s=1, lag_s=0.7))
    found = samples(merged.render({NEW: page(messages=1, turn_s=2, lag_s=0.1)}))
    assert found["steno_extproc_messages_total/0"] == 15
    assert found["steno_turn_duration_seconds_count/0"] == 2
    assert (found["steno_extproc_streams_open/0"], found["steno_loop_lag_worst_seconds/0"]) == (1, 0.1)


def test_of_a_process_that_was_killed_the_numbers_it_showed_last_stand() -> None:
    merged = MergedMetrics(durable=True)
    merged.render({OLD: page(messages=10)})
    merged.ended(OLD, None)
    assert samples(merged.render({NEW: page(messages=1)}))["steno_extproc_messages_total/0"] == 11


def test_a_process_that_does_not_answer_for_once_takes_nothing_back() -> None:
    merged = MergedMetrics(durable=True)
    merged.render({OLD: page(messages=10, observed=4)})
    found = samples(merged.render({}))
    assert (found["steno_extproc_messages_total/0"], found["steno_exchanges_observed_total"]) == (10, 4)
    assert "steno_loop_lag_worst_seconds/0" not in found


def test_the_ledger_waits_for_a_spools_new_owner_and_counts_nothing_twice() -> None:
    """The old process has ended; the new one has not adopted its spool, then it has."""
    merged = MergedMetrics(durable=True)
    merged.render({OLD: page(observed=100), NEW: page(observed=3)})
    merged.ended(OLD, page(observed=100))
    assert samples(merged.render({NEW: page(observed=5)}))["steno_exchanges_observed_total"] == 103
    assert samples(merged.render({NEW: page(observed=108)}))["steno_exchanges_observed_total"] == 108


def test_a_ledger_in_memory_alone_is_carried_whole() -> None:
    merged = MergedMetrics(durable=False)
    merged.ended(OLD, _page_of(Ledger(observed=100, delivered=100)))
    found = merged.render({NEW: _page_of(Ledger(observed=5, delivered=5))}).decode()
    assert _value(found, "steno_exchanges_observed_total") == 105
    assert _value(found, "steno_exchanges", state=State.DELIVERED) == 105


COUNTS = st.integers(0, 50)


@settings(deadline=None, max_examples=30)  # a page takes milliseconds to read
@given(
    still_open=COUNTS, spooled=COUNTS, delivered=COUNTS, excluded=COUNTS, later=COUNTS, durable=st.booleans()
)
def test_a_killed_process_takes_what_it_had_in_memory_alone_with_it(
    still_open: int, spooled: int, delivered: int, excluded: int, later: int, *, durable: bool
) -> None:
    """``lost(crash)``, and the balance holds. On disk it waits for who adopts the spool."""
    dead = Ledger(
        still_open + spooled + delivered + excluded, still_open, spooled, delivered,
        Count({Outcome.POLICY: excluded}),
    )  # fmt: skip
    assert dead.imbalance == 0
    merged = MergedMetrics(durable=durable)
    merged.render({OLD: _page_of(dead)})
    gone = 0 if durable else still_open + spooled
    assert merged.ended(OLD, None) == gone
    page = merged.render({NEW: _page_of(Ledger(later, later))}).decode()
    assert _value(page, "steno_ledger_imbalance") == 0
    assert _value(page, "steno_exchanges", state=State.OPEN) == later
    assert _value(page, "steno_exchanges", state=State.SPOOLED) == 0
    assert _value(page, "steno_exchanges", state=State.LOST) == gone
    assert _value(page, "steno_exchange_outcomes", outcome=Outcome.CRASH) == gone
    if not durable:
        assert _value(page, "steno_exchanges", state=State.DELIVERED) == delivered
        assert _value(page, "steno_exchange_outcomes") == excluded + gone
        assert _value(page, "steno_exchanges_observed_total") == dead.observed + later


def test_of_a_process_that_stopped_in_good_order_nothing_is_lost() -> None:
    """Its last page says itself what became of everything."""
    ledger = Ledger(observed=3, spooled=1, delivered=2)
    assert ledger.discard() == 1
    merged = MergedMetrics(durable=False)
    assert merged.ended(OLD, _page_of(ledger)) == 0
    page = merged.render({}).decode()
    assert _value(page, "steno_exchanges", state=State.LOST) == 1
    assert _value(page, "steno_exchange_outcomes", outcome=Outcome.CRASH) == 0
    assert _value(page, "steno_exchange_outcomes", outcome=Outcome.VOLUME_DISCARDED) == 1


def _page_of(ledger: Ledger) -> str:
    """A worker's own page."""
    return WorkerMetrics(ledger, TransportCounters).render().decode()


def _value(page: str, name: str, **labels: str) -> float:
    """The sum of a page's samples of that name with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


LIFE = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6)


@settings(deadline=None, max_examples=60)  # a page takes milliseconds to read
@given(lives=st.lists(LIFE, min_size=1, max_size=5), tells=st.booleans())
def test_no_counter_ever_goes_backwards(lives: list[list[tuple[int, bool]]], tells: bool) -> None:
    """Whatever processes count, whenever they answer, and whether they can say a last word."""
    merged, shown, total = MergedMetrics(durable=True), 0.0, 0
    for number, life in enumerate(lives, 1):
        process: Process = (0, number)
        count = 0
        for more, answers in life:
            count += more
            pages: dict[Process, str] = {process: page(messages=count)} if answers else {}
            now = samples(merged.render(pages)).get("steno_extproc_messages_total/0", 0.0)
            assert now >= shown
            shown = now
        merged.ended(process, page(messages=count) if tells else None)
        total += count
        now = samples(merged.render({})).get("steno_extproc_messages_total/0", 0.0)
        assert now >= shown
        assert now == total or not tells
        shown = now


def test_the_families_that_are_merged_in_a_way_of_their_own_exist() -> None:
    """A name that is mistyped, or renamed in the metrics, would be merged like any other."""
    reference = REFERENCE.read_text()
    gauges = WORST | (LEDGER - {"steno_exchanges_observed"})
    assert [name for name in sorted(gauges) if f"| `{name}` | gauge |" not in reference] == []
    assert "| `steno_exchanges_observed_total` | counter |" in reference
