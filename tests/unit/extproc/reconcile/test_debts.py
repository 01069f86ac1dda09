"""What was not seen gets into a ledger once, whoever dies on the way."""

import os
from pathlib import Path

from extproc.reconcile.debts import Debts
from extproc.reconcile.summary import Counted, Missed


def test_it_is_told_once_and_settled_by_the_workers_answer(tmp_path: Path) -> None:
    debts = Debts(tmp_path / "owed")
    debts.add()
    debts.add()
    debts.add("client_disconnect")
    assert debts.tell(1) == [Missed(2, ""), Missed(1, "client_disconnect")]
    debts.add()
    assert debts.tell(1) == []
    debts.counted(1, Counted(2, ""))
    debts.counted(1, Counted(1, "client_disconnect"))
    assert debts.total == 1
    assert debts.tell(1) == [Missed(1, "")]


def test_what_a_worker_did_not_confirm_goes_to_the_next(tmp_path: Path) -> None:
    debts = Debts(tmp_path / "owed")
    debts.add()
    debts.add("missing_status")
    debts.tell(1)
    debts.counted(1, Counted(1, ""))
    debts.died(2)
    assert debts.tell(2) == []
    debts.died(1)
    assert debts.tell(2) == [Missed(1, "missing_status")]


def test_what_is_owed_at_the_end_waits_for_the_next_start(tmp_path: Path) -> None:
    before = Debts(tmp_path / "owed")
    before.add()
    before.tell(1)
    before.add("client_disconnect")
    before.save()
    after = Debts(tmp_path / "owed")
    after.load()
    assert after.total == 2
    again = Debts(tmp_path / "owed")
    again.load()
    assert again.total == 0


def test_a_damaged_file_does_not_keep_the_sidecar_from_starting(tmp_path: Path) -> None:
    (tmp_path / "owed").write_text("{")
    debts = Debts(tmp_path / "owed")
    debts.load()
    assert debts.total == 0


def test_what_is_left_to_the_next_process_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """A file that somebody else may write would put numbers into the ledger."""
    debts = Debts(tmp_path / "owed")
    debts.add()
    before = os.umask(0)
    try:
        debts.save()
    finally:
        os.umask(before)
    assert (tmp_path / "owed").stat().st_mode & 0o777 == 0o600
