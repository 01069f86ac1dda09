"""Playbooks for the matcher: what came in, which verdicts come out, and when."""

import pytest

from extproc.reconcile.entry import Served
from extproc.reconcile.matcher import EntryResult
from extproc.reconcile.summary import Durable
from tests.unit.extproc.reconcile.playbook import (
    BEGAN_S,
    GRACE_S,
    begun,
    captured,
    ended,
    fates,
    matcher,
    ns,
    served,
    verdicts,
)

LEFT = ("downstream_connection_termination",)


def test_a_turn_and_its_entry_are_matched_at_once() -> None:
    machine = matcher()
    captured(machine, 1)
    machine.entry(served(), ns(2))
    results = machine.tick(ns(2))
    assert (verdicts(results), fates(results)) == ([(1001.0, "matched")], [(1, "matched")])
    assert (machine.waiting_entries, machine.waiting_exchanges) == (0, 0)


def test_an_entry_that_comes_before_its_exchange_waits_for_it() -> None:
    machine = matcher()
    machine.entry(served(), ns(0))
    assert machine.tick(ns(29)) == []
    captured(machine, 1)
    assert verdicts(machine.tick(ns(29))) == [(1001.0, "matched")]


def test_an_entry_without_exchange_is_not_seen_after_the_grace_and_not_before() -> None:
    machine = matcher()
    machine.entry(served(), ns(0))
    assert machine.tick(ns(GRACE_S - 0.001)) == []
    assert verdicts(machine.tick(ns(GRACE_S))) == [(1001.0, "not_seen")]
    assert machine.tick(ns(1000)) == []


def test_an_exchange_without_entry_is_counted_after_the_grace() -> None:
    machine = matcher()
    captured(machine, 1)
    assert machine.tick(ns(1001 + GRACE_S - 0.001)) == []
    assert fates(machine.tick(ns(1001 + GRACE_S))) == [(1, "no_record")]


def test_an_exchange_that_stays_open_is_waited_for_without_end() -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    assert machine.tick(ns(10_000)) == []
    machine.entry(served(), ns(10_000))
    machine.ended(1, ended(1), ns(10_001))
    assert verdicts(machine.tick(ns(10_001))) == [(1001.0, "matched")]


def test_an_entry_whose_exchange_is_still_open_is_matched_after_the_grace() -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    machine.entry(served(), ns(0))
    assert verdicts(machine.tick(ns(GRACE_S))) == [(1001.0, "matched")]
    machine.ended(1, ended(1), ns(40))
    assert machine.tick(ns(1000)) == []


@pytest.mark.parametrize("skew_s", [-1.0, 1.0, 15.0])
def test_clocks_may_differ_by_a_second_and_streams_open_late(skew_s: float) -> None:
    machine = matcher()
    captured(machine, 1, start_s=1001 + skew_s)
    machine.entry(served(), ns(0))
    assert verdicts(machine.tick(ns(2000))) == [(1001.0, "matched")]


@pytest.mark.parametrize("offset_s", [-2.1, 20.1])
def test_an_exchange_outside_the_window_is_another_request(offset_s: float) -> None:
    machine = matcher()
    captured(machine, 1, start_s=1100 + offset_s)
    machine.entry(served(start_s=1100), ns(0))
    results = machine.tick(ns(2000))
    assert (verdicts(results), fates(results)) == ([(1100.0, "not_seen")], [(1, "no_record")])


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_of_three_requests_with_one_id_the_one_without_exchange_is_named(lost: int) -> None:
    """Retries a second apart, whose entries and exchanges all come before anything is due."""
    machine = matcher()
    for number in {0, 1, 2} - {lost}:
        captured(machine, number, start_s=1001 + number + 0.002)
    for number in (2, 0, 1):
        machine.entry(served(start_s=1001 + number), ns(5))
    expected = [(1001.0 + n, "not_seen" if n == lost else "matched") for n in (0, 1, 2)]
    assert verdicts(machine.tick(ns(5 + 1001 + GRACE_S))) == expected


def test_a_lost_request_does_not_take_the_exchange_of_its_retry() -> None:
    """The entry of the first comes alone and a second early; the retry's exchange is open by then."""
    machine = matcher()
    machine.begun(1, begun(1, start_s=1001.5))
    machine.entry(served(start_s=1001), ns(1))
    machine.ended(1, ended(1), ns(2))
    machine.entry(served(start_s=1001.5), ns(3))
    assert verdicts(machine.tick(ns(100))) == [(1001.0, "not_seen"), (1001.5, "matched")]


def test_the_same_entry_twice_uses_one_exchange_once() -> None:
    machine = matcher()
    machine.entry(served(), ns(0))
    machine.entry(served(), ns(0))
    captured(machine, 1)
    assert verdicts(machine.tick(ns(2000))) == [(1001.0, "matched"), (1001.0, "not_seen")]


def test_an_end_that_is_told_twice_changes_nothing() -> None:
    machine = matcher()
    captured(machine, 1)
    machine.entry(served(), ns(0))
    machine.ended(1, ended(1), ns(0))
    assert len(machine.tick(ns(2000))) == 2


def test_numbers_of_two_workers_do_not_meet() -> None:
    machine = matcher()
    captured(machine, 1, "a", source=1)
    captured(machine, 1, "b", source=2)
    machine.entry(served("a"), ns(0))
    machine.entry(served("b"), ns(0))
    assert verdicts(machine.tick(ns(0))) == [(1001.0, "matched")] * 2


def test_an_exchange_that_is_no_turn_leaves_the_matching() -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    machine.ended(1, ended(1, "non_turn_request", turn=False), ns(0))
    assert fates(machine.tick(ns(0))) == [(1, "not_a_turn")]


def test_what_a_dead_worker_had_on_disk_is_its_spools_to_count() -> None:
    machine = matcher()
    machine.begun(1, begun(1, "old", 1001))
    machine.begun(2, begun(1, "other worker", 1001))
    machine.durable(1, Durable(1))
    machine.begun(1, begun(2, "young", 1009))
    machine.worker_died(1, ns(10), outcome="crash")
    machine.entry(served("old", 1001), ns(11))
    machine.entry(served("young", 1009), ns(11))
    results = machine.tick(ns(11 + GRACE_S))
    assert verdicts(results) == [(1001.0, "matched"), (1009.0, "not_seen")]
    assert fates(results) == [(1, "matched"), (2, "not_durable")]
    assert machine.waiting_exchanges == 1


def test_what_began_before_this_process_is_not_called_lost() -> None:
    machine = matcher()
    machine.entry(served(start_s=BEGAN_S - 1), ns(0))
    assert verdicts(machine.tick(ns(2000))) == [(BEGAN_S - 1, "before_start")]


def test_where_a_worker_could_not_tell_nothing_is_called_lost() -> None:
    machine = matcher()
    machine.lines_missing(ns(1050), ns(1060))
    for start_s in (1020, 1055, 1070):
        machine.entry(served(f"r{start_s}", start_s), ns(0))
    assert verdicts(machine.tick(ns(2000))) == [
        (1020.0, "not_seen"),
        (1055.0, "lines_missing"),
        (1070.0, "not_seen"),
    ]


def test_what_no_provider_saw_is_not_lost_when_nobody_saw_it() -> None:
    machine = matcher()
    machine.entry(served(details="ext_authz_denied", status=403, forwarded=False), ns(0))
    assert verdicts(machine.tick(ns(2000))) == [(1001.0, "not_forwarded")]


def test_too_many_entries_are_decided_early_and_say_so() -> None:
    machine = matcher(max_waiting=2)
    for number in range(4):
        machine.entry(served(f"r{number}", 1001 + number), ns(0))
    assert verdicts(machine.tick(ns(0))) == [(1001.0, "overflow"), (1002.0, "overflow")]
    assert machine.waiting_entries == 2


def test_the_entry_of_an_exchange_that_was_dropped_is_not_called_lost() -> None:
    machine = matcher(max_waiting=2)
    for number in range(3):
        machine.begun(1, begun(number, f"r{number}", 1001 + number))
    machine.entry(served("r0", 1001), ns(0))
    results = machine.tick(ns(2000))
    assert (verdicts(results), fates(results)) == ([(1001.0, "overflow")], [(0, "overflow")])


@pytest.mark.parametrize("outcome", ["client_disconnect", "upstream_no_response", "missing_status"])
@pytest.mark.parametrize(
    ("entry", "seen_bytes", "verdict"),
    [
        (served(), 0, "not_captured"),
        (served(), 60, "not_captured"),
        (served(flags=LEFT), 0, "not_captured"),
        (served(flags=LEFT), 60, "matched"),
        (served(flags=LEFT, response_bytes=0, status=0), 0, "matched"),
        (served(status=502), 0, "matched"),
    ],
)
def test_a_stream_that_was_cut_on_its_way_to_the_worker_is_told_from_a_client_that_left(
    outcome: str, entry: Served, seen_bytes: int, verdict: str
) -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    machine.ended(1, ended(1, outcome, response_bytes=seen_bytes), ns(0))
    machine.entry(entry, ns(0))
    assert verdicts(machine.tick(ns(0))) == [(1001.0, verdict)]


def test_a_turn_that_was_kept_is_never_called_not_captured() -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    machine.ended(1, ended(1, "", response_bytes=0), ns(0))
    machine.entry(served(), ns(0))
    assert verdicts(machine.tick(ns(0))) == [(1001.0, "matched")]


def test_a_turn_of_which_bytes_are_missing_says_so() -> None:
    machine = matcher()
    machine.begun(1, begun(1))
    machine.ended(1, ended(1, response_bytes=99), ns(0))
    machine.entry(served(response_bytes=100), ns(0))
    (result,) = (each for each in machine.tick(ns(0)) if isinstance(each, EntryResult))
    assert result.short


def test_finishing_decides_everything_that_waits() -> None:
    machine = matcher()
    captured(machine, 1, "a")
    machine.entry(served("b"), ns(0))
    results = machine.finish()
    assert (verdicts(results), fates(results)) == ([(1001.0, "not_seen")], [(1, "no_record")])
