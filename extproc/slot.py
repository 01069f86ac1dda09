"""A worker's place in the supervisor: who serves, who leaves, and how often that has changed."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, unique

from extproc.generation import Generation
from extproc.settings import SidecarSettings
from extproc.transport.address import Address, parse_address


@unique
class Restart(StrEnum):
    """Why a worker has a new process. The values are metric labels."""

    DIED = "died"
    DID_NOT_START = "did_not_start"
    REPLACED = "replaced"


@dataclass(slots=True)
class Slot:
    """One worker.

    ``address`` has the real port once a generation has served, ``settings`` are those that one could
    be started with. ``generations`` counts those that have served.
    ``changing`` is held while a process is being started for it.
    """

    index: int
    address: Address
    settings: SidecarSettings
    serving: Generation | None = None
    leaving: Generation | None = None
    generations: int = 0
    deaths: int = 0
    """In a row, each soon after its start."""
    restarts: Counter[Restart] = field(default_factory=lambda: Counter(dict.fromkeys(Restart, 0)))
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    alone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nobody leaves."""

    def __post_init__(self) -> None:
        self.alone.set()

    @property
    def living(self) -> tuple[Generation, ...]:
        """The generations that have not ended, as far as was heard."""
        return tuple(each for each in (self.leaving, self.serving) if each is not None)

    def serve(self, generation: Generation) -> None:
        """Let a generation serve; the one that did leaves."""
        if self.serving is not None:
            self.leaving = self.serving
            self.alone.clear()
            self.restarts[Restart.REPLACED] += 1
        self.serving = generation
        self.generations = generation.number
        self.settings = generation.settings
        self.address = parse_address(generation.ready.address)

    def ended(self, generation: Generation) -> bool:
        """A generation has ended. True: it was the one that served."""
        if generation is self.leaving:
            self.leaving = None
            self.alone.set()
            return False
        if generation is self.serving:
            self.serving = None
            return True
        return False
