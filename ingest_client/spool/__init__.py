"""A durable queue of turns on a local disk: see ``docs/spool.md`` for format, invariants and crash points.

``Spool`` is what a service opens. From the event loop to the disk: ``spool`` (futures, budgets),
``writer`` (the thread, group commit, faults), ``desk``; the tables: ``store``, ``claims``, ``checkpoints``,
``books``; where they lie: ``files``, ``opening``, ``schema``, ``instance``, ``reserve``.
"""

from ingest_client.spool.api import AttemptRecord, Backlog, Checkpoint, Checkpoints, Claimed, Queue
from ingest_client.spool.schema import NewerSchema, SpoolRefused
from ingest_client.spool.settings import FullPolicy, SpoolSettings
from ingest_client.spool.spool import Spool

__all__ = [
    "AttemptRecord",
    "Backlog",
    "Checkpoint",
    "Checkpoints",
    "Claimed",
    "FullPolicy",
    "NewerSchema",
    "Queue",
    "Spool",
    "SpoolRefused",
    "SpoolSettings",
]
