"""No turn, and no damaged row, ends the service or stops the turns behind it."""

import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from ingest.derivation.derive import Derived
from ingest.deriver import derive_all
from ingest.store import derived as derived_tables
from ingest.store.connection import Connection
from ingest.store.rows import MOST, TurnRow
from tests.patience import eventually
from tests.unit.ingest.rows import new_turn
from tests.unit.ingest.running import Client, service, turn

SESSION = {"harness_id": "h", "harness_session_id": "s"}


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def goes_on(client: Client) -> None:
    """Another turn is taken and derived."""
    answer = await client.turn(turn("afterwards", session={"harness_id": "h", "harness_session_id": "later"}))
    assert answer.status_code == 202
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT label FROM runs WHERE label = ?", "afterwards") == [("afterwards",)]


async def test_an_escape_that_is_spelled_out_in_metadata_stays_as_it_is(client: Client) -> None:
    """And NUL itself becomes U+FFFD, in names as in values."""
    said = {"spelled": "\\u0000", "nul": "a\0b", "in\0name": [{"deep": "\0"}]}
    await client.turn(turn("one", session=SESSION | {"harness_metadata": said}))
    assert await client.service.deriver.settled(30)
    await client.turn(turn("two", session=SESSION | {"harness_metadata": {"more": 1}}))
    await goes_on(client)
    sessions = (await client.get("/v1/sessions")).json()["sessions"]
    (metadata,) = [one["metadata"] for one in sessions if one["harness_session_id"] == "s"]
    assert metadata == {
        "spelled": "\\u0000",
        "nul": "a\ufffdb",
        "in\ufffdname": [{"deep": "\ufffd"}],
        "more": 1,
    }


async def test_metadata_that_an_earlier_version_spoiled_is_begun_anew(client: Client) -> None:
    await client.turn(turn("one", session=SESSION | {"harness_metadata": {"a": 1}}))
    assert await client.service.deriver.settled(30)
    await client.service.store.write(
        lambda connection: connection.run("UPDATE sessions SET metadata = ?", ('{"a":"\\\ufffd"}',))
    )
    await client.turn(turn("two", session=SESSION | {"harness_metadata": {"b": 2}}))
    await goes_on(client)
    rows = await client.rows("SELECT metadata FROM sessions WHERE harness_session_id = 's'")
    assert rows == [('{"b":2}',)]


async def test_sums_of_tokens_stop_where_everybody_still_reads_them(client: Client) -> None:
    """1,200 turns that claim 2**53 - 1 tokens each are beyond 64 bits."""
    usage = {"prompt_tokens": MOST, "completion_tokens": MOST}
    response = turn()["response"] | {"usage": usage}
    for start in range(0, 1200, 400):
        turns = [turn(f"{n}", response=response, session=SESSION) for n in range(start, start + 400)]
        posted = await client.post("/v1/ingest/batch", json={"turns": turns})
        assert posted.json()["accepted"] == 400
    assert await client.service.deriver.settled(60)
    await goes_on(client)
    assert await client.rows("SELECT count(*) FROM derive_failures") == [(0,)]
    for table in ("usage", "sessions"):
        assert (await client.rows(f"SELECT max(input_tokens), max(turns) FROM {table}")) == [(MOST, 1200)]
    for by in ("day", "session_id"):
        (row, *_) = sorted(
            (await client.get("/v1/usage", params={"by": by})).json()["usage"], key=lambda row: -row["turns"]
        )
        assert row["total_tokens"] == MOST
    (gone,) = (await client.rows("SELECT id FROM sessions WHERE harness_session_id = 's'"))[0]
    await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert await client.rows("SELECT min(total_tokens) >= 0 FROM usage_days") in ([(1,)], [(True,)])


DAMAGE = {
    "its frame is cut": "UPDATE bodies SET request = substr(request, 1, 50)",
    "it is gone": "DELETE FROM bodies",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
async def test_a_damaged_body_is_a_failure_of_its_turn_alone(
    tmp_path: Path, database_url: str, damage: str
) -> None:
    """Also at the next start."""
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        for text in ("damaged", "whole"):
            assert (await client.turn(turn(text + " " * 5000))).status_code == 202
        await client.service.store.write(
            lambda connection: connection.run(f"{damage} WHERE seq = (SELECT min(seq) FROM turns)")
        )
    for _ in range(2):
        async with service(tmp_path, database_url=database_url) as client:
            await goes_on(client)
            assert await client.rows("SELECT count(*) FROM derive_failures") == [(1,)]
            assert await client.rows("SELECT label FROM runs WHERE label = 'whole'") == [("whole",)]


async def test_a_turn_whose_rows_cannot_be_saved_costs_its_batch_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the store refuses, the others of the batch are saved, and the reason of the one is kept."""
    save = derived_tables.save

    def refusing(
        connection: Connection,
        derived: Sequence[Derived],
        failures: Sequence[tuple[int, str]] = (),
        refused: Sequence[TurnRow] = (),
    ) -> object:
        events = save(connection, derived, failures, refused)
        if any(one.step and one.step.label == "bad" for one in derived):
            raise OverflowError("beyond 64 bits")
        return events

    monkeypatch.setattr(derived_tables, "save", refusing)
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        for text in ("before", "bad", "behind"):
            await client.turn(turn(text))
    async with service(tmp_path, database_url=database_url) as client:
        await goes_on(client)
        assert await client.rows("SELECT reason FROM derive_failures") == [
            ("not saved: OverflowError: beyond 64 bits",)
        ]
        labels = await client.rows("SELECT label FROM runs ORDER BY label")
        assert labels == [("afterwards",), ("before",), ("behind",)]


async def test_a_bug_in_derivation_ends_neither_it_nor_the_service(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pending = derived_tables.pending
    monkeypatch.setattr("ingest.deriver._TROUBLE_S", 0.05)

    def broken(connection: Connection, limit: int) -> list[derived_tables.Waiting]:
        raise ZeroDivisionError

    monkeypatch.setattr(derived_tables, "pending", broken)
    await client.turn(turn())
    await eventually(lambda: "derivation failed" in caplog.text)
    monkeypatch.setattr(derived_tables, "pending", pending)
    await goes_on(client)


async def test_a_batch_is_bounded_by_the_bytes_of_its_bodies(client: Client) -> None:
    """Large turns are derived few at a time, and one that is larger than the bound alone."""
    await client.service.store.put([new_turn(size=size) for size in (3 << 20, 3 << 20, 9 << 20, 1, 1)])
    batches: list[int] = []

    def derive_some(connection: Connection) -> int:
        batch = derived_tables.pending(connection, 256)
        derived_tables.save(connection, *derive_all(batch))
        return len(batch)

    while count := await client.service.store.write(derive_some):
        batches.append(count)
    assert batches == [2, 1, 2]


async def test_a_turn_beyond_what_the_store_takes_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 503: nobody may send it again and again."""
    monkeypatch.setattr("ingest.store.sqlite._MAX_BLOB", 1 << 20)
    async with service(tmp_path) as client:
        answer = await client.turn(turn(os.urandom(2 << 20).hex()))
        assert (answer.status_code, answer.json()["error"]) == (
            413,
            "the turn is too large for the store: SQLite takes no row beyond 1048576 bytes",
        )
        assert (await client.get("/readyz")).status_code == 200, "others' turns are not too large"
        await goes_on(client)
