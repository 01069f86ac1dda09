"""Spools of dead processes: taken over whole, exactly once, with their books."""

import asyncio
import errno
import fcntl
import tracemalloc
import uuid
from pathlib import Path

import pytest

from capture.outcomes import Outcome
from ingest_client.ledger import Ledger
from ingest_client.spool import Checkpoint, Spool, SpoolRefused, SpoolSettings
from ingest_client.spool.api import Claimed
from ingest_client.spool.desk import Desk
from ingest_client.spool.files import DiskFiles
from ingest_client.spool.instance import (
    instances,
    make_private,
    move_shelves,
    refuse_network,
    set_files_aside,
    take,
    try_lock,
    write_private_file,
)
from ingest_client.spool.jobs import Progress
from tests.patience import eventually
from tests.unit.ingest_client.spool.parts import START, Clock, Tried, turn

LARGE = 1 << 30
QUICK = SpoolSettings(adopt_every_s=0.1)
SETTINGS = SpoolSettings(quota_age_s=0, zstd_level=0)


async def open_spool(root: Path, settings: SpoolSettings | None = None) -> Spool:
    return await Spool.open(root, settings, clock=Clock(), ledger=Ledger())


async def names(spool: Spool) -> list[str]:
    claimed = await spool.claim(10_000, LARGE, START, per_tenant=10_000)
    return [each.turn_id for each in claimed]


async def claimed_in_all(spool: Spool, count: int) -> list[Claimed]:
    """So many turns at least, as they come out of adopted files; TimeoutError when they do not."""
    found: list[Claimed] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await spool.claim(10_000, LARGE, START, per_tenant=10_000)
            await asyncio.sleep(0.01)
    return found


async def eventually_one_instance(root: Path, settled: Spool, spooled: int) -> None:
    await eventually(lambda: len(instances(root)) == 1 and settled.ledger.spooled == spooled)


async def test_a_restart_takes_over_the_files_where_they_lie(tmp_path: Path) -> None:
    """Nothing moves: 90,000 turns are there at once."""
    first = await open_spool(tmp_path)
    first.ledger.observe()
    await first.keep(turn("t1"))
    await first.close(60)
    (folder,) = instances(tmp_path)
    second = await open_spool(tmp_path)
    assert instances(tmp_path) == [folder]
    assert await names(second) == ["t1"]
    await second.close(60)


async def test_a_handover_ends_with_the_turns_of_both_processes_in_one_spool(tmp_path: Path) -> None:
    """The new process starts while the old one drains; what the old one leaves is adopted."""
    old = await open_spool(tmp_path)
    for number in range(3):
        old.ledger.observe()
        await old.keep(turn(f"old{number}"))
    (claimed, *_) = await old.claim(1, LARGE, START, per_tenant=1)
    await old.retry(claimed.seq, START, Tried(1))
    new = await open_spool(tmp_path, QUICK)
    new.ledger.observe()
    await new.keep(turn("new0"))
    assert len(instances(tmp_path)) == 2
    await old.close(60)
    await eventually_one_instance(tmp_path, new, 4)
    found = await claimed_in_all(new, 4)
    assert sorted((each.turn_id, each.attempts) for each in found) == [
        ("new0", 0),
        ("old0", 1),
        ("old1", 0),
        ("old2", 0),
    ]
    assert new.ledger == Ledger(observed=4, spooled=4)
    await new.close(60)
    third = await open_spool(tmp_path)
    assert third.ledger == Ledger(observed=4, spooled=4)
    await third.close(60)


async def test_dead_letters_checkpoints_and_losses_come_along(tmp_path: Path) -> None:
    """The adopted generation's books are closed as after any crash."""
    old = await open_spool(tmp_path)
    for _ in range(3):
        old.ledger.observe()
    await old.keep(turn("dead"))
    (claimed,) = await old.claim(1, LARGE, START, per_tenant=1)
    await old.dead_letter(claimed.seq, Outcome.INGEST_REJECT, "422", Tried(1))
    await old.checkpoint(
        Checkpoint(turn_id="long", tenant="a", started_at_ns=START, heartbeat_at_ns=START, body=b"half")
    )
    new = await open_spool(tmp_path, QUICK)
    await old.close(60)
    await eventually(lambda: new.ledger.ended == {Outcome.INGEST_REJECT: 1, Outcome.CRASH: 1})
    await eventually(lambda: new.ledger.observed == 3)
    assert (new.ledger.open, new.ledger.imbalance) == (1, 0)
    interrupted: list[Checkpoint] = []
    async with asyncio.timeout(30):
        while not interrupted:
            await asyncio.sleep(0.05)
            interrupted = await new.take_interrupted(START)
    assert [(each.turn_id, each.body) for each in interrupted] == [("long", b"half")]
    await new.keep(turn("long"))
    assert new.ledger.spooled == 1
    await new.close(60)


@pytest.mark.parametrize("steps", range(9))
async def test_an_adoption_that_is_cut_off_goes_on_where_it_stopped(tmp_path: Path, steps: int) -> None:
    """After any step: no turn twice, none missing, the books counted once."""
    old = await open_spool(tmp_path)
    for _ in range(300):
        old.ledger.observe()
    await asyncio.gather(*(old.keep(turn(f"t{n}", body=bytes([n % 251]) * 9_000)) for n in range(300)))
    new = tmp_path / "new"
    make_private(new)
    await old.close(60)
    lock = try_lock(new)
    files = DiskFiles(folder=new, settings=SETTINGS, generation_id="one", clock=Clock())
    desk = Desk(files.open())
    (chore,) = files.find_chores()
    for _ in range(steps):
        chore.step(desk)
    delivered = _deliver_some(desk)
    chore.close()
    desk.store.close()
    files = DiskFiles(folder=new, settings=SETTINGS, generation_id="two", clock=Clock())
    desk = Desk(files.open())
    for chore in files.find_chores():
        while chore.step(desk) is not Progress.DONE:
            pass
    rest, _ = desk.claim(1000, LARGE, START, 1000, ())
    assert sorted(delivered + [each.turn_id for each in rest]) == sorted(f"t{n}" for n in range(300))
    assert desk.store.books.totals() == {
        "observed": 300,
        "spooled": 300 - len(delivered),
        **({"delivered": len(delivered)} if delivered else {}),
    }
    assert not list((new / "adopted").iterdir())
    desk.store.close()
    assert lock is not None
    lock.release()


def test_snapshots_come_along_without_being_in_memory_together(tmp_path: Path) -> None:
    """What a process left that died of its memory must not take the one that adopts it along."""
    theirs, ours = (
        DiskFiles(folder=tmp_path / n, settings=SETTINGS, generation_id=n, clock=Clock()) for n in "to"
    )
    for files in (theirs, ours):
        make_private(files.folder)
    left = theirs.open()
    for number in range(100):
        snapshot = Checkpoint(
            turn_id=f"t{number}", tenant="a", started_at_ns=1, heartbeat_at_ns=1, body=b"x" * 200_000
        )
        with left.transaction():
            left.checkpoints.save(snapshot, left.books.generation)
    left.close()
    make_private(ours.folder / "adopted")
    theirs.folder.rename(ours.folder / "adopted" / "t")
    desk = Desk(ours.open())
    (chore,) = ours.find_chores()
    tracemalloc.start()
    while chore.step(desk) is not Progress.DONE:
        pass
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000
    assert len(desk.interrupted(START, LARGE)) == 100
    desk.store.close()


def _deliver_some(desk: Desk) -> list[str]:
    """What ingest takes between two crashes must not come back from the adopted files."""
    claimed, _ = desk.claim(50, LARGE, START, 50, ())
    with desk.store.transaction():
        desk.store.acknowledge([each.seq for each in claimed])
    return [each.turn_id for each in claimed]


async def test_spools_damaged_in_the_same_second_are_adopted_one_by_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One power cut damages both workers' files for the same reason; then one worker is left."""
    monkeypatch.setattr("ingest_client.spool.instance.time.strftime", _same_second)
    both = [await open_spool(tmp_path), await open_spool(tmp_path)]
    for number, spool in enumerate(both):
        spool.ledger.observe()
        await spool.keep(turn(f"t{number}"))
    for spool in both:
        await spool.close(60)
    for folder in instances(tmp_path):
        set_files_aside(folder, "why")
    left = await open_spool(tmp_path, QUICK)
    await eventually_one_instance(tmp_path, left, 2)
    (folder,) = instances(tmp_path)
    assert len(list(folder.glob("damaged/*/spool.db"))) == 2
    assert sorted(each.turn_id for each in await claimed_in_all(left, 2)) == ["t0", "t1"]
    assert left.ledger == Ledger(observed=2, spooled=2)
    await left.close(60)


async def test_damaged_files_of_a_process_that_left_are_salvaged_into_its_own_books(tmp_path: Path) -> None:
    """It had no time for that itself. Its numbers for generations mean others to whoever adopts it."""
    staying = await open_spool(tmp_path, QUICK)
    staying.ledger.observe()
    await staying.keep(turn("s"))
    folder = tmp_path / str(uuid.uuid4())
    make_private(folder)
    lock = try_lock(folder)
    assert lock is not None
    files = DiskFiles(folder=folder, settings=SETTINGS, generation_id="left", clock=Clock())
    store = files.open()
    with store.transaction():
        store.note({"observed": 3})
        for number in range(3):
            store.keep(turn(f"l{number}"))
    files.replace(store, "why").close()
    lock.release()
    await eventually_one_instance(tmp_path, staying, 4)
    await eventually(lambda: bool(list(tmp_path.glob("*/damaged/*/salvaged.json"))))
    found = await claimed_in_all(staying, 4)
    assert sorted(each.turn_id for each in found) == ["l0", "l1", "l2", "s"]
    assert staying.ledger == Ledger(observed=4, spooled=4)
    await staying.close(60)


def _same_second(*_: object) -> str:
    return "20270115T080000Z"


def test_a_shelf_with_a_name_that_is_taken_moves_under_another(tmp_path: Path) -> None:
    """Earlier releases named damaged folders by the second alone: such a pair must not block adoption."""
    ours, theirs = tmp_path / "ours", tmp_path / "adopted" / "theirs"
    for owner in (ours, theirs):
        (owner / "damaged" / "20270115T080000Z-why").mkdir(parents=True)
        (owner / "damaged" / "20270115T080000Z-why" / "spool.db").write_text(owner.name)
    move_shelves(theirs, ours)
    assert sorted(path.read_text() for path in ours.glob("damaged/*/spool.db")) == ["ours", "theirs"]


async def test_folders_that_are_no_instances_are_left_alone(tmp_path: Path) -> None:
    """A data directory may hold other things with a lock in them."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "lock").touch()
    spool = await open_spool(tmp_path, QUICK)
    await asyncio.sleep(0.5)
    assert [path.name for path in other.iterdir()] == ["lock"]
    await spool.close(60)


async def test_a_living_process_is_never_adopted(tmp_path: Path) -> None:
    """Its lock is held."""
    one = await open_spool(tmp_path, QUICK)
    two = await open_spool(tmp_path, QUICK)
    one.ledger.observe()
    await one.keep(turn("t1"))
    await asyncio.sleep(0.5)
    assert len(instances(tmp_path)) == 2
    assert await names(two) == []
    await one.close(60)
    await two.close(60)


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    """flock, on the folder's own lock file."""
    lock = try_lock(tmp_path)
    assert lock is not None
    assert try_lock(tmp_path) is None
    lock.release()
    again = try_lock(tmp_path)
    assert again is not None
    again.release()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_network_file_systems_are_refused(tmp_path: Path, kind: str) -> None:
    """By the mount that the folder lies on, with advice."""
    mounts = (
        "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        f"30 24 0:50 / {tmp_path} rw,relatime shared:9 - {kind} server:/export rw\n"
    )
    with pytest.raises(SpoolRefused, match="local disk"):
        refuse_network(tmp_path / "spool", mounts)
    refuse_network(tmp_path.parent, mounts)


def test_a_local_mount_below_a_network_mount_is_allowed(tmp_path: Path) -> None:
    """The nearest mount decides."""
    mounts = (
        f"30 24 0:50 / {tmp_path} rw - nfs server:/export rw\n"
        f"31 30 8:2 / {tmp_path}/with\\040space rw - xfs /dev/sdb rw\n"
    )
    refuse_network(tmp_path / "with space" / "spool", mounts)


def test_a_new_instance_is_nobodys_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for orphans just before it is locked finds none."""
    lock_it = fcntl.flock
    found: list[object] = []

    def looked_at_before(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock_it)
        found.extend(try_lock(orphan) for orphan in instances(tmp_path))
        lock_it(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", looked_at_before)
    name = str(uuid.uuid4())
    lock = take(tmp_path, name)
    assert found == []
    assert lock.folder == tmp_path / name
    assert instances(tmp_path) == [tmp_path / name]
    assert try_lock(lock.folder) is None
    lock.release()


def test_a_private_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that fills up the old one stays, and nothing else is left."""
    write = Path.write_bytes

    def fills_up(path: Path, content: bytes) -> int:
        write(path, content[:3])
        raise OSError(errno.ENOSPC, "no space left")

    write_private_file(tmp_path / "file", b"before")
    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(OSError, match="no space"):
        write_private_file(tmp_path / "file", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]
