"""The durable ledger: counters per process generation, moved in the transactions that move records."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from capture.outcomes import Outcome
from ingest_client.spool.record import row_crc
from ingest_client.spool.sql import Connection

OBSERVED: Final = "observed"
SPOOLED: Final = "spooled"
DELIVERED: Final = "delivered"
TERMS: Final = frozenset({OBSERVED, SPOOLED, DELIVERED, *(outcome.value for outcome in Outcome)})

RUNNING: Final = "running"
CLOSED: Final = "closed"
CRASHED: Final = "crashed"

WHOLE: Final = -1
"""In ``absorbed``: everything has been taken over."""

_WRITE: Final = "INSERT OR REPLACE INTO ledger VALUES(?, ?, ?, ?)"


def still_open(terms: Mapping[str, int]) -> int:
    """What the balance leaves: observed minus everything that is accounted for."""
    return terms.get(OBSERVED, 0) - sum(n for term, n in terms.items() if term != OBSERVED)


class Life(NamedTuple):
    """One generation: one life of one process. ``ended_at_ns`` is 0 while it runs."""

    id: str
    started_at_ns: int
    ended_at_ns: int
    ending: str


class Books:
    """The counters of one database. Counts are written at the end of a transaction, or taken back with it."""

    def __init__(self, connection: Connection) -> None:
        """Read what the database holds."""
        self._connection = connection
        self._new: Counter[tuple[int, str]] = Counter()
        self.generation = 0
        self.written: Counter[tuple[int, str]] = Counter()
        self.absorbed: dict[str, int] = {
            str(name): int(str(upto)) for name, upto in connection.execute("SELECT * FROM absorbed")
        }
        """How far other spools have been taken over: up to which of their seqs; -1 when wholly."""
        self.damaged: set[int] = set()
        """Generations with a counter that is not what was written: mended by :meth:`begin`."""
        self.lives: dict[int, Life] = {
            int(str(number)): Life(str(name), int(str(started)), int(str(ended)), str(ending))
            for number, name, started, ended, ending in connection.execute("SELECT * FROM generations")
        }
        for generation, term, n, crc in connection.execute("SELECT * FROM ledger"):
            if crc == row_crc(generation, term, n) and term in TERMS:
                self.written[int(str(generation)), str(term)] = int(str(n))
            elif isinstance(generation, int):
                self.damaged.add(generation)

    def count(self, generation: int, term: str, n: int = 1) -> None:
        """Add ``n`` to a term of a generation, in this transaction."""
        self._new[generation, term] += n

    def write(self) -> Counter[str]:
        """Write the transaction's counts; return them summed over generations, zeros left out."""
        sums: Counter[str] = Counter()
        for (generation, term), n in self._new.items():
            if n:
                total = self.written[generation, term] + n
                self._connection.execute(_WRITE, (generation, term, total, row_crc(generation, term, total)))
                sums[term] += n
        return Counter({term: n for term, n in sums.items() if n})

    def committed(self) -> None:
        """The transaction stands."""
        self.written.update(self._new)
        self._new.clear()

    def rolled_back(self) -> None:
        """The transaction does not."""
        self._new.clear()

    def of(self, generation: int) -> Counter[str]:
        """The terms of one generation, this transaction's counts included.

        Looked up, not searched for: a start asks for every life there was.
        """
        keys = ((generation, term) for term in TERMS)
        return Counter({key[1]: n for key in keys if (n := self.written[key] + self._new[key])})

    def totals(self) -> Counter[str]:
        """The terms summed over all generations, as committed."""
        sums: Counter[str] = Counter()
        for (_, term), n in self.written.items():
            sums[term] += n
        return Counter({term: n for term, n in sums.items() if n})

    def begin(self, generation_id: str, now_ns: int, checkpointed: Mapping[int, int]) -> int:
        """Start a generation inside a transaction, and close the books of those that died.

        What a dead generation still had open, less its ``checkpointed`` exchanges, was
        lost in the crash. Returns the number of exchanges lost so.
        """
        for number, life in self.lives.items():
            if life.id == generation_id:  # the same process opened its files again
                self.generation = number
                return 0
        self.generation = max(self.lives, default=0) + 1
        self._write_life(self.generation, Life(generation_id, now_ns, 0, RUNNING))
        return self.bury(now_ns, checkpointed)

    def carry(self, before: "Books") -> None:
        """Write everything another database's books held, inside a transaction: its files were set aside."""
        for number, life in before.lives.items():
            self._connection.execute("INSERT INTO generations VALUES(?, ?, ?, ?, ?)", (number, *life))
            self.lives[number] = life
        for (generation, term), n in before.written.items():
            self._new[generation, term] += n
        for source, upto in before.absorbed.items():
            self.absorb(source, upto)

    def absorb(self, source: str, upto: int) -> None:
        """Note how far another spool has been taken over, inside a transaction."""
        self._connection.execute("INSERT OR REPLACE INTO absorbed VALUES(?, ?)", (source, upto))
        self.absorbed[source] = upto

    def import_lives(self, lives: Mapping[int, Life], stranger: Life) -> dict[int, int]:
        """Give another spool's generations numbers of ours, inside a transaction: theirs to ours.

        0 stands for generations that cannot be read: they become ``stranger``.
        """
        ours = {life.id: number for number, life in self.lives.items()}
        last = max(self.lives, default=0)
        numbers: dict[int, int] = {}
        for number, life in sorted([*lives.items(), (0, stranger)]):
            if life.id not in ours:
                last += 1
                ours[life.id] = last
                self._write_life(ours[life.id], life)
            numbers[number] = ours[life.id]
        return numbers

    def bury(self, now_ns: int, checkpointed: Mapping[int, int]) -> int:
        """Close the books of generations that are not ours, inside a transaction (see :meth:`begin`)."""
        lost = 0
        for generation, life in list(self.lives.items()):
            if generation == self.generation:
                continue
            missing = still_open(self.of(generation)) - checkpointed.get(generation, 0)
            if generation in self.damaged:  # what is left says too little to speak of losses
                self.count(generation, OBSERVED, -missing)
            elif missing > 0:
                self.count(generation, Outcome.CRASH.value, missing)
                lost += missing
            elif missing < 0:  # its last observations were not written any more, their checkpoints were
                self.count(generation, OBSERVED, -missing)
            if life.ending == RUNNING:
                self._write_life(generation, life._replace(ended_at_ns=now_ns, ending=CRASHED))
        return lost

    def end(self, now_ns: int) -> None:
        """Mark this generation as closed in good order, inside a transaction."""
        life = self.lives[self.generation]
        self._write_life(self.generation, life._replace(ended_at_ns=now_ns, ending=CLOSED))

    def _write_life(self, number: int, life: Life) -> None:
        self._connection.execute("INSERT OR REPLACE INTO generations VALUES(?, ?, ?, ?, ?)", (number, *life))
        self.lives[number] = life
