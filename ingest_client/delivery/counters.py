"""What delivery counts, as plain numbers; the metrics module reads them and gives them names.

Every row exists from the start: ``reasons`` has a zero for each reason.
"""

from dataclasses import dataclass, field

from ingest_client.delivery.classify import Reason


def _no_reasons() -> dict[Reason, int]:
    return dict.fromkeys(Reason, 0)


@dataclass(slots=True)
class DeliveryCounters:
    """Counts since the process began; they only grow."""

    requests: int = 0
    """POSTs begun, single and batched."""
    batches: int = 0
    batched_turns: int = 0
    request_bytes: int = 0
    """Bodies as sent, after any content coding."""
    attempts: dict[Reason, int] = field(default_factory=_no_reasons)
    """Attempts ended, per turn and reason."""
    accepted: int = 0
    refused: int = 0
    """Turns dead-lettered."""
    put_off: int = 0
    """Attempts that ended in a later one."""
    released: int = 0
    """Turns given back without an attempt (a tenant paused, a stop)."""
    holds: int = 0
    """Endpoints, or tenants at an endpoint, newly held: somebody has to look."""
    breaker_opens: int = 0
    heartbeats_answered: int = 0
    heartbeats_missed: int = 0
    connections: int = 0
    stale_connections: int = 0
    """Requests sent once more because a kept connection turned out to be closed."""
    credential_reloads: int = 0
    credential_failures: int = 0
