"""The budget: what is drawn is given back, a tenant leaves room for others, refusals are counted."""

import pickle
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from extproc.budget import BASE_BYTES, Account, Budget, BudgetLimits, Scope, ShedPart

LIMITS = BudgetLimits(max_bytes=100 * BASE_BYTES, max_exchanges=50, tenant_share=0.75)


def test_an_account_holds_what_it_draws_and_gives_everything_back() -> None:
    budget = Budget(LIMITS)
    account = budget.open("a")
    assert account.draw(1000, ShedPart.REQUEST)
    account.take(-400)
    assert (account.held_bytes, budget.used.bytes) == (BASE_BYTES + 600, BASE_BYTES + 600)
    account.close()
    account.close()
    assert (budget.used.bytes, budget.used.exchanges, dict(budget.tenants)) == (0, 0, {})


def test_a_closed_account_gets_nothing_and_counts_nothing() -> None:
    budget = Budget(LIMITS)
    account = budget.open("a")
    account.close()
    account.take(500)
    assert not account.draw(1, ShedPart.ANSWER)
    assert (budget.used.bytes, budget.shed) == (0, Counter())


def test_a_tenant_alone_may_take_its_share_and_a_newcomer_finds_room() -> None:
    budget = Budget(LIMITS)
    greedy, newcomer = budget.open("greedy"), budget.open("newcomer")
    while greedy.draw(BASE_BYTES, ShedPart.REQUEST):
        pass
    assert greedy.held_bytes == pytest.approx(0.75 * (LIMITS.max_bytes - BASE_BYTES), abs=BASE_BYTES)
    assert budget.shed == {(ShedPart.REQUEST, Scope.TENANT): 1}
    assert newcomer.draw(15 * BASE_BYTES, ShedPart.REQUEST)


def test_two_greedy_tenants_end_with_as_much() -> None:
    """Whoever came first gives nothing back, but the room beside both stays what a newcomer may take."""
    budget = Budget(LIMITS)
    both = [budget.open("a"), budget.open("b")]
    drawing = True
    while drawing:
        drew = [account.draw(BASE_BYTES // 4, ShedPart.ANSWER) for account in both]
        drawing = any(drew)
    assert both[0].held_bytes == pytest.approx(both[1].held_bytes, abs=BASE_BYTES)
    assert budget.used.bytes == pytest.approx(2 * 0.75 / 1.75 * LIMITS.max_bytes, rel=0.05)


def test_the_whole_process_has_a_bound_beside_the_tenants() -> None:
    budget = Budget(BudgetLimits(max_bytes=10 * BASE_BYTES, max_exchanges=50, tenant_share=1.0))
    assert not budget.open("a").draw(10 * BASE_BYTES, ShedPart.DOCUMENT)
    assert budget.shed == {(ShedPart.DOCUMENT, Scope.PROCESS): 1}


@pytest.mark.parametrize(("share", "scope"), [(1.0, Scope.PROCESS), (0.5, Scope.TENANT)])
def test_too_many_exchanges_are_refused_as_exchanges(share: float, scope: Scope) -> None:
    budget = Budget(BudgetLimits(max_bytes=1 << 30, max_exchanges=4, tenant_share=share))
    accounts = [budget.open("a") for _ in range(5)]
    assert [account.refused for account in accounts].count(True) == (1 if share == 1.0 else 3)
    assert set(budget.shed) == {(ShedPart.EXCHANGE, scope)}
    for account in accounts:
        account.close()
    assert budget.used.exchanges == 0
    assert not budget.open("a").refused


def test_a_copy_for_another_process_holds_nothing() -> None:
    budget = Budget(LIMITS)
    account = budget.open("a")
    copy: Account = pickle.loads(pickle.dumps(account))
    copy.close()
    assert copy.refused
    assert budget.used.bytes == BASE_BYTES


class Bookkeeping(RuleBasedStateMachine):
    """Any order of draws and returns: the sums are those of the accounts, and none is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(LIMITS)
        self.open: list[tuple[str, Account]] = []

    @rule(tenant=st.sampled_from(["a", "b", "c"]))
    def opened(self, tenant: str) -> None:
        account = self.budget.open(tenant)
        if not account.refused:
            self.open.append((tenant, account))

    @rule(which=st.integers(0, 60), more=st.integers(0, 40 * BASE_BYTES))
    def drawn(self, which: int, more: int) -> None:
        if self.open:
            account = self.open[which % len(self.open)][1]
            before, refusals = account.held_bytes, self.budget.shed.total()
            drawn = account.draw(more, ShedPart.REQUEST)
            assert account.held_bytes - before == (more if drawn else 0)
            assert self.budget.shed.total() - refusals == (not drawn)

    @rule(which=st.integers(0, 60), part=st.floats(0, 1))
    def given_back(self, which: int, part: float) -> None:
        if self.open:
            account = self.open[which % len(self.open)][1]
            account.take(-int(account.held_bytes * part))

    @rule(which=st.integers(0, 60))
    def closed(self, which: int) -> None:
        if self.open:
            self.open.pop(which % len(self.open))[1].close()

    @invariant()
    def sums_hold(self) -> None:
        used = self.budget.used
        assert used.bytes == sum(account.held_bytes for _, account in self.open)
        assert used.bytes == sum(usage.bytes for usage in self.budget.tenants.values())
        assert used.exchanges == len(self.open) == sum(u.exchanges for u in self.budget.tenants.values())
        assert used.bytes <= LIMITS.max_bytes
        assert all(usage.bytes >= 0 for usage in self.budget.tenants.values())

    def teardown(self) -> None:
        for _, account in self.open:
            account.close()
        assert (self.budget.used.bytes, self.budget.used.exchanges, dict(self.budget.tenants)) == (0, 0, {})


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
