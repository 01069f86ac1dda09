"""The durable ledger's own rules, without a spool around it."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ingest_client.spool.books import CLOSED, Life, still_open
from ingest_client.spool.opening import open_store
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.store import Store
from tests.unit.ingest_client.spool.parts import START

LIVES = 2_000
SETTLED = {"observed": 8, "delivered": 5, "upstream_status": 1, "client_disconnect": 1, "non_turn_request": 1}


def _with_many_lives(path: Path) -> Store:
    """A spool whose processes came and went for years; each settled all it had observed."""
    store = open_store(path, SpoolSettings())
    with store.transaction():
        lives = {number: Life(f"g{number}", 1, 2, CLOSED) for number in range(1, LIVES + 1)}
        for number in store.books.import_lives(lives, Life("stranger", 1, 2, CLOSED)).values():
            for term, n in SETTLED.items():
                store.books.count(number, term, n)
    return store


def _cpu_s(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def test_a_start_costs_one_look_at_each_life_there_was(tmp_path: Path) -> None:
    """Worker processes are replaced for years: a start that costs the square of their number takes minutes.

    The measure is a single pass over all counters, in the same run.
    """
    store = _with_many_lives(tmp_path / "spool.db")
    one_pass_s = min(_cpu_s(store.books.totals) for _ in range(5))

    def start() -> None:
        with store.transaction():
            assert store.begin("now", START) == 0

    assert _cpu_s(start) < 100 * one_pass_s
    assert store.books.totals() == {term: n * (LIVES + 1) for term, n in SETTLED.items()}
    store.close()


def test_the_terms_of_a_life_are_its_own_and_include_what_is_not_committed_yet(tmp_path: Path) -> None:
    store = _with_many_lives(tmp_path / "spool.db")
    with store.transaction():
        store.books.count(7, "observed", 2)
        store.books.count(7, "delivered", -5)
        assert store.books.of(7) == Counter({**SETTLED, "observed": 10, "delivered": 0})
        assert "delivered" not in store.books.of(7)
        assert still_open(store.books.of(7)) == 7
    assert store.books.of(8) == SETTLED
    assert store.books.of(LIVES + 9) == {}
    store.close()
