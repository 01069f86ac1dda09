"""What the spool's tests share: records, attempts, clocks."""

from collections.abc import Callable
from dataclasses import dataclass

from ingest_client.sink import Quarantine, Record

SECOND = 10**9
START = 1_800_000_000 * SECOND


@dataclass
class Clock:
    """Wall-clock nanoseconds that move when told."""

    now_ns: int = START

    def __call__(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)


@dataclass(frozen=True)
class Tried:
    """A failed attempt, as delivery would describe it."""

    number: int
    error: str = "503"

    def as_json(self) -> dict[str, object]:
        return {"number": self.number, "error": self.error}


def turn(
    name: str,
    *,
    tenant: str = "a",
    body: bytes = b'{"a": 1}',
    at_ns: int = START,
    quarantine: Quarantine | None = None,
) -> Record:
    """A record worth keeping."""
    return Record(turn_id=name, tenant=tenant, body=body, created_at_ns=at_ns, quarantine=quarantine)


Keeper = Callable[[Record], object]
