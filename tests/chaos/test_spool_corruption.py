"""T7: thousands of damaged spools. No crash, a quick start, and nothing is lost in silence.

The short form runs in CI. The full one (10,000 spools, some minutes):
``STENO_T7_SPOOLS=10000 pytest tests/chaos/test_spool_corruption.py``.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from capture.outcomes import Outcome
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Quarantine
from ingest_client.spool import Spool
from ingest_client.spool.absorb import REPORT
from ingest_client.spool.api import Checkpoint, Claimed
from ingest_client.spool.desk import Desk
from ingest_client.spool.files import DiskFiles
from ingest_client.spool.jobs import Job
from ingest_client.spool.opening import open_store
from ingest_client.spool.reserve import Reserve
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.sql import connect
from ingest_client.spool.wal import frames, header
from ingest_client.spool.writer import Writer
from tests.patience import GrantedTime, eventually
from tests.unit.ingest_client.spool.parts import START, Clock, Tried, turn

SPOOLS = int(os.environ.get("STENO_T7_SPOOLS", "500"))
TURNS = 60
SETTINGS = SpoolSettings(quota_age_s=0, reserve_bytes=0, zstd_level=0)
"""The turns of the image were made in another time: age must not take them."""

START_S = 2.0
"""What a start on a damaged spool may take, of the time that the machine leaves to it."""


def body_of(name: str) -> bytes:
    """Turns of several pages, each its own."""
    return random.Random(name).randbytes(random.Random(name).choice([300, 2_000, 9_000]))


def make_image(folder: Path) -> None:
    """A spool as a killed process leaves it: half of it checkpointed, half in the log."""
    store = open_store(folder / "spool.db", SETTINGS)
    with store.transaction():
        store.begin("first", START)
        store.note({"observed": TURNS + 1})
    desk = Desk(store)
    for number in range(TURNS):
        why = Quarantine(outcome=Outcome.MARSHAL_ERROR, reason="test") if number % 20 == 7 else None
        with store.transaction():
            store.keep(
                turn(f"t{number}", tenant="ab"[number % 2], body=body_of(f"t{number}"), quarantine=why)
            )
        if number == TURNS // 2:
            store.connection.wal_checkpoint()
    with store.transaction():
        desk.checkpoint(
            Checkpoint(turn_id="open", tenant="a", started_at_ns=START, heartbeat_at_ns=START, body=b"half")
        )
    (first,), _ = desk.claim(1, 1 << 30, START, 1, ())
    with store.transaction():
        desk.dead_letter(first.seq, Outcome.INGEST_REJECT, "422", Tried(1))
    store.close()


@dataclass
class Outcomes:
    """What became of a damaged spool."""

    delivered: dict[str, bytes] = field(default_factory=dict[str, bytes])
    rows: Counter[str] = field(default_factory=Counter[str])
    terms: Counter[str] = field(default_factory=Counter[str])
    start_s: float = 0.0
    set_aside: int = 0
    damaged_records: int = 0


def forget(_jobs: list[Job], _moved: Counter[str], _desk: Desk | None) -> None:
    """No event loop listens."""


def recover(folder: Path) -> Outcomes:
    """Open as the service does, run every chore to its end, then deliver everything."""
    found = Outcomes()
    files = DiskFiles(folder=folder, settings=SETTINGS, generation_id="second", clock=Clock())
    writer = Writer(files, Reserve(folder / "reserve", 0), SETTINGS, Clock(), forget)
    granted = GrantedTime()
    writer.open()
    found.start_s = granted.passed_s()
    while True:
        finish_chores(writer)
        job = Job(run=lambda desk: desk.claim(64, 1 << 30, START, 64, ()), writes=False, done=lambda _: None)
        writer._serve([job])
        assert job.error is None, job.error
        if job.shed:
            continue  # damage was met: the files were set aside
        claimed, damaged = cast("tuple[list[Claimed], int]", job.result)
        found.damaged_records += damaged
        for each in claimed:
            found.delivered[each.turn_id] = each.body
        desk = writer.seat.at()
        with desk.store.transaction():
            desk.store.acknowledge([each.seq for each in claimed])
        if not claimed and not damaged:
            break
    for (state,) in desk.store.connection.execute("SELECT state FROM turns"):
        found.rows[str(state)] += 1
    found.terms = desk.store.books.totals()
    found.set_aside = writer.seat.condition.set_aside
    desk.store.close()
    return found


def finish_chores(writer: Writer) -> None:
    """Run what the thread would run in its idle moments."""
    while writer.upkeep.work_off():
        pass


def check(found: Outcomes) -> None:
    """What must hold whatever was damaged."""
    assert found.start_s <= START_S
    for name, body in found.delivered.items():
        assert body == body_of(name), name
    assert all(n >= 0 for n in found.terms.values()), found.terms
    assert found.terms["spooled"] == 0
    assert found.rows["pending"] == 0
    assert found.terms["delivered"] == len(found.delivered)
    known = (
        found.terms["delivered"]
        + found.terms[Outcome.VOLUME_DISCARDED]
        + found.terms[Outcome.INGEST_REJECT]
        + found.terms[Outcome.MARSHAL_ERROR]
    )
    opened = found.terms["observed"] - known - found.terms[Outcome.CRASH]
    assert opened in (0, 1), found


def flip_bits(path: Path, chooser: random.Random, bits: int, *, first: int = 0) -> None:
    """Flip bits anywhere behind ``first``."""
    data = bytearray(path.read_bytes())
    for _ in range(bits):
        data[chooser.randrange(first, len(data))] ^= 1 << chooser.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chooser: random.Random) -> None:
    """Cut the file short."""
    data = path.read_bytes()
    path.write_bytes(data[: chooser.randrange(len(data))])


def zero_page(path: Path, chooser: random.Random) -> None:
    """A page that was never written back."""
    data = bytearray(path.read_bytes())
    at = chooser.randrange(len(data) // 4096) * 4096
    data[at : at + 4096] = bytes(4096)
    path.write_bytes(data)


def shuffle_page(path: Path, chooser: random.Random) -> None:
    """A page written in another's place."""
    data = bytearray(path.read_bytes())
    one, other = (chooser.randrange(len(data) // 4096) * 4096 for _ in range(2))
    data[one : one + 4096] = data[other : other + 4096]
    path.write_bytes(data)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    lambda folder, chooser: flip_bits(folder / "spool.db", chooser, 1),
    lambda folder, chooser: flip_bits(folder / "spool.db", chooser, chooser.randrange(2, 64)),
    lambda folder, chooser: flip_bits(folder / "spool.db-wal", chooser, 1),
    lambda folder, chooser: flip_bits(folder / "spool.db-wal", chooser, chooser.randrange(2, 64)),
    lambda folder, chooser: cut(folder / "spool.db", chooser),
    lambda folder, chooser: cut(folder / "spool.db-wal", chooser),
    lambda folder, chooser: zero_page(folder / "spool.db", chooser),
    lambda folder, chooser: shuffle_page(folder / "spool.db", chooser),
    lambda folder, chooser: flip_bits(folder / "spool.db", chooser, 20, first=0),
    lambda folder, _: (folder / "spool.db-wal").unlink(),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    make_image(folder)
    return folder


def test_the_undamaged_image_is_recovered_whole(image: Path, tmp_path: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    found = recover(shutil.copytree(image, tmp_path / "spool"))
    check(found)
    assert len(found.delivered) == TURNS - 4
    assert found.set_aside == 0
    assert found.terms == {
        "observed": TURNS + 1,
        "delivered": TURNS - 4,
        "marshal_error": 3,
        "ingest_reject": 1,
    }


@pytest.mark.timeout(max(300, SPOOLS // 2))
def test_any_damage_leaves_a_spool_that_starts_and_books_that_balance(image: Path, tmp_path: Path) -> None:
    """Bit flips, cuts, lost and misplaced pages, in both files."""
    for number in range(SPOOLS):
        folder = shutil.copytree(image, tmp_path / "spool")
        DAMAGES[number % len(DAMAGES)](folder, random.Random(number))
        try:
            check(recover(folder))
        except BaseException:
            print(f"damage {number}")  # noqa: T201 - names the seed of the failure
            raise
        shutil.rmtree(folder)


def test_damage_to_a_payload_costs_that_record(image: Path, tmp_path: Path) -> None:
    """A bit in a stored body: the others arrive, the one is set aside and counted."""
    folder = shutil.copytree(image, tmp_path / "spool")
    needle = body_of("t2")[:64]
    path = next(p for p in (folder / "spool.db", folder / "spool.db-wal") if needle in p.read_bytes())
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 8] ^= 1
    path.write_bytes(data)
    found = recover(folder)
    check(found)
    assert set(found.delivered) == {f"t{n}" for n in range(TURNS) if n % 20 != 7} - {"t0", "t2"}
    assert (found.damaged_records, found.set_aside) == (1, 0)
    assert found.rows["damaged"] == found.terms[Outcome.VOLUME_DISCARDED] == 1


def test_a_bad_frame_in_the_log_costs_its_record_and_not_those_behind_it(image: Path, tmp_path: Path) -> None:
    """SQLite alone would forget every transaction behind the frame."""
    folder = shutil.copytree(image, tmp_path / "spool")
    needle = body_of("t40")[:64]
    path = folder / "spool.db-wal"
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 8] ^= 1
    path.write_bytes(data)
    found = recover(folder)
    check(found)
    assert len(found.delivered) == TURNS - 5
    assert found.set_aside == 1
    assert found.terms[Outcome.VOLUME_DISCARDED] == 1
    assert len(list(folder.glob(f"damaged/*/{REPORT}"))) == 1


def test_a_torn_last_transaction_is_a_power_cut_and_no_damage(image: Path, tmp_path: Path) -> None:
    """It was never promised: nothing is set aside for it."""
    folder = shutil.copytree(image, tmp_path / "spool")
    path = folder / "spool.db-wal"
    with path.open("rb") as file:
        known = header(file)
        assert known is not None
        last = [frame for frame in frames(file, 4096) if frame.salts == known[1]][-1]
    data = bytearray(path.read_bytes())
    data[last.offset + 100] ^= 1
    path.write_bytes(data)
    found = recover(folder)
    assert found.set_aside == 0
    assert found.terms[Outcome.INGEST_REJECT] == 0


async def test_damage_met_while_running_sets_the_files_aside_and_loses_only_what_it_hit(
    tmp_path: Path,
) -> None:
    """The process goes on with fresh files; its claims, its books and the readable turns carry over."""
    settings = SpoolSettings(quota_age_s=0, zstd_level=0)
    spool = await Spool.open(tmp_path, settings, clock=Clock(), ledger=Ledger())
    for _ in range(1200):
        spool.ledger.observe()
    await asyncio.gather(*(spool.keep(turn(f"t{n}", body=bytes([n % 251]) * 15_000)) for n in range(1000)))
    (database,) = tmp_path.rglob("spool.db")  # noqa: ASYNC240
    # The log is moved into the database when the thread has time, page by page: the last one comes last.
    await eventually(lambda: database.stat().st_size >= 1000 * 15_000)
    with database.open("r+b") as file:
        pages = database.stat().st_size // 4096
        for page in range(pages // 3, pages // 3 + 200):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    delivered: set[str] = set()
    async with asyncio.timeout(60):
        while spool.ledger.spooled:
            found = await spool.claim(100, 1 << 30, START, per_tenant=100)
            delivered |= {each.turn_id for each in found}
            await spool.acknowledge([each.seq for each in found])
            await asyncio.sleep(0.02)
    ledger = spool.ledger
    assert len(list(tmp_path.glob(f"*/damaged/*/{REPORT}"))) == spool.condition.set_aside == 1  # noqa: ASYNC240
    assert (ledger.spooled, ledger.open, ledger.imbalance) == (0, 200, 0)
    assert 800 < len(delivered) < 1000
    assert ledger.delivered + ledger.ended[Outcome.VOLUME_DISCARDED] == 1000
    for n in range(1000, 1100):
        assert await spool.keep(turn(f"t{n}")) == Kept()
    await spool.close(30)


@pytest.mark.parametrize("kind", ["text", "empty", "another program's database", "zeros"])
def test_a_foreign_file_is_set_aside_and_kept(tmp_path: Path, kind: str) -> None:
    """It is not ours to delete."""
    path = tmp_path / "spool.db"
    if kind == "another program's database":
        connection = connect(str(path))
        connection.execute("CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1)")
        connection.close()
    else:
        path.write_bytes({"text": b"hello\n" * 2000, "empty": b"", "zeros": bytes(20_000)}[kind])
    size = path.stat().st_size
    found = recover(tmp_path)
    assert found.terms == {}
    if kind == "empty":
        assert found.set_aside == 0
    else:
        assert found.set_aside == 1
        (kept,) = tmp_path.glob("damaged/*/spool.db")
        assert kept.stat().st_size == size
