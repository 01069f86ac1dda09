"""A real spool on disk as delivery's queue, which also remembers what delivery said of every turn."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from capture.outcomes import Outcome, State
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record
from ingest_client.spool import Spool, SpoolSettings
from ingest_client.spool.api import AttemptRecord, Backlog, Claimed
from tests.patience import eventually


@dataclass(slots=True)
class Row:
    """A turn and its life so far."""

    turn: Record
    state: str = "pending"
    attempts: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    reason: str = ""


def _number(turn_id: str) -> int:
    return int(turn_id[-12:])


class KeptQueue:
    """Delivery's ``Queue``: every call goes to the spool."""

    def __init__(self, spool: Spool) -> None:
        self.rows: dict[int, Row] = {}
        """By the turn's number."""
        self._spool = spool
        self._claimed: dict[int, Row] = {}

    @staticmethod
    def turn(number: int, tenant: str = "a", size: int = 100) -> Record:
        """A turn, named by its number."""
        turn_id = f"0190b8a0-0000-7000-8000-{number:012d}"
        head = f'{{"meta":{{"request_id":"{turn_id}","tenant":"{tenant}"}},"pad":"'.encode()
        body = head + b"x" * max(0, size - len(head) - 2) + b'"}'
        return Record(turn_id=turn_id, tenant=tenant, body=body, created_at_ns=time.time_ns())

    async def put(self, turns: Iterable[Record]) -> None:
        """Let exchanges begin, and keep what became of them."""
        begun = list(turns)
        for each in begun:
            self.rows[_number(each.turn_id)] = Row(each)
            self._spool.ledger.observe()
        answers = await asyncio.gather(*map(self._spool.keep, begun))
        assert answers == [Kept()] * len(begun)

    def states(self) -> Counter[str]:
        """How many turns are in each state."""
        return Counter(row.state for row in self.rows.values())

    async def until(self, state: str, count: int, timeout_s: float = 20.0) -> None:
        """Return when ``count`` turns are in ``state``."""
        await eventually(lambda: self.states()[state] >= count, timeout_s)

    # The Queue.

    @property
    def backlog(self) -> Mapping[str, Backlog]:
        return self._spool.backlog

    async def wait_for_work(self) -> None:
        await self._spool.wait_for_work()

    async def claim(
        self,
        limit: int,
        max_bytes: int,
        now_ns: int,
        *,
        per_tenant: int,
        except_tenants: Collection[str] = (),
    ) -> list[Claimed]:
        claimed = await self._spool.claim(
            limit, max_bytes, now_ns, per_tenant=per_tenant, except_tenants=except_tenants
        )
        for each in claimed:
            row = self._claimed[each.seq] = self.rows[_number(each.turn_id)]
            assert row.state == "pending", f"turn {each.turn_id} was claimed while {row.state}"
            row.state = "claimed"
        return claimed

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        await self._spool.acknowledge(seqs)
        for seq in seqs:
            self._end(seq, "acknowledged")

    async def release(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self._end(seq, "pending")
        await self._spool.release(seqs)

    async def retry(self, seq: int, at_ns: int, attempt: AttemptRecord) -> None:
        self._end(seq, "pending").attempts.append(attempt)
        await self._spool.retry(seq, at_ns, attempt)

    async def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: AttemptRecord) -> None:
        await self._spool.dead_letter(seq, outcome, reason, attempt)
        row = self._end(seq, "dead_letter")
        row.attempts.append(attempt)
        row.reason = reason

    def _end(self, seq: int, state: str) -> Row:
        row = self._claimed.pop(seq)
        assert row.state == "claimed", f"turn {row.turn.turn_id} was settled twice: {row.state} then {state}"
        row.state = state
        return row


@asynccontextmanager
async def kept_queue(root: Path) -> AsyncGenerator[KeptQueue]:
    """A queue over a new spool. At the end the balance must hold, and say of every turn what delivery did;
    the next process must read the same from the disk.
    """
    # Without patience: many a test ends with its last acknowledgement.
    spool = await Spool.open(root, SpoolSettings(patience_s=0.0))
    queue = KeptQueue(spool)
    yield queue
    await spool.close(30.0)
    _assert_balance(spool.ledger, queue.states())
    again = await Spool.open(root)
    await again.close(30.0)
    _assert_balance(again.ledger, queue.states())


def _assert_balance(ledger: Ledger, states: Counter[str]) -> None:
    assert ledger.imbalance == 0
    assert ledger.observed == states.total()
    assert {state: ledger.total(state) for state in State if ledger.total(state)} == {
        state: n
        for state, n in (
            (State.SPOOLED, states["pending"] + states["claimed"]),
            (State.DELIVERED, states["acknowledged"]),
            (State.DEAD_LETTERED, states["dead_letter"]),
        )
        if n
    }
