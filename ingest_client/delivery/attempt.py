"""The record of one attempt to deliver one turn, as the spool keeps it and a person reads it.

Nothing in it can hold a secret: the answer's text was cut and redacted before it got
here (``ingest_client.delivery.plaintext``), of the headers sent only those are kept that
``sent_headers`` names, and the turn's body is never part of a record.
"""

from dataclasses import dataclass

from ingest_client.delivery.classify import Fate, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt: what was tried, what came back, what was decided.

    ``number`` counts from 1 over the turn's whole life, restarts included. Times are
    wall-clock nanoseconds. ``status`` is None where no status line arrived. ``error`` is
    one line, empty for an acceptance. ``delay_s`` is the wait that was decided on, 0
    where no further attempt follows. ``turns`` is how many turns the request carried.
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
        }
