"""What must get into a ledger: turns that were not seen, until a worker says that it counted them.

The ledgers belong to the workers, whose spools make them durable. The supervisor tells one worker
at a time; what it has told and not heard of is owed again when that worker dies. What is still
owed at the end waits in a file for the next start.
"""

import logging
from collections import Counter
from pathlib import Path

import msgspec

from extproc.reconcile.summary import Counted, Missed
from ingest_client.spool.instance import write_private_file

_log = logging.getLogger(__name__)


class Debts:
    """The turns to be counted, by the outcome they are counted under already (empty: by none)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._owed: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._teller = 0

    @property
    def total(self) -> int:
        """How many are in no ledger yet, as far as is known."""
        return self._owed.total() + self._told.total()

    def add(self, instead_of: str = "") -> None:
        """One more."""
        self._owed[instead_of] += 1

    def tell(self, source: int) -> list[Missed]:
        """What to send to a worker now: nothing while another answer is awaited."""
        if self._told or not self._owed:
            return []
        self._told, self._owed, self._teller = self._owed, Counter(), source
        return [Missed(count, instead_of) for instead_of, count in self._told.items()]

    def counted(self, source: int, line: Counted) -> None:
        """A worker has counted."""
        if source == self._teller:
            self._told[line.instead_of] -= line.count
            self._told = +self._told

    def died(self, source: int) -> None:
        """A worker is gone: what it was told and did not confirm is owed again."""
        if source == self._teller:
            self._owed, self._told = self._owed + self._told, Counter()

    def load(self) -> None:
        """Take over what an earlier process left. A file that cannot be read is set aside, and said."""
        try:
            self._owed += Counter(msgspec.json.decode(self._file.read_bytes(), type=dict[str, int]))
            self._file.unlink()
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            _log.exception(
                "turns not seen by an earlier process cannot be counted", extra={"reason": str(error)}
            )

    def save(self) -> None:
        """Leave what is owed to the next process."""
        left = self._owed + self._told
        if not left:
            return
        try:
            write_private_file(self._file, msgspec.json.encode(dict(left)))
        except OSError as error:
            _log.exception(
                "turns not seen are in no ledger", extra={"turns": left.total(), "reason": str(error)}
            )
