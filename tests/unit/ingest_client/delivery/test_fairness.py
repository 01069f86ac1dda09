"""Round robin weighed in bytes: nobody starves, order within a tenant is kept."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.fairness import FairQueues


def anyone(_: str) -> bool:
    return True


def together(_: int) -> bool:
    return True


def filled(**backlog: list[int]) -> FairQueues[int]:
    queues: FairQueues[int] = FairQueues(quantum=100)
    for tenant, costs in backlog.items():
        for number, cost in enumerate(costs):
            queues.push(tenant, number, cost)
    return queues


def drain(queues: FairQueues[int], max_items: int = 1, max_cost: int = 10**9) -> list[tuple[str, int]]:
    served: list[tuple[str, int]] = []
    while (tenant := queues.next_tenant(anyone)) is not None:
        served += [(tenant, item) for _, item in queues.take(tenant, max_items, max_cost, together)]
    return served


def test_a_flood_costs_the_others_one_send_of_its_own_at_a_time() -> None:
    served = drain(filled(flood=[100] * 1000, quiet=[100] * 3))
    assert [place for place, (tenant, _) in enumerate(served) if tenant == "quiet"] == [1, 3, 5]


def test_large_turns_are_paid_for_in_rounds() -> None:
    """A tenant of ten times larger turns gets a tenth of the sends while both have some."""
    served = drain(filled(large=[1000] * 10, small=[100] * 100))
    first = Counter(tenant for tenant, _ in served[:55])
    assert first["small"] == 50
    assert first["large"] == 5


def test_a_batch_of_a_flood_is_followed_by_as_many_bytes_of_the_others() -> None:
    served = drain(filled(flood=[100] * 640, quiet=[100] * 20), max_items=64)
    assert served.index(("quiet", 19)) <= 64 + 20


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 1000), max_size=30)))
def test_everything_is_served_once_and_in_order(backlog: dict[str, list[int]]) -> None:
    queues = filled(**backlog)
    served = drain(queues, max_items=5, max_cost=2000)
    for tenant, costs in backlog.items():
        assert [item for who, item in served if who == tenant] == list(range(len(costs)))
    assert (queues.items, queues.cost, queues.tenants()) == (0, 0, [])


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(1, 300), min_size=20, max_size=40), min_size=2
    )
)
def test_while_all_have_turns_no_one_gets_ahead_by_more_than_a_round(backlog: dict[str, list[int]]) -> None:
    queues = filled(**backlog)
    spent: Counter[str] = Counter()
    while set(queues.tenants()) == set(backlog):
        tenant = queues.next_tenant(anyone)
        assert tenant is not None
        spent[tenant] += sum(cost for cost, _ in queues.take(tenant, 1, 10**9, together))
        assert max(spent.values()) - min(spent[who] for who in backlog) <= 2 * (100 + 300)


def test_who_may_not_send_is_passed_over_and_saves_up_nothing() -> None:
    queues = filled(blocked=[100] * 50, free=[100] * 50)
    for _ in range(20):
        tenant = queues.next_tenant(lambda who: who != "blocked")
        assert tenant == "free"
        queues.take(tenant, 1, 10**9, together)
    served = [tenant for tenant, _ in drain(queues)[:10]]
    assert served.count("blocked") <= 6


def test_nobody_may_send() -> None:
    assert filled(a=[1]).next_tenant(lambda _: False) is None
    assert filled().next_tenant(anyone) is None


def test_one_that_must_travel_alone_ends_a_batch_and_begins_its_own() -> None:
    queues = filled(a=[1] * 5)
    sizes: list[int] = []
    while (tenant := queues.next_tenant(anyone)) is not None:
        alone = queues.peek(tenant) == 2
        sizes.append(len(queues.take(tenant, 1 if alone else 64, 10**9, lambda item: item != 2)))
    assert sizes == [2, 1, 2]


def test_the_first_is_taken_whatever_its_size() -> None:
    queues = filled(a=[10**9, 1])
    assert queues.next_tenant(anyone) == "a"
    assert len(queues.take("a", 64, 100, together)) == 1


def test_taking_all_empties_one_tenant_alone() -> None:
    queues = filled(a=[1, 2], b=[3])
    assert [item for _, item in queues.take_all("a")] == [0, 1]
    assert (queues.tenants(), queues.cost, queues.take_all("nobody")) == (["b"], 3, [])
