"""Snapshots of open exchanges, and who finalises them.

A terminal status is written once. Mostly that is the removal of the row by ``keep`` or
``forget``; of an exchange that was handed out as interrupted while its process still lived, the
row stays as a tombstone, so that the exchange's own late end changes nothing.
"""

from collections.abc import Sequence
from typing import Final

from ingest_client.spool.api import Checkpoint
from ingest_client.spool.record import Damaged, Packer
from ingest_client.spool.sql import Connection, Value

IN_PROGRESS: Final = "in_progress"
COMPLETED: Final = "completed"
ERROR: Final = "error"
INTERRUPTED: Final = "interrupted"

TOMBSTONE_NS: Final = 3_600 * 10**9
"""How long a terminal status is remembered."""

_UPSERT: Final = (
    "INSERT INTO checkpoints VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(turn_id) DO UPDATE SET"
    " heartbeat_at_ns = excluded.heartbeat_at_ns, frame = excluded.frame WHERE status = 'in_progress'"
)


class CheckpointTable:
    """The table, and in memory which turn ids it has (with generation and status)."""

    def __init__(self, connection: Connection, packer: Packer, stale_after_s: float) -> None:
        """Read which exchanges have a snapshot."""
        self._connection = connection
        self._packer = packer
        self._stale_ns = int(stale_after_s * 1e9)
        self._known: dict[str, tuple[int, str]] = {}
        self._before: dict[str, tuple[int, str] | None] = {}
        self.taken: set[str] = set()
        self._taking: set[str] = set()
        for turn_id, generation, status in connection.execute(
            "SELECT turn_id, generation, status FROM checkpoints"
        ):
            self._known[str(turn_id)] = (generation if isinstance(generation, int) else 0, str(status))

    def committed(self) -> None:
        """The transaction stands."""
        self._before.clear()
        self._taking.clear()

    def rolled_back(self) -> None:
        """The transaction does not: know what was known before it."""
        for turn_id, known in self._before.items():
            if known is None:
                self._known.pop(turn_id, None)
            else:
                self._known[turn_id] = known
        self._before.clear()
        self.taken -= self._taking  # the answer was another one: nobody has them
        self._taking.clear()

    def _learn(self, turn_id: str, known: tuple[int, str] | None) -> None:
        self._before.setdefault(turn_id, self._known.get(turn_id))
        if known is None:
            self._known.pop(turn_id, None)
        else:
            self._known[turn_id] = known

    def save(self, snapshot: Checkpoint, generation: int) -> None:
        """Write the newest snapshot of an exchange that is still in progress."""
        frame = self._packer.pack(snapshot.turn_id, snapshot.tenant, snapshot.started_at_ns, snapshot.body)
        self._connection.execute(
            _UPSERT,
            (
                snapshot.turn_id,
                snapshot.tenant,
                snapshot.started_at_ns,
                snapshot.heartbeat_at_ns,
                IN_PROGRESS,
                generation,
                frame,
            ),
        )
        if snapshot.turn_id not in self._known:
            self._learn(snapshot.turn_id, (generation, IN_PROGRESS))

    def restore(self, row: Sequence[Value], generation: int) -> None:
        """Take over a row of another spool, unless the exchange is known here."""
        turn_id = str(row[0])
        if turn_id not in self._known:
            self._connection.execute(
                "INSERT OR IGNORE INTO checkpoints VALUES(?, ?, ?, ?, ?, ?, ?)",
                (*row[:5], generation, row[6]),
            )
            self._learn(turn_id, (generation, IN_PROGRESS))

    def generation_of(self, turn_id: str) -> int | None:
        """The generation that observed the exchange, if it has a snapshot."""
        known = self._known.get(turn_id)
        return known[0] if known else None

    def finished_before(self, turn_id: str) -> bool:
        """Whether a terminal status is already written."""
        known = self._known.get(turn_id)
        return known is not None and known[1] != IN_PROGRESS

    def finish(self, turn_id: str, generation: int, status: str = COMPLETED) -> None:
        """Write the end of an exchange: the row goes.

        Of one that was handed out while it belonged to this ``generation`` it becomes a tombstone instead.
        """
        known = self._known.get(turn_id)
        if known is None:
            return
        if turn_id in self.taken and known[0] == generation:
            status = INTERRUPTED if status == COMPLETED else status
            self._connection.execute(
                "UPDATE checkpoints SET status = ?, frame = x'' WHERE turn_id = ?", (status, turn_id)
            )
            self._learn(turn_id, (generation, status))
        else:
            self._connection.execute("DELETE FROM checkpoints WHERE turn_id = ?", (turn_id,))
            self._learn(turn_id, None)

    def interrupted(self, now_ns: int, generation: int, max_bytes: int) -> tuple[list[Checkpoint], list[str]]:
        """Snapshots that nobody living will finish, each once; and the ids of those too damaged to read.

        Bodies sum to at most ``max_bytes``, except that the first is given whatever its size. The rest
        stays on disk: a process that died of its memory must not do so again for what it left.
        """
        found: list[Checkpoint] = []
        damaged: list[str] = []
        rows = self._connection.execute(
            "SELECT turn_id, tenant, started_at_ns, heartbeat_at_ns FROM checkpoints"
            " WHERE status = 'in_progress' AND (generation <> ? OR heartbeat_at_ns <= ?)",
            (generation, now_ns - self._stale_ns),
        ).fetchall()
        room = max_bytes
        for turn_id, tenant, started, heartbeat in rows:
            name, started_at = str(turn_id), int(str(started))
            if name in self.taken:
                continue
            try:
                body = self._packer.unpack(self._frame(name), name, str(tenant), started_at)
            except Damaged:
                damaged.append(name)
                continue
            room -= len(body)
            if found and room < 0:
                break
            self._take(name)
            found.append(
                Checkpoint(
                    turn_id=name,
                    tenant=str(tenant),
                    started_at_ns=started_at,
                    heartbeat_at_ns=int(str(heartbeat)),
                    body=body,
                )
            )
        return found, damaged

    def give_back(self, turn_id: str) -> None:
        """Who was handed this snapshot could not keep it: hand it out again."""
        self.taken.discard(turn_id)

    def _frame(self, turn_id: str) -> bytes:
        row = self._connection.execute(
            "SELECT frame FROM checkpoints WHERE turn_id = ?", (turn_id,)
        ).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else b""

    def _take(self, turn_id: str) -> None:
        self.taken.add(turn_id)
        self._taking.add(turn_id)

    def open_by_generation(self) -> dict[int, int]:
        """How many exchanges in progress each generation left a snapshot of."""
        counts: dict[int, int] = {}
        for generation, status in self._known.values():
            if status == IN_PROGRESS:
                counts[generation] = counts.get(generation, 0) + 1
        return counts

    @property
    def has_tombstones(self) -> bool:
        """Whether some terminal status is still remembered."""
        return any(status != IN_PROGRESS for _, status in self._known.values())

    def bury(self, now_ns: int) -> None:
        """Remove tombstones that are old enough."""
        if not self.has_tombstones:
            return
        old = self._connection.execute(
            "DELETE FROM checkpoints WHERE status <> 'in_progress' AND heartbeat_at_ns < ? RETURNING turn_id",
            (now_ns - TOMBSTONE_NS,),
        ).fetchall()
        for row in old:
            self._learn(str(row[0]), None)
            self.taken.discard(str(row[0]))
