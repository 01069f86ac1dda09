"""The spool on the event loop: what it promises to capture and to delivery."""

import asyncio
import stat
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from capture.outcomes import Outcome, State
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Quarantine, Record, Shed, Sink
from ingest_client.spool import Checkpoint, Checkpoints, FullPolicy, Queue, Spool, SpoolRefused, SpoolSettings
from ingest_client.spool.rows import Row
from ingest_client.spool.sql import connect, integer
from ingest_client.spool.store import Store
from tests.patience import GrantedTime, eventually
from tests.unit.ingest_client.spool.parts import SECOND, START, Clock, Tried, turn

LARGE = 10**9


class Place:
    """A spool's folder and clock, opened as often as a test likes; every ledger must balance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.opened: list[Spool] = []

    async def open(self, settings: SpoolSettings | None = None) -> Spool:
        spool = await Spool.open(self.root, settings, clock=self.clock)
        self.opened.append(spool)
        return spool

    async def keep(
        self, spool: Spool, *names: str, tenant: str = "a", body: bytes = b"{}"
    ) -> list[Kept | Shed]:
        for _ in names:
            spool.ledger.observe()
        return await asyncio.gather(
            *(spool.keep(turn(name, tenant=tenant, body=body, at_ns=self.clock())) for name in names)
        )

    async def claim(self, spool: Spool, *, limit: int = 100, per_tenant: int = 100) -> list[str]:
        return [turn.turn_id for turn in await spool.claim(limit, LARGE, self.clock(), per_tenant=per_tenant)]


@pytest.fixture(params=[False, True], ids=["disk", "memory"])
async def any_place(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Place, SpoolSettings]]:
    place = Place(tmp_path / "spool")
    yield place, SpoolSettings(memory_only=request.param)
    for spool in place.opened:
        await spool.close(60)
        assert spool.ledger.imbalance == 0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path / "spool")
    yield place
    for spool in place.opened:
        await spool.close(60)
        assert spool.ledger.imbalance == 0
        assert spool.ledger.open >= 0


async def test_the_spool_is_a_sink_a_queue_and_a_keeper_of_checkpoints(place: Place) -> None:
    """The seams are protocols: the type checkers hold the spool to them here."""
    spool = await place.open()
    sink: Sink = spool
    queue: Queue = spool
    checkpoints: Checkpoints = spool
    assert {id(sink), id(queue), id(checkpoints)} == {id(spool)}


async def test_a_kept_turn_is_claimed_with_its_body_and_counted(
    any_place: tuple[Place, SpoolSettings],
) -> None:
    """Keep, claim, acknowledge: the way of nearly every turn, in both modes."""
    place, settings = any_place
    spool = await place.open(settings)
    body = b'{"text": "' + b"hello " * 5000 + b'"}'
    assert await place.keep(spool, "t1", body=body) == [Kept()]
    assert spool.ledger == Ledger(observed=1, spooled=1)
    assert spool.backlog["a"].turns == 1
    (claimed,) = await spool.claim(10, LARGE, place.clock(), per_tenant=10)
    assert (claimed.turn_id, claimed.tenant, claimed.body, claimed.attempts) == ("t1", "a", body, 0)
    assert spool.backlog == {}
    await spool.acknowledge([claimed.seq])
    assert spool.ledger == Ledger(observed=1, delivered=1)


async def test_what_was_kept_or_claimed_is_pending_after_a_restart_and_what_was_acknowledged_is_not(
    place: Place,
) -> None:
    """At least once, and not once more than needed."""
    first = await place.open()
    await place.keep(first, "t1", "t2", "t3")
    claimed = await first.claim(2, LARGE, place.clock(), per_tenant=2)
    await first.acknowledge([claimed[0].seq])
    await first.close(60)
    second = await place.open()
    assert sorted(await place.claim(second)) == ["t2", "t3"]
    assert second.ledger == Ledger(observed=3, delivered=1, spooled=2)


async def test_the_balance_continues_over_restarts_and_open_exchanges_of_a_dead_process_are_lost(
    place: Place,
) -> None:
    """``lost(crash)`` names what nobody will finish."""
    first = await place.open()
    await place.keep(first, "t1")
    first.ledger.observe()
    first.ledger.observe()
    first.ledger.end(Outcome.POLICY)
    await first.close(60)
    second = await place.open()
    assert second.ledger == Ledger(
        observed=3, spooled=1, ended=_counter({Outcome.POLICY: 1, Outcome.CRASH: 1})
    )


async def test_counts_that_no_turn_carries_are_durable_within_a_second(place: Place) -> None:
    """An idle sidecar's exclusions survive a crash too."""
    first = await place.open()
    first.ledger.observe()
    first.ledger.end(Outcome.NON_TURN_REQUEST)
    granted = GrantedTime()
    await eventually(lambda: not first.ledger.unsaved and first.condition.commits >= 1)
    assert granted.passed_s() < 1.2
    assert await _observed_on_disk(first) == 1


async def test_counts_are_on_disk_when_a_flush_says_so_and_it_does_not_while_the_disk_is_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to be on disk is never looked for again. One that is refused leaves no job behind."""
    spool = await place.open()
    await asyncio.sleep(0.2)
    with monkeypatch.context() as full:
        full.setattr(Store, "note", _disk_full)
        spool.ledger.observe()
        assert [await spool.flush() for _ in range(5)] == [False] * 5
        assert spool._writer._owed == []
        assert await _observed_on_disk(spool) == 0
    async with asyncio.timeout(30):
        while not await spool.flush():
            await asyncio.sleep(0.05)
    assert await _observed_on_disk(spool) == 1


async def test_a_retry_waits_for_its_time_and_keeps_its_attempts(place: Place) -> None:
    """Due times, attempt numbers, and the order of retries before fresh turns."""
    spool = await place.open()
    await place.keep(spool, "t1", "t2")
    (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.retry(first.seq, place.clock() + 10 * SECOND, Tried(1))
    assert await place.claim(spool) == ["t2"]
    assert await place.claim(spool) == []
    place.clock.pass_s(11)
    (again,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    assert (again.turn_id, again.attempts) == ("t1", 1)


async def test_a_due_time_beyond_the_longest_delay_is_a_clock_that_stepped_back(place: Place) -> None:
    """Otherwise a corrected clock would hold a turn for years."""
    spool = await place.open()
    await place.keep(spool, "t1")
    (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.retry(first.seq, place.clock() + 400 * 86_400 * SECOND, Tried(1))
    assert await place.claim(spool) == ["t1"]


async def test_a_released_turn_is_claimable_at_once_and_counts_no_attempt(place: Place) -> None:
    """Given back untried."""
    spool = await place.open()
    await place.keep(spool, "t1", "t2")
    first, second = await spool.claim(2, LARGE, place.clock(), per_tenant=2)
    await spool.release([first.seq])
    (again,) = await spool.claim(2, LARGE, place.clock(), per_tenant=2)
    assert (again.turn_id, again.attempts) == ("t1", 0)
    await spool.acknowledge([second.seq, again.seq])
    assert spool.ledger.delivered == 2


async def test_a_dead_letter_is_kept_and_counted_under_its_outcome(place: Place) -> None:
    """Refused for good is not lost."""
    spool = await place.open()
    await place.keep(spool, "t1")
    (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.dead_letter(first.seq, Outcome.INGEST_REJECT, "422: bad", Tried(1, "422"))
    assert await place.claim(spool) == []
    assert spool.ledger.total(State.DEAD_LETTERED) == 1
    await spool.close(60)
    second = await place.open()
    assert second.ledger.total(State.DEAD_LETTERED) == 1
    assert await place.claim(second) == []


async def test_a_quarantined_record_is_kept_and_never_claimed(place: Place) -> None:
    """For a person, not for ingest."""
    spool = await place.open()
    spool.ledger.observe()
    why = Quarantine(outcome=Outcome.MARSHAL_ERROR, reason="surrogate \udc80 in text")
    assert await spool.keep(turn("t1", quarantine=why)) == Kept()
    assert spool.ledger.total(State.QUARANTINED) == 1
    assert await place.claim(spool) == []


async def test_the_same_turn_id_is_kept_once(place: Place) -> None:
    """The turn id is the key."""
    spool = await place.open()
    await place.keep(spool, "t1")
    assert await spool.keep(turn("t1")) == Kept()
    assert await place.claim(spool) == ["t1"]
    assert spool.ledger.spooled == 1


async def test_tenants_take_turns_within_a_claim(place: Place) -> None:
    """A backlog of one does not stand before another's."""
    spool = await place.open()
    await place.keep(spool, *(f"a{i}" for i in range(50)), tenant="a")
    await place.keep(spool, "b0", "b1", tenant="b")
    names = await place.claim(spool, limit=6)
    assert names == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert await place.claim(spool, limit=10, per_tenant=3) == ["a4", "a5", "a6"]
    assert [c.tenant for c in await spool.claim(5, LARGE, START, per_tenant=5, except_tenants=["a"])] == []


async def test_a_claim_stays_within_its_bytes_but_gives_a_large_first_turn(place: Place) -> None:
    """A turn larger than the limit would otherwise never leave."""
    spool = await place.open()
    await place.keep(spool, "t1", "t2", "t3", body=b"x" * 1000)
    assert len(await spool.claim(10, 10, place.clock(), per_tenant=10)) == 1
    assert len(await spool.claim(10, 2000, place.clock(), per_tenant=10)) == 2


async def test_waiting_ends_when_a_turn_is_kept_and_when_one_becomes_due(place: Place) -> None:
    """Delivery sleeps between."""
    spool = await place.open()
    assert await place.claim(spool) == []
    waiting = asyncio.create_task(spool.wait_for_work())  # noqa: RUF100, TID251
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await place.keep(spool, "t1")
    await asyncio.wait_for(waiting, 20)
    (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.retry(first.seq, place.clock() + SECOND // 10, Tried(1))
    while await spool.claim(1, LARGE, place.clock(), per_tenant=1):
        pass
    await asyncio.wait_for(spool.wait_for_work(), 20)
    place.clock.pass_s(1)
    assert await place.claim(spool) == ["t1"]


async def test_waiting_goes_on_while_nothing_is_kept_whatever_changed_before(place: Place) -> None:
    """An idle sidecar sleeps: a wait that ends at once, again and again, cost it 5 % of a core."""
    spool = await place.open()
    for _ in range(2):  # after its opening, and after its last turn was settled
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(spool.wait_for_work(), 0.1)
        await place.keep(spool, "t1")
        (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
        await spool.acknowledge([first.seq])


async def test_over_the_byte_quota_the_new_turn_is_shed_with_its_outcome(place: Place) -> None:
    """The default policy keeps what is kept."""
    spool = await place.open(SpoolSettings(quota_bytes=25_000, zstd_level=0))
    answers = await place.keep(spool, "t1", "t2", "t3", body=b"x" * 10_000)
    assert [type(answer) for answer in answers] == [Kept, Kept, Shed]
    assert spool.ledger.ended == _counter({Outcome.OVER_BUDGET: 1})
    (first, *_) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.acknowledge([first.seq])
    assert await place.keep(spool, "t4", body=b"x" * 10_000) == [Kept()]


async def test_drop_oldest_gives_up_the_oldest_pending_turns_instead(place: Place) -> None:
    """The other policy: newest first to be kept."""
    spool = await place.open(
        SpoolSettings(quota_bytes=25_000, zstd_level=0, full_policy=FullPolicy.DROP_OLDEST)
    )
    answers = await place.keep(spool, "t1", "t2", "t3", body=b"x" * 10_000)
    assert answers == [Kept(), Kept(), Kept()]
    assert await place.claim(spool) == ["t2", "t3"]
    assert spool.ledger.ended == _counter({Outcome.OVER_BUDGET: 1})


async def test_drop_oldest_drops_nothing_for_a_turn_that_cannot_fit(place: Place) -> None:
    """One turn larger than the quota would cost every other one, and be shed itself."""
    spool = await place.open(
        SpoolSettings(quota_bytes=25_000, zstd_level=0, full_policy=FullPolicy.DROP_OLDEST)
    )
    await place.keep(spool, "t1", "t2", body=b"x" * 10_000)
    (answer,) = await place.keep(spool, "large", body=b"x" * 30_000)
    assert isinstance(answer, Shed)
    assert "never dropped" in answer.reason
    assert spool.ledger == Ledger(observed=3, spooled=2, ended=_counter({Outcome.OVER_BUDGET: 1}))


async def test_drop_oldest_drops_nothing_beside_dead_letters_and_claims_that_fill_the_quota(
    place: Place,
) -> None:
    """They are never dropped, so each new turn would drop what waits, for nothing; released, it may."""
    settings = SpoolSettings(quota_bytes=35_000, zstd_level=0, full_policy=FullPolicy.DROP_OLDEST)
    spool = await place.open(settings)
    await place.keep(spool, "dead", "claimed", "waits", body=b"x" * 10_000)
    (dead, claimed) = await spool.claim(2, LARGE, place.clock(), per_tenant=2)
    await spool.dead_letter(dead.seq, Outcome.INGEST_REJECT, "422", Tried(1))
    (answer,) = await place.keep(spool, "t4", body=b"x" * 16_000)
    assert isinstance(answer, Shed)
    assert spool.ledger.spooled == 2
    await spool.release([claimed.seq])
    assert await place.keep(spool, "t5", body=b"x" * 14_000) == [Kept()]
    assert await place.claim(spool) == ["waits", "t5"]
    await spool.close(60)
    again = await place.open(settings)
    (answer,) = await place.keep(again, "t6", body=b"x" * 26_000)
    assert isinstance(answer, Shed)
    assert again.ledger.spooled == 2


async def test_drop_oldest_takes_from_the_tenant_that_is_over_its_own_quota(place: Place) -> None:
    """Also when the whole spool is full: the others' older turns would make no room for this one."""
    spool = await place.open(
        SpoolSettings(
            quota_bytes=35_000,
            tenant_quota_bytes=15_000,
            zstd_level=0,
            full_policy=FullPolicy.DROP_OLDEST,
        )
    )
    await place.keep(spool, "b1", tenant="b", body=b"x" * 10_000)
    await place.keep(spool, "c1", tenant="c", body=b"x" * 10_000)
    await place.keep(spool, "a1", body=b"x" * 10_000)
    assert await place.keep(spool, "a2", body=b"x" * 10_000) == [Kept()]
    assert sorted(await place.claim(spool)) == ["a2", "b1", "c1"]


async def test_a_tenant_quota_touches_nobody_else(place: Place) -> None:
    """One tenant's flood is its own."""
    spool = await place.open(SpoolSettings(tenant_quota_bytes=15_000, zstd_level=0))
    answers = await place.keep(spool, "a1", "a2", body=b"x" * 10_000)
    assert [type(answer) for answer in answers] == [Kept, Shed]
    assert await place.keep(spool, "b1", tenant="b", body=b"x" * 10_000) == [Kept()]


async def test_a_turn_older_than_the_age_quota_is_lost_under_ingest_timeout(place: Place) -> None:
    """Only what nobody claimed, and by the injected clock."""
    spool = await place.open(SpoolSettings(quota_age_s=60))
    await place.keep(spool, "t1", "t2")
    (claimed,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    place.clock.pass_s(61)
    await place.keep(spool, "t3")
    await eventually(lambda: spool.ledger.ended == _counter({Outcome.INGEST_TIMEOUT: 1}))
    await spool.acknowledge([claimed.seq])
    assert spool.ledger == Ledger(
        observed=3, delivered=1, spooled=1, ended=_counter({Outcome.INGEST_TIMEOUT: 1})
    )


async def test_what_waits_for_the_disk_is_bounded(place: Place) -> None:
    """Beyond the bound a turn is shed at once, not queued."""
    spool = await place.open(SpoolSettings(queue_items=3))
    answers = await place.keep(spool, "t1", "t2", "t3", "t4")
    assert [type(answer) for answer in answers] == [Kept, Kept, Kept, Shed]
    assert spool.ledger.ended == _counter({Outcome.OVER_BUDGET: 1})


async def test_files_and_folders_are_private(place: Place) -> None:
    """Captured turns are nobody else's business."""
    spool = await place.open()
    await place.keep(spool, "t1")
    for path in [place.root, *place.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


async def test_two_processes_below_one_root_have_folders_of_their_own(place: Place) -> None:
    """The lock decides; the second does not touch the first's turns."""
    first = await place.open()
    await place.keep(first, "t1")
    second = await place.open()
    assert await place.claim(second) == []
    assert await place.claim(first) == ["t1"]
    assert len(list(place.root.iterdir())) == 2


async def test_a_newer_schema_is_refused_with_versions_and_advice(place: Place) -> None:
    """Better no start than a turn misread."""
    first = await place.open()
    await first.close(60)
    (database,) = place.root.rglob("spool.db")
    _sql(database, "PRAGMA user_version = 7", "UPDATE meta SET value = 7 WHERE key = 'schema_version'")
    with pytest.raises(SpoolRefused, match=r"version 7; this release reads up to 1.*another data directory"):
        await place.open()


async def test_an_interrupted_exchange_comes_back_from_its_checkpoint_after_a_crash(place: Place) -> None:
    """The exchange stays open in the books until its interrupted turn is kept."""
    first = await place.open()
    first.ledger.observe()
    first.ledger.observe()
    assert await first.checkpoint(_snapshot("t1", b"half", place.clock()))
    await first.close(60)
    second = await place.open()
    assert second.ledger == Ledger(observed=2, open=1, ended=_counter({Outcome.CRASH: 1}))
    (found,) = await second.take_interrupted(place.clock())
    assert (found.turn_id, found.tenant, found.body) == ("t1", "a", b"half")
    assert await second.take_interrupted(place.clock()) == []
    assert await second.keep(turn("t1")) == Kept()
    assert second.ledger == Ledger(observed=2, spooled=1, ended=_counter({Outcome.CRASH: 1}))
    await second.close(60)
    third = await place.open()
    assert await third.take_interrupted(place.clock()) == []
    assert third.ledger.open == 0


@pytest.mark.parametrize(
    "settings",
    [
        SpoolSettings(queue_items=1),
        SpoolSettings(queue_bytes=15_000, zstd_level=0),
        SpoolSettings(quota_bytes=15_000, zstd_level=0),
    ],
    ids=["queue items", "queue bytes", "quota"],
)
async def test_an_interrupted_turn_that_is_shed_counts_nowhere_and_is_handed_out_again(
    place: Place, settings: SpoolSettings
) -> None:
    """Its snapshot is still on the disk: to count it as lost would count it twice."""
    await _crash_with(place, "t1", "t2", "t3")
    spool = await place.open(settings)
    while left := await spool.take_interrupted(place.clock()):
        answers = await asyncio.gather(*(spool.keep(_interrupted(each)) for each in left))
        kept = sum(answer == Kept() for answer in answers)
        assert (kept, len(left) - kept) in [(1, 2), (1, 1), (1, 0)]
        assert (spool.ledger.observed, spool.ledger.ended) == (3, Counter())
        for each in await spool.claim(9, LARGE, place.clock(), per_tenant=9):
            await spool.acknowledge([each.seq])
    assert spool.ledger == Ledger(observed=3, delivered=3)
    await spool.close(60)
    assert (await place.open()).ledger == Ledger(observed=3, delivered=3)


async def test_an_interrupted_turn_that_met_a_full_disk_is_handed_out_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that filled up may be what ended the process before."""
    await _crash_with(place, "t1")
    spool = await place.open()
    (left,) = await spool.take_interrupted(place.clock())
    with monkeypatch.context() as full:
        full.setattr(Store, "keep", _disk_full)
        assert isinstance(await spool.keep(_interrupted(left)), Shed)
    await eventually(lambda: not spool.condition.trouble)
    assert spool.ledger == Ledger(observed=1, open=1)
    assert await spool.take_interrupted(place.clock()) == [left]
    assert await spool.keep(_interrupted(left)) == Kept()
    assert spool.ledger == Ledger(observed=1, spooled=1)


async def test_what_a_failed_transaction_handed_out_is_handed_out_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller was told that there is nothing."""
    await _crash_with(place, "t1")
    spool = await place.open()
    with monkeypatch.context() as full:
        full.setattr(Store, "note", _disk_full)
        assert await spool.take_interrupted(place.clock()) == []
    async with asyncio.timeout(30):
        while not (again := await spool.take_interrupted(place.clock())):
            await asyncio.sleep(0.05)
    assert len(again) == 1


async def test_what_a_crash_left_is_handed_out_some_bytes_at_a_time_and_each_once(place: Place) -> None:
    """A process that died of its memory must find the way back with little of it."""
    first = await place.open()
    body = b"some words " * 100_000
    for number in range(20):
        first.ledger.observe()
        await first.checkpoint(_snapshot(f"t{number:02}", body, place.clock()))
    await first.close(60)
    second = await place.open(SpoolSettings(queue_bytes=8 * 3 * len(body)))
    pages: list[list[Checkpoint]] = []
    while page := await second.take_interrupted(place.clock()):
        pages.append(page)
    assert {len(page) for page in pages[:-1]} == {3}
    assert sorted(each.turn_id for page in pages for each in page) == [f"t{n:02}" for n in range(20)]
    assert {each.body for page in pages for each in page} == {body}


async def test_a_snapshot_larger_than_a_page_is_handed_out_even_so(place: Place) -> None:
    first = await place.open()
    first.ledger.observe()
    await first.checkpoint(_snapshot("t1", b"x" * 10_000, place.clock()))
    await first.close(60)
    second = await place.open(SpoolSettings(queue_bytes=1_000))
    (found,) = await second.take_interrupted(place.clock())
    assert len(found.body) == 10_000


async def test_keep_clears_the_checkpoint_of_its_turn(place: Place) -> None:
    """In the same transaction: a crash after it finds a turn, not a snapshot."""
    first = await place.open()
    first.ledger.observe()
    await first.checkpoint(_snapshot("t1", b"half", place.clock()))
    await first.keep(turn("t1"))
    await first.close(60)
    second = await place.open()
    assert await second.take_interrupted(place.clock()) == []


async def test_an_exchange_without_a_heartbeat_is_handed_out_and_its_late_end_changes_nothing(
    place: Place,
) -> None:
    """Terminal states are written once: the first ``keep`` stands."""
    spool = await place.open()
    spool.ledger.observe()
    await spool.checkpoint(_snapshot("t1", b"half", place.clock()))
    place.clock.pass_s(299)
    assert await spool.take_interrupted(place.clock()) == []
    place.clock.pass_s(2)
    (found,) = await spool.take_interrupted(place.clock())
    assert await spool.keep(turn(found.turn_id, body=b'"interrupted"')) == Kept()
    assert await spool.keep(turn(found.turn_id, body=b'"late"')) == Kept()
    claimed = await spool.claim(9, LARGE, place.clock(), per_tenant=9)
    assert [turn.body for turn in claimed] == [b'"interrupted"']
    assert spool.ledger == Ledger(observed=1, spooled=1)


async def test_a_forgotten_checkpoint_is_gone(place: Place) -> None:
    """An exchange that ended without a turn leaves nothing to finalise."""
    spool = await place.open()
    spool.ledger.observe()
    await spool.checkpoint(_snapshot("t1", b"half", place.clock()))
    await spool.forget("t1")
    spool.ledger.end(Outcome.CLIENT_DISCONNECT)
    place.clock.pass_s(1000)
    assert await spool.take_interrupted(place.clock()) == []


async def test_a_closed_spool_sheds_what_comes_after(place: Place) -> None:
    """And says so, with a count."""
    spool = await place.open()
    await spool.close(60)
    spool.ledger.observe()
    assert isinstance(await spool.keep(turn("t1")), Shed)


async def test_nothing_hangs_on_a_closed_spool(place: Place) -> None:
    """Delivery may still be settling when the sidecar stops: such turns are delivered once more."""
    spool = await place.open()
    await place.keep(spool, "t1")
    (claimed,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.close(60)
    async with asyncio.timeout(20):
        await spool.acknowledge([claimed.seq])
        await spool.release([claimed.seq])
        assert await spool.claim(1, LARGE, place.clock(), per_tenant=1) == []
        assert await spool.take_interrupted(place.clock()) == []
    again = await place.open()
    assert await place.claim(again) == ["t1"]


async def test_a_bug_in_one_job_costs_that_job_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group is run again one by one: the others are kept, the one is shed and counted."""
    spool = await place.open()
    keep = Store.keep

    def broken(store: Store, record: Record) -> Kept | Shed:
        if record.turn_id == "t2":
            raise ZeroDivisionError
        return keep(store, record)

    monkeypatch.setattr(Store, "keep", broken)
    answers = await place.keep(spool, "t1", "t2", "t3")
    assert [type(answer) for answer in answers] == [Kept, Shed, Kept]
    assert spool.ledger == Ledger(observed=3, spooled=2, ended=_counter({Outcome.OVER_BUDGET: 1}))


async def test_turns_claimed_in_vain_are_claimable_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails in the midst of a claim must not leave turns that nobody has and nobody gets."""
    first = await place.open()
    await place.keep(first, "t1", "t2", "t3")
    await first.close(60)
    spool = await place.open()
    body = Store.body
    failures = iter([False, True])

    def failing(store: Store, row: Row) -> bytes:
        if next(failures, False):
            raise apsw.IOError("injected")
        return body(store, row)

    monkeypatch.setattr(Store, "body", failing)
    assert await place.claim(spool) == []
    assert spool.backlog["a"].turns == 3
    assert await place.claim(spool) == ["t1", "t2", "t3"]


async def _crash_with(place: Place, *names: str) -> None:
    """A process that dies with these exchanges open, each with a snapshot of 10 KB."""
    first = await place.open()
    for name in names:
        first.ledger.observe()
        await first.checkpoint(_snapshot(name, b"x" * 10_000, place.clock()))
    await first.close(60)


def _interrupted(left: Checkpoint) -> Record:
    return Record(
        turn_id=left.turn_id,
        tenant=left.tenant,
        body=left.body,
        created_at_ns=left.started_at_ns,
        interrupted=True,
    )


async def _observed_on_disk(spool: Spool) -> int:
    """As the table has it, in no one's memory."""
    sql = "SELECT ifnull(sum(n), 0) FROM ledger WHERE term = 'observed'"
    return await spool._ask(lambda desk: integer(desk.store.connection, sql))


def _disk_full(*_: object) -> None:
    raise apsw.FullError("database or disk is full")


def _snapshot(turn_id: str, body: bytes, at_ns: int) -> Checkpoint:
    return Checkpoint(turn_id=turn_id, tenant="a", started_at_ns=at_ns, heartbeat_at_ns=at_ns, body=body)


def _counter(counts: dict[Outcome, int]) -> "Counter[Outcome]":
    return Counter(counts)


def _sql(database: Path, *statements: str) -> None:
    connection = connect(str(database))
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("steps", range(4))
async def test_waiting_can_be_stopped_whenever_work_comes(place: Place, steps: int) -> None:
    """A cancellation that was lost here, at the moment in which work came, kept a worker from stopping."""
    spool = await place.open()
    await place.keep(spool, "t1")
    (first,) = await spool.claim(1, LARGE, place.clock(), per_tenant=1)
    await spool.retry(first.seq, place.clock() + 60 * SECOND, Tried(1))
    assert await spool.claim(1, LARGE, place.clock(), per_tenant=1) == []
    waiting = asyncio.create_task(spool.wait_for_work())  # noqa: RUF100, TID251
    await asyncio.sleep(0.05)
    assert not waiting.done()
    spool._changed.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
