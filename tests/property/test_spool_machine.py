"""T8: the spool against a model that is a dictionary, with kills and power cuts at every step.

The model knows what was promised. After every crash the spool must hold exactly that; of a
transaction that was cut off, all or nothing. 20,000 steps run in CI; more by
``STENO_T8_EXAMPLES=4000 pytest tests/property/test_spool_machine.py``.
"""

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from capture.outcomes import Outcome
from ingest_client.sink import Kept, Quarantine
from ingest_client.spool.api import Checkpoint
from ingest_client.spool.desk import Desk
from ingest_client.spool.opening import open_store
from ingest_client.spool.settings import FullPolicy, SpoolSettings
from tests.chaos.disks import ForgetfulDisk
from tests.unit.ingest_client.spool.parts import SECOND, START, Tried, turn

EXAMPLES = int(os.environ.get("STENO_T8_EXAMPLES", "400"))
STEPS = 50
LARGE = 1 << 30
TENANTS = ("a", "b", "c")

pytestmark = pytest.mark.timeout(120 + EXAMPLES)


@dataclass
class Model:
    """What was promised: pending turns with body, attempts and due time; the other states by id."""

    pending: dict[str, tuple[str, bytes, int, int]] = field(
        default_factory=dict[str, tuple[str, bytes, int, int]]
    )
    dead: set[str] = field(default_factory=set[str])
    quarantined: set[str] = field(default_factory=set[str])
    checkpoints: dict[str, bytes] = field(default_factory=dict[str, bytes])
    terms: Counter[str] = field(default_factory=Counter[str])

    def copy(self) -> "Model":
        return Model(
            dict(self.pending),
            set(self.dead),
            set(self.quarantined),
            dict(self.checkpoints),
            Counter(self.terms),
        )


class SpoolMachine(RuleBasedStateMachine):
    """Rules are what processes do to a spool; ``crash`` and ``power_cut`` may come at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.db"
        self.disk = ForgetfulDisk()
        self.model = Model()
        self.claimed: dict[int, str] = {}
        self.number = 0
        self.generation = 0
        self.now_ns = START
        self.settings = SpoolSettings(quota_age_s=0)

    @initialize(policy=st.sampled_from(list(FullPolicy)), level=st.sampled_from([0, 1]))
    def begin(self, policy: FullPolicy, level: int) -> None:
        self.settings = SpoolSettings(quota_age_s=0, full_policy=policy, zstd_level=level)
        self.open()

    def open(self) -> None:
        """A new process. What the dead one had open without a snapshot is lost in the crash."""
        self.store = open_store(self.path, self.settings, vfs=self.disk.name)
        self.desk = Desk(self.store)
        self.claimed.clear()
        self.generation += 1
        with self.store.transaction():
            self.store.begin(f"g{self.generation}", self.now_ns)
        terms = self.model.terms
        lost = terms["observed"] - sum(terms.values()) + terms["observed"] - len(self.model.checkpoints)
        if lost:
            terms["crash"] += lost

    def change(self, act: Callable[[], None], apply: Callable[[Model], None]) -> None:
        """One transaction. If the power goes within it, the next boot decides: all or nothing."""
        after = self.model.copy()
        apply(after)
        try:
            with self.store.transaction():
                act()
        except apsw.Error:
            assert self.disk.dead
            self.reboot()
            self.adopt_whichever(self.model, after)
        else:
            self.model = after

    def adopt_whichever(self, before: Model, after: Model) -> None:
        """Open after a cut within a transaction, and learn which of the two it was."""
        for model in (after, before):
            self.model = model.copy()
            self.store = open_store(self.path, self.settings, vfs=self.disk.name)
            found = self.read()
            self.store.close()
            if found == self.expected():
                self.open()
                return
        raise AssertionError(f"neither all nor nothing: {found}")

    def expected(self) -> tuple[object, ...]:
        model = self.model
        return (
            {name: (tenant, body, tries, due) for name, (tenant, body, tries, due) in model.pending.items()},
            model.dead,
            model.quarantined,
            model.checkpoints,
            {term: n for term, n in model.terms.items() if n},
        )

    def read(self) -> tuple[object, ...]:
        """Everything the store holds, each record checked."""
        pending: dict[str, tuple[str, bytes, int, int]] = {}
        others: dict[str, set[str]] = {"dead_letter": set(), "quarantined": set()}
        for row in self.store.rows("SELECT * FROM turns"):
            assert row.intact
            body = self.store.body(row)
            if row.state == "pending":
                pending[row.turn_id] = (row.tenant, body, row.attempts, row.due_at_ns)
            else:
                others[row.state].add(row.turn_id)
        snapshots = {
            str(name): self.store.packer.unpack(bytes(frame), str(name), str(tenant), int(str(at)))
            for name, tenant, at, frame in self.store.connection.execute(
                "SELECT turn_id, tenant, started_at_ns, frame FROM checkpoints WHERE status = 'in_progress'"
            )
            if isinstance(frame, bytes)
        }
        return (
            pending,
            others["dead_letter"],
            others["quarantined"],
            snapshots,
            dict(self.store.books.totals()),
        )

    def reboot(self) -> None:
        self.store.close()
        self.disk = self.disk.power_cut(random.Random(self.number))

    # What processes do

    @rule(
        tenant=st.sampled_from(TENANTS),
        size=st.sampled_from([1, 300, 5_000, 30_000]),
        count=st.integers(1, 3),
        quarantine=st.sampled_from([False, False, False, True]),
    )
    def keep(self, tenant: str, size: int, count: int, quarantine: bool) -> None:
        names = [f"t{self.number + i}" for i in range(count)]
        self.number += count
        why = Quarantine(outcome=Outcome.MARSHAL_ERROR, reason="r") if quarantine else None

        def act() -> None:
            self.store.note({"observed": count})
            for name in names:
                body = random.Random(name).randbytes(size)
                answer = self.store.keep(turn(name, tenant=tenant, body=body, quarantine=why))
                assert answer == Kept()

        def apply(model: Model) -> None:
            model.terms["observed"] += count
            for name in names:
                if quarantine:
                    model.quarantined.add(name)
                    model.terms["marshal_error"] += 1
                else:
                    model.pending[name] = (tenant, random.Random(name).randbytes(size), 0, 0)
                    model.terms["spooled"] += 1

        self.change(act, apply)

    @rule(limit=st.integers(1, 8), per_tenant=st.integers(1, 4))
    def claim(self, limit: int, per_tenant: int) -> None:
        """Nothing is given twice, nothing before its time, nothing altered."""
        turns, damaged = self.desk.claim(limit, LARGE, self.now_ns, per_tenant, ())
        assert damaged == 0
        assert len(turns) <= limit
        for each in turns:
            tenant, body, tries, due = self.model.pending[each.turn_id]
            assert (each.tenant, each.body, each.attempts) == (tenant, body, tries)
            assert due <= self.now_ns
            assert each.turn_id not in self.claimed.values()
            self.claimed[each.seq] = each.turn_id
        assert all(n <= per_tenant for n in Counter(each.tenant for each in turns).values())
        unclaimed = [
            name
            for name, (_, _, _, due) in self.model.pending.items()
            if due <= self.now_ns and name not in self.claimed.values()
        ]
        assert turns or not unclaimed

    @precondition(lambda self: self.claimed)
    @rule(count=st.integers(1, 4))
    def acknowledge(self, count: int) -> None:
        seqs = list(self.claimed)[:count]
        names = [self.claimed.pop(seq) for seq in seqs]

        def apply(model: Model) -> None:
            for name in names:
                del model.pending[name]
            model.terms["spooled"] -= len(names)
            model.terms["delivered"] += len(names)

        self.change(lambda: self.store.acknowledge(seqs), apply)

    @precondition(lambda self: self.claimed)
    @rule(delay_s=st.sampled_from([1, 30, 3_600]))
    def retry(self, delay_s: int) -> None:
        seq, name = self.claimed.popitem()
        due = self.now_ns + delay_s * SECOND
        tries = self.model.pending[name][2] + 1

        def apply(model: Model) -> None:
            tenant, body, _, _ = model.pending[name]
            model.pending[name] = (tenant, body, tries, due)

        self.change(lambda: self.desk.retry(seq, due, Tried(tries)), apply)

    @precondition(lambda self: self.claimed)
    @rule()
    def dead_letter(self) -> None:
        seq, name = self.claimed.popitem()

        def apply(model: Model) -> None:
            del model.pending[name]
            model.dead.add(name)
            model.terms["spooled"] -= 1
            model.terms["ingest_reject"] += 1

        self.change(lambda: self.desk.dead_letter(seq, Outcome.INGEST_REJECT, "422", Tried(1, "422")), apply)

    @precondition(lambda self: self.claimed)
    @rule()
    def release(self) -> None:
        seq, _ = self.claimed.popitem()
        self.change(lambda: self.desk.release([seq]), lambda _: None)

    @rule(size=st.sampled_from([1, 4_000]))
    def checkpoint(self, size: int) -> None:
        name = f"t{self.number}"
        self.number += 1
        body = random.Random(name).randbytes(size)

        def act() -> None:
            self.store.note({"observed": 1})
            self.desk.checkpoint(
                Checkpoint(
                    turn_id=name, tenant="a", started_at_ns=START, heartbeat_at_ns=self.now_ns, body=body
                )
            )

        def apply(model: Model) -> None:
            model.terms["observed"] += 1
            model.checkpoints[name] = body

        self.change(act, apply)

    @precondition(lambda self: self.model.checkpoints)
    @rule()
    def keep_checkpointed(self) -> None:
        """The turn of an exchange with a snapshot, finished by its own process or by a later one."""
        name = next(iter(self.model.checkpoints))

        def apply(model: Model) -> None:
            del model.checkpoints[name]
            model.pending[name] = ("a", b"{}", 0, 0)
            model.terms["spooled"] += 1

        def act() -> None:
            assert self.store.keep(turn(name, body=b"{}")) == Kept()

        self.change(act, apply)

    @rule()
    def wal_checkpoint(self) -> None:
        """Moving the log into the database changes nothing that was promised."""
        try:
            self.store.connection.wal_checkpoint()
        except apsw.Error:
            assert self.disk.dead
            self.reboot()
            self.open()

    @rule(seconds=st.sampled_from([1, 40, 5_000]))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND

    # What happens to them

    @rule()
    def crash(self) -> None:
        """kill -9: what was written is there, synced or not."""
        self.store.close()
        self.disk = self.disk.crash()
        self.open()

    @rule()
    def power_cut(self) -> None:
        """What was not synced is gone, in part or whole."""
        self.reboot()
        self.open()

    @rule(changes=st.integers(0, 30))
    def power_will_go(self, changes: int) -> None:
        """In the midst of whatever comes next."""
        self.disk.cut_after = changes

    @invariant()
    def holds_what_was_promised(self) -> None:
        if self.generation and not self.disk.dead:
            assert self.read() == self.expected()

    def teardown(self) -> None:
        if self.generation:
            self.store.close()
        self.disk.unregister()
        self.folder.cleanup()


SpoolMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSpoolMachine = SpoolMachine.TestCase
