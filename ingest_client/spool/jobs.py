"""What the spool's thread is given to do, and by whom: jobs, chores, files, and how it says it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Protocol

from ingest_client.spool.desk import Desk
from ingest_client.spool.store import Store


@dataclass(slots=True, eq=False)
class Job:
    """One piece of work. ``run`` gets the desk; a write runs inside the group's transaction.

    ``instead`` gives the answer when the disk cannot (or raises OSError): a write that has one may be
    shed, a write without is owed. ``counts`` are made outside the spool and ride along. ``done`` is called on
    the event loop with the result or the error.
    """

    run: Callable[[Desk], object]
    writes: bool
    done: Callable[["Job"], None]
    instead: Callable[[str], object] | None = None
    size: int = 0
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    result: object = None
    error: BaseException | None = None
    shed: bool = False


@unique
class Progress(Enum):
    """What a chore says after a step."""

    MORE = "more"
    WAIT = "wait"
    DONE = "done"


class Chore(Protocol):
    """Background work in small steps: taking over other spools, salvaging damaged ones."""

    def step(self, desk: Desk) -> Progress:
        """Do a little, in transactions of its own."""
        ...

    def close(self) -> None:
        """Let go of what is open; another process goes on."""
        ...


@dataclass(slots=True)
class Condition:
    """How the disk is, for metrics and pages."""

    trouble: str = ""
    """Empty, or what is wrong in one line."""
    commits: int = 0
    checkpoints: int = 0
    wal_bytes: int = 0
    set_aside: int = 0
    damaged_records: int = 0


class Files(Protocol):
    """Where stores come from, and go when they are damaged."""

    unreachable: int
    """Turns that no salvage could read: counted as ``lost(volume_discarded)``."""

    def open(self) -> Store:
        """Open the store, begin (or resume) our generation."""
        ...

    def replace(self, damaged: Store | None, why: str) -> Store:
        """Set the damaged files aside and open a fresh store that carries on the books."""
        ...

    def find_chores(self) -> Sequence[Chore]:
        """Background work that has turned up since the last call."""
        ...
