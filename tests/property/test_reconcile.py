"""Every served request and every exchange get exactly one verdict, whatever comes in which order."""

import random
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.reconcile.assignment import EARLY_NS, LATE_NS, assign
from extproc.reconcile.matcher import EntryResult, ExchangeResult, Fate, Matcher, Result, Verdict
from tests.unit.extproc.reconcile.playbook import BEGAN_S, begun, ended, matcher, ns, served


@dataclass(frozen=True)
class Request:
    """One request: what of it reaches the supervisor, and how late (s)."""

    request_id: str
    start_s: float
    duration_s: float
    recorded: bool
    seen: bool
    skew_s: float
    begun_late_s: float
    ended_late_s: float
    entry_late_s: float


_requests = st.lists(
    st.builds(
        Request,
        request_id=st.sampled_from(["", "a", "b", "c"]),
        start_s=st.floats(BEGAN_S, BEGAN_S + 120),
        duration_s=st.floats(0, 60),
        recorded=st.booleans(),
        seen=st.booleans(),
        skew_s=st.floats(-1, 1),
        begun_late_s=st.floats(0, 14),
        ended_late_s=st.floats(0, 16),
        entry_late_s=st.floats(0, 5),
    ),
    max_size=25,
)


def run(requests: list[Request], machine: Matcher) -> list[Result]:
    """Feed everything at its moment, with a tick each second, and then until nothing waits."""
    events: list[tuple[float, int, int]] = []
    for number, each in enumerate(requests):
        opened = each.start_s + each.begun_late_s
        over = each.start_s + each.duration_s
        if each.seen:
            events += [(opened, 0, number), (max(opened, over + each.ended_late_s), 1, number)]
        if each.recorded:
            events.append((over + each.entry_late_s, 2, number))
    events += [(second, 3, 0) for second in range(BEGAN_S, BEGAN_S + 300)]
    results: list[Result] = []
    for moment, kind, number in sorted(events):
        match kind:
            case 0:
                each = requests[number]
                machine.begun(1, begun(number, each.request_id, moment + each.skew_s))
            case 1:
                machine.ended(1, ended(number), ns(moment))
            case 2:
                each = requests[number]
                machine.entry(served(each.request_id, each.start_s, path=f"/{number}"), ns(moment))
            case _:
                results += machine.tick(ns(moment))
    return results


def by_entry(results: list[Result]) -> Counter[str]:
    """How many verdicts each entry got: entries carry their number as path."""
    return Counter(each.served.path for each in results if isinstance(each, EntryResult))


@given(_requests)
@settings(deadline=None)
def test_every_request_and_every_exchange_get_exactly_one_verdict(requests: list[Request]) -> None:
    """And matched pairs are pairs: as many entries as exchanges, each used once, with one id."""
    machine = matcher()
    results = run(requests, machine)
    entries = {f"/{number}": 1 for number, each in enumerate(requests) if each.recorded}
    exchanges = {number: 1 for number, each in enumerate(requests) if each.seen}
    assert by_entry(results) == entries
    assert Counter(each.exchange.number for each in results if isinstance(each, ExchangeResult)) == exchanges
    paired = [
        (each.served.request_id, each.exchange)
        for each in results
        if isinstance(each, EntryResult) and each.verdict is Verdict.MATCHED
    ]
    matched = [
        each.exchange for each in results if isinstance(each, ExchangeResult) and each.fate is Fate.MATCHED
    ]
    assert sorted(each.number for each in matched) == sorted(each.number for _, each in paired if each)
    assert all(found is not None and found.request_id == request_id for request_id, found in paired)
    verdicts = {each.verdict for each in results if isinstance(each, EntryResult)}
    assert verdicts <= {Verdict.MATCHED, Verdict.NOT_SEEN}
    assert (machine.waiting_entries, machine.waiting_exchanges) == (0, 0)


@given(_requests, st.integers(1, 5))
@settings(deadline=None)
def test_with_little_memory_still_exactly_one_verdict_each(requests: list[Request], room: int) -> None:
    """Nothing that overflow may have hidden is called lost for want of its exchange."""
    machine = matcher(max_waiting=room)
    results = run(requests, machine)
    assert by_entry(results) == {f"/{number}": 1 for number, each in enumerate(requests) if each.recorded}
    counted = Counter(each.exchange.number for each in results if isinstance(each, ExchangeResult))
    assert counted == {number: 1 for number, each in enumerate(requests) if each.seen}


_moments = st.lists(st.integers(0, 60 * 10**9), max_size=12).map(sorted)


@given(_moments, _moments)
def test_the_closest_assignment_pairs_as_many_as_the_first_come_one(
    entries: list[int], exchanges: list[int]
) -> None:
    """Which has as many pairs as can be, on windows of equal length."""
    pairs = assign(entries, exchanges)
    assert len(pairs) == _most_pairs(entries, exchanges)
    assert len(set(pairs.values())) == len(pairs)
    assert all(-EARLY_NS <= exchanges[j] - entries[i] <= LATE_NS for i, j in pairs.items())


@given(st.integers(65, 90), st.integers(65, 90), st.randoms(use_true_random=False))
def test_a_crowd_is_paired_as_fully_as_can_be(n: int, m: int, dice: random.Random) -> None:
    """Both lists are long enough for the quick way."""
    entries = sorted(dice.randrange(100 * 10**9) for _ in range(n))
    exchanges = sorted(dice.randrange(100 * 10**9) for _ in range(m))
    pairs = assign(entries, exchanges)
    assert len(pairs) == _most_pairs(entries, exchanges)
    assert all(-EARLY_NS <= exchanges[j] - entries[i] <= LATE_NS for i, j in pairs.items())


def _most_pairs(entries: list[int], exchanges: list[int]) -> int:
    """By augmenting paths: another algorithm, which knows nothing of order."""
    owner: dict[int, int] = {}

    def find(i: int, tried: set[int]) -> bool:
        for j, began in enumerate(exchanges):
            if j in tried or not -EARLY_NS <= began - entries[i] <= LATE_NS:
                continue
            tried.add(j)
            if j not in owner or find(owner[j], tried):
                owner[j] = i
                return True
        return False

    return sum(find(i, set()) for i in range(len(entries)))


def precision(seed: int, *, spread_s: float) -> tuple[int, int]:
    """Of requests that retry under one id, a tenth unseen: how many verdicts name the right one.

    Returns the entries and the right verdicts. ``spread_s``: a retry begins so long after, at most.
    """
    dice = random.Random(seed)
    requests: list[Request] = []
    for conversation in range(300):
        start_s = BEGAN_S + dice.uniform(0, 60)
        for _ in range(dice.choice((1, 2, 3, 4))):
            late_s = abs(dice.gauss(0.002, 0.005))
            requests.append(
                Request(
                    f"id{conversation}", start_s, dice.uniform(0.1, 20), True, dice.random() > 0.1,
                    0.0, late_s, dice.uniform(0, 0.01), dice.uniform(0, 1),
                )
            )  # fmt: skip
            start_s += dice.uniform(0.05, spread_s)
    results = run(requests, matcher(max_waiting=100_000))
    right = sum(
        (each.verdict is Verdict.MATCHED) == requests[int(each.served.path[1:])].seen
        for each in results
        if isinstance(each, EntryResult)
    )
    missing = sum(not each.seen for each in requests)
    named = sum(isinstance(each, EntryResult) and each.verdict is Verdict.NOT_SEEN for each in results)
    assert named == missing, "the count is exact, whichever of the namesakes is named"
    return len(requests), right


def test_of_requests_that_share_ids_the_right_ones_are_named() -> None:
    """Retries within half a second to five: at least 99.5 in a hundred verdicts fall on the right one."""
    for spread_s in (0.5, 5.0):
        entries, right = precision(7, spread_s=spread_s)
        assert right >= 0.995 * entries, f"{right} of {entries} within {spread_s} s"
