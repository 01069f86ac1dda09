"""The seam between capture and whatever keeps a turn until ingest has it.

Capture hands over a :class:`Record` and is told, once, what became of it: a value,
never an exception. Behind the seam sit the spool and delivery; in front of it
nothing knows whether a disk or a network exists.
"""

from dataclasses import dataclass
from typing import Protocol

from capture.outcomes import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Why a record is kept for a person instead of being sent.

    ``outcome`` is one whose state is ``quarantined``. ``reason`` is one line for
    that person: what could not be done, and why.
    """

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished turn, redacted and marshalled.

    ``turn_id`` is ours (UUIDv7, lower-case with dashes) and the idempotency key.
    ``body`` is the marshalled payload, never empty; of a quarantined record it is
    whatever could be kept. ``created_at_ns`` is wall-clock nanoseconds. ``interrupted``: the
    last snapshot of an exchange that nobody will finish; shed, it is counted nowhere, because
    the snapshot stays and is handed out again (``ingest_client.spool.api.Checkpoints``).
    """

    turn_id: str
    tenant: str
    body: bytes
    created_at_ns: int
    quarantine: Quarantine | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The record is as durable as this sink makes it."""


@dataclass(frozen=True, slots=True)
class Shed:
    """The record was not kept; ``outcome`` (state ``lost``) says under which name it is counted."""

    outcome: Outcome
    reason: str


class Sink(Protocol):
    """Keeps records until ingest has accepted or refused them for good."""

    async def keep(self, record: Record) -> Kept | Shed:
        """Return once the record is durable, or was shed. Never raises for the world's sake."""
        ...

    async def close(self, grace_s: float) -> None:
        """Deliver what can be delivered within ``grace_s`` seconds, then stop."""
        ...
