"""The record of one attempt to deliver one turn, as the spool keeps it and a person reads it.

Nothing in it can hold a secret: the answer's words were cut and redacted before they got
here (``ingest_client.delivery.plaintext``), of its header fields only ``ANSWER_FIELDS`` are kept,
and of what was sent nothing but its size: neither header fields nor the turn's body.

The spool stores the attempts that failed. One that was accepted ends the turn's row, so it is told
to ``on_final`` and counted, and stored nowhere (``docs/delivery.md``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ingest_client.delivery.classify import Fate, Reason

ANSWER_FIELDS: Final = (
    *("content-length", "content-type", "date", "location", "retry-after", "server", "via"),
    *("www-authenticate", "x-request-id"),
)
"""Header fields of an answer that tell who answered, and why. Others may hold anything: cookies, for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt: what was tried, what came back, what was decided.

    ``number`` counts from 1 over the turn's whole life, restarts included. Times are
    wall-clock nanoseconds. ``status`` is None where no status line arrived. ``error`` is
    one line, empty for an acceptance. ``delay_s`` is the wait that was decided on, 0
    where no further attempt follows. ``turns`` is how many turns the request carried.
    ``answer_headers`` and ``answer_body`` (of a batch: of all of it) are cut and redacted; empty where
    no status line arrived, or nothing of the request failed.
    """

    number: int
    endpoint: str
    started_at_ns: int
    ended_at_ns: int
    fate: Fate
    reason: Reason
    status: int | None
    error: str
    delay_s: float
    turns: int
    request_bytes: int
    answer_bytes: int
    answer_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    answer_body: str = ""

    @property
    def duration_s(self) -> float:
        """How long the attempt took, in seconds, never negative."""
        return max(0, self.ended_at_ns - self.started_at_ns) / 1e9

    def as_json(self) -> dict[str, object]:
        """The record as JSON members, for the spool and for ``steno spool show``."""
        return {
            "number": self.number,
            "endpoint": self.endpoint,
            "started_at_ns": self.started_at_ns,
            "ended_at_ns": self.ended_at_ns,
            "duration_s": self.duration_s,
            "classification": self.fate.value,
            "reason": self.reason.value,
            "status": self.status,
            "error": self.error,
            "delay_s": self.delay_s,
            "turns": self.turns,
            "request_bytes": self.request_bytes,
            "answer_bytes": self.answer_bytes,
            "answer_headers": dict(self.answer_headers),
            "answer_body": self.answer_body,
        }
