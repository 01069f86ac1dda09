"""What an endpoint was found to support: batches and their size, content codings.

Nothing is assumed of a stranger but the single route. Batches are tried by one request;
404, 405 or 501 there means no, remembered and tried again after ``relearn_s``, as is a
size that was found too large. An endpoint may also say itself, in its heartbeat's JSON
(``{"batch": {"turns": 64, "bytes": 1048576}}``, each member optional) and in the
``Accept-Encoding`` field of any answer (RFC 9110 §12.5.3). Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, Literal

from ingest_client.delivery.settings import DeliverySettings

Coding = Literal["identity", "gzip", "zstd"]

_PREFERENCE: Final[tuple[Coding, ...]] = ("zstd", "gzip")


@unique
class BatchSupport(StrEnum):
    """Whether the endpoint takes batches."""

    UNKNOWN = "unknown"
    TRYING = "trying"
    """One batch is on its way to find out."""
    YES = "yes"
    NO = "no"


@dataclass(slots=True)
class Learned:
    """Mutable knowledge about one endpoint."""

    settings: DeliverySettings
    batch: BatchSupport = BatchSupport.UNKNOWN
    coding: Coding = "identity"
    _no_batch_until_s: float = 0.0
    _preferred_turns: int | None = None
    _preferred_bytes: int | None = None
    _small_turns: int | None = None
    _small_bytes: int | None = None
    _small_until_s: float = 0.0
    _no_coding_until_s: float = 0.0

    def batch_turns(self, now_s: float) -> int:
        """How many turns the next request may carry; 1 means the single route."""
        if self.settings.batch_turns == 1 or self.batch is BatchSupport.TRYING:
            return 1
        if self.batch is BatchSupport.NO and now_s < self._no_batch_until_s:
            return 1
        turns = min(self._preferred_turns or self.settings.batch_turns, self.settings.ready_turns_per_tenant)
        return turns if now_s >= self._small_until_s else min(turns, self._small_turns or turns)

    def batch_bytes(self, now_s: float) -> int:
        """How many bytes of bodies a batch may carry."""
        size = min(self._preferred_bytes or self.settings.batch_bytes, self.settings.in_flight_bytes // 4)
        return size if now_s >= self._small_until_s else min(size, self._small_bytes or size)

    def batch_begins(self) -> None:
        """A batch is sent: until its answer is here, others wait to see."""
        if self.batch is not BatchSupport.YES:
            self.batch = BatchSupport.TRYING

    def batch_works(self) -> None:
        """The route answered as such."""
        self.batch = BatchSupport.YES

    def batch_unknown(self) -> None:
        """The trial ended without an answer about the route itself."""
        if self.batch is BatchSupport.TRYING:
            self.batch = BatchSupport.UNKNOWN

    def batch_missing(self, now_s: float) -> None:
        """There is no such route here."""
        self.batch = BatchSupport.NO
        self._no_batch_until_s = now_s + self.settings.relearn_s

    def batch_too_large(self, turns: int, size: int, now_s: float) -> None:
        """A batch of this size was refused as too large: halves from now on."""
        self._small_turns = max(1, turns // 2)
        self._small_bytes = max(1, size // 2)
        self._small_until_s = now_s + self.settings.relearn_s

    def prefers(self, turns: int | None, size: int | None) -> None:
        """The endpoint named its preferred batch; what is not positive is ignored."""
        self._preferred_turns = turns if turns is not None and turns > 0 else None
        self._preferred_bytes = size if size is not None and size > 0 else None

    def accepts(self, fields: Mapping[str, str], now_s: float) -> None:
        """Read ``Accept-Encoding`` from an answer's fields."""
        value = fields.get("accept-encoding")
        if value is None or not self.settings.compress or now_s < self._no_coding_until_s:
            return
        offered = {
            name.strip().lower()
            for name, _, weight in (part.partition(";") for part in value.split(","))
            if weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
        }
        preferred: Coding = "identity"
        for coding in reversed(_PREFERENCE):
            preferred = coding if coding in offered else preferred
        self.coding = preferred

    def coding_refused(self, now_s: float) -> None:
        """A coded body was refused: plain bodies for a while, whatever the endpoint says."""
        self.coding = "identity"
        self._no_coding_until_s = now_s + self.settings.relearn_s
