"""The spool's ``Queue`` in memory: what delivery's tests and its benchmark take turns from."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capture.outcomes import Outcome
from ingest_client.spool.api import AttemptRecord, Backlog, Claimed
from tests.patience import eventually


@dataclass(slots=True)
class Row:
    """A turn and its life so far."""

    turn: Claimed
    at_ns: int = 0
    state: str = "pending"
    attempts: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    reason: str = ""


class MemoryQueue:
    """Keeps every row it ever had, so that a test can ask what became of each."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._pending: defaultdict[str, dict[int, Row]] = defaultdict(dict)
        self._pending_bytes: Counter[str] = Counter()
        self._work = asyncio.Event()
        self.acknowledged = 0
        self.claims = self.claimed = self.claimed_bytes = 0
        self.max_claimed = self.max_claimed_bytes = 0

    def put(self, turns: Iterable[Claimed]) -> None:
        for turn in turns:
            row = self.rows[turn.seq] = Row(turn)
            self._add(row)
        self._work.set()

    def turn(
        self, seq: int, tenant: str = "a", size: int = 100, *, created_at_ns: int | None = None
    ) -> Claimed:
        turn_id = f"0190b8a0-0000-7000-8000-{seq:012d}"
        head = f'{{"meta":{{"request_id":"{turn_id}","tenant":"{tenant}"}},"pad":"'.encode()
        body = head + b"x" * max(0, size - len(head) - 2) + b'"}'
        now_ns = time.time_ns() if created_at_ns is None else created_at_ns
        return Claimed(seq=seq, turn_id=turn_id, tenant=tenant, body=body, attempts=0, created_at_ns=now_ns)

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.rows.values():
            counts[row.state] = counts.get(row.state, 0) + 1
        return counts

    async def until(self, state: str, count: int, timeout_s: float = 20.0) -> None:
        """Return when ``count`` rows are in ``state``."""
        await eventually(lambda: self.states().get(state, 0) >= count, timeout_s)

    # The Queue.

    @property
    def backlog(self) -> Mapping[str, Backlog]:
        return {
            tenant: Backlog(len(rows), self._pending_bytes[tenant])
            for tenant, rows in self._pending.items()
            if rows
        }

    async def wait_for_work(self) -> None:
        while True:
            now_ns = time.time_ns()
            due = [row.at_ns for rows in self._pending.values() for row in rows.values()]
            if any(at_ns <= now_ns for at_ns in due):
                return
            self._work.clear()
            wait_s = (min(due) - now_ns) / 1e9 if due else None
            try:
                await asyncio.wait_for(self._work.wait(), wait_s)
            except TimeoutError:
                continue

    async def claim(
        self,
        limit: int,
        max_bytes: int,
        now_ns: int,
        *,
        per_tenant: int,
        except_tenants: Collection[str] = (),
    ) -> list[Claimed]:
        await asyncio.sleep(0)
        self.claims += 1
        taken: list[Row] = []
        size = 0
        for tenant, rows in self._pending.items():
            of_tenant = 0
            for row in rows.values() if tenant not in except_tenants else ():
                if len(taken) >= limit or of_tenant >= per_tenant:
                    break
                if taken and size + len(row.turn.body) > max_bytes:
                    break
                if row.at_ns <= now_ns:
                    taken.append(row)
                    size += len(row.turn.body)
                    of_tenant += 1
        for row in taken:
            del self._pending[row.turn.tenant][row.turn.seq]
            self._pending_bytes[row.turn.tenant] -= len(row.turn.body)
            row.state = "claimed"
        self.claimed += len(taken)
        self.claimed_bytes += size
        self.max_claimed = max(self.max_claimed, self.claimed)
        self.max_claimed_bytes = max(self.max_claimed_bytes, self.claimed_bytes)
        return [row.turn for row in taken]

    async def acknowledge(self, seqs: Sequence[int]) -> None:
        await asyncio.sleep(0)
        for seq in seqs:
            self._end(seq, "acknowledged")
        self.acknowledged += len(seqs)

    async def release(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self._again(self._end(seq, "pending"), 0)

    async def retry(self, seq: int, at_ns: int, attempt: AttemptRecord) -> None:
        row = self._end(seq, "pending")
        row.attempts.append(attempt)
        old = row.turn
        row.turn = Claimed(
            seq=old.seq,
            turn_id=old.turn_id,
            tenant=old.tenant,
            body=old.body,
            attempts=old.attempts + 1,
            created_at_ns=old.created_at_ns,
        )
        self._again(row, at_ns)

    async def dead_letter(self, seq: int, outcome: Outcome, reason: str, attempt: AttemptRecord) -> None:
        assert outcome is Outcome.INGEST_REJECT
        row = self._end(seq, "dead_letter")
        row.attempts.append(attempt)
        row.reason = reason

    def _end(self, seq: int, state: str) -> Row:
        row = self.rows[seq]
        assert row.state == "claimed", f"turn {seq} was settled twice: {row.state} then {state}"
        row.state = state
        self.claimed -= 1
        self.claimed_bytes -= len(row.turn.body)
        return row

    def _again(self, row: Row, at_ns: int) -> None:
        row.at_ns = at_ns
        self._add(row)
        self._work.set()

    def _add(self, row: Row) -> None:
        self._pending[row.turn.tenant][row.turn.seq] = row
        self._pending_bytes[row.turn.tenant] += len(row.turn.body)
