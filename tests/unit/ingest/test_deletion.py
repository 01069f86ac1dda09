"""Deletion, retention, export, deriving again."""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from ingest import administering, intake
from ingest.archive import Lines, lines_after
from ingest.derivation.sessions import session_id as session_name
from ingest.portable import LineError, decode
from ingest.retention import Retention, Rule, scopes
from ingest.store.connection import Connection, UnavailableError
from ingest.store.deletion import Scope, delete_some
from ingest.store.portable import Choice
from tests.unit.ingest.running import JSON, Client, service, turn
from tests.unit.ingest.test_access import bearer, key, keys_file

TABLES = ("nodes", "node_agents", "node_sessions", "sessions", "runs", "steps", "usage", "usage_days")
DAY_US = 86_400_000_000


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def fill(client: Client) -> None:
    for session in ("s1", "s2"):
        for n in range(3):
            envelope = {"harness_id": "h", "harness_session_id": session}
            await client.turn(turn(f"{n}", f"secret of {session}", session=envelope, agent_name="a"))
    assert await client.service.deriver.settled(30)


async def contents(client: Client) -> dict[str, list[tuple[Any, ...]]]:
    return {table: sorted(await client.rows(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


async def session_id(client: Client, name: str) -> str:
    rows = await client.rows("SELECT id FROM sessions WHERE harness_session_id = ?", name)
    return str(rows[0][0])


async def test_a_deleted_session_leaves_nothing_and_takes_nothing_else(client: Client) -> None:
    await fill(client)
    envelope = {"harness_id": "h", "harness_session_id": "s1"}
    body = json.dumps({"session": envelope, "records": [{"a": 1}]})
    await client.post("/v1/ingest/transcript", content=body, headers=JSON)
    gone, stays = await session_id(client, "s1"), await session_id(client, "s2")
    answer = await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert answer.json()["deleted"] == 4, "three turns and a transcript"
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT count(*) FROM bodies") == [(3,)]
    left = await contents(client)
    assert {row[1] for row in left["sessions"]} == {stays}
    assert "secret of s1" not in repr(left)
    assert len(left["nodes"]) == 6, "three shared questions and three answers"


async def test_deleting_and_deriving_again_agree(client: Client) -> None:
    await fill(client)
    gone = await session_id(client, "s1")
    await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert await client.service.deriver.settled(30)
    after_deletion = await contents(client)
    assert (await client.post("/v1/derive")).json() == {"pending": 3}
    assert await client.service.deriver.settled(30)
    again = await contents(client)
    assert {name: len(rows) for name, rows in again.items()} == {
        name: len(rows) for name, rows in after_deletion.items()
    }
    for table in ("sessions", "runs", "steps", "usage", "node_sessions"):
        assert again[table] == after_deletion[table]


async def test_deriving_again_gives_the_same(client: Client) -> None:
    await fill(client)
    before = await contents(client)
    await client.post("/v1/derive")
    assert await client.service.deriver.settled(30)
    assert await contents(client) == before


async def test_a_deletion_retried_covers_what_the_first_covered(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names the time as exactly as turns have it: a turn of the same millisecond is covered again."""
    now_us = 1_700_000_000_123_456
    monkeypatch.setattr(administering, "time", SimpleNamespace(time_ns=lambda: now_us * 1000))
    monkeypatch.setattr(intake, "stamp", lambda: intake.Stamp(now_us - 1, bytes(10)))
    first = (await client.delete("/v1/turns", params={"tenant": "default"})).json()
    assert first == {"deleted": 0, "before": "2023-11-14T22:13:20.123456Z"}
    await client.turn(turn())
    again = await client.delete("/v1/turns", params={"tenant": "default", "before": first["before"]})
    assert again.json() == {"deleted": 1, "before": first["before"]}


async def test_a_deletion_retried_removes_nothing_newer(client: Client) -> None:
    await fill(client)
    first = (await client.delete("/v1/turns", params={"tenant": "default"})).json()
    assert first["deleted"] == 6
    await client.turn(turn("newer"))
    again = await client.delete("/v1/turns", params={"tenant": "default", "before": first["before"]})
    assert again.json()["deleted"] == 0
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_a_deletion_by_time_leaves_what_came_later(client: Client) -> None:
    await client.turn(turn("old"))
    await client.turn(turn("new"))
    assert await client.service.deriver.settled(30)
    times = await client.rows("SELECT received_at_us FROM turns ORDER BY seq")
    before = datetime.fromtimestamp(times[1][0] / 1e6, UTC).isoformat()
    answer = await client.delete("/v1/turns", params={"tenant": "default", "before": before})
    assert answer.json()["deleted"] == 1
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT label FROM runs") == [("new",)]


async def test_a_deletion_cut_off_in_its_midst_is_finished_by_its_retry(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that were committed are gone and audited; the retry does the rest, and nothing newer."""
    monkeypatch.setattr("ingest.store.deletion.BATCH", 2)
    await fill(client)
    before_us = int((await client.rows("SELECT max(received_at_us) FROM turns"))[0][0]) + 1
    scope = Scope(tenant="default", before_us=before_us)
    count, _ = await client.service.store.write(partial(delete_some, scope=scope, who="x", now_us=1))
    assert count == 2
    await client.turn(turn("newer"))
    assert await client.service.retention.delete(scope, "x") == 4
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]
    assert await client.rows("SELECT label FROM runs") == [("newer",)]
    assert await client.rows("SELECT turns, scope FROM audit") == [(2, scope.words())] * 3


async def test_a_deletion_is_audited_and_told(client: Client) -> None:
    await fill(client)
    async with client.service.hub.listen("default") as listener:
        await client.delete("/v1/turns", params={"tenant": "default"})
        # Between instances, what was derived before may be told late: it is not looked at.
        told = [await listener.next()]
        while sum(event.kind == "delete" for event in told) < 2:
            told.append(await listener.next())
    assert [event.turns for event in told if event.kind == "delete"] == [3, 3], "each session's own"
    assert await client.rows("SELECT who, action, tenant, turns FROM audit") == [
        ("open", "delete", "default", 6)
    ]


async def test_a_deletion_names_its_tenant(client: Client) -> None:
    assert (await client.delete("/v1/turns")).status_code == 400


async def test_other_tenants_are_left_alone(client: Client) -> None:
    await client.turn(turn(meta={"tenant": "a"}))
    await client.turn(turn(meta={"tenant": "b"}))
    assert await client.service.deriver.settled(30)
    await client.delete("/v1/turns", params={"tenant": "a"})
    assert await client.rows("SELECT DISTINCT tenant FROM turns") == [("b",)]
    assert await client.rows("SELECT DISTINCT tenant FROM nodes") == [("b",)]


async def test_what_outlives_its_rule_is_deleted(client: Client) -> None:
    await client.turn(turn(meta={"tenant": "short"}))
    await client.turn(turn(meta={"tenant": "long"}))
    await client.turn(turn(provider="nobody"))
    await client.rows("SELECT 1")
    rules = (Rule(tenant="short", accepted_days=1), Rule(accepted_days=None, rejected_days=1))
    retention = Retention(client.service.store, rules, client.service.hub.publish)
    now_us = int((await client.rows("SELECT max(received_at_us) FROM turns"))[0][0])
    assert await retention.sweep(now_us) == 0
    assert await retention.sweep(now_us + 2 * DAY_US) == 2
    assert await client.rows("SELECT tenant, state FROM turns") == [("long", "accepted")]
    audited = await client.rows("SELECT who, action, tenant, turns FROM audit ORDER BY tenant")
    assert audited == [("retention", "delete", "default", 1), ("retention", "delete", "short", 1)]


def test_without_rules_only_rejected_turns_go() -> None:
    (scope,) = scopes((), ["t"], 100 * DAY_US)
    assert (scope.state, scope.before_us) == ("rejected", 70 * DAY_US)


async def test_an_export_has_every_turn_whole(client: Client) -> None:
    await fill(client)
    answer = await client.get("/v1/export", params={"tenant": "default"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 6
    assert lines[0]["request"] == turn("0")["request"]
    assert lines[0]["response"]["message"]["content"][0]["text"] == "secret of s1"


async def test_an_export_goes_on_behind_a_damaged_turn_and_says_so(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(client)
    await client.service.store.write(
        lambda connection: connection.run("DELETE FROM bodies WHERE seq = (SELECT min(seq) FROM turns)")
    )
    answer = await client.get("/v1/export", params={"tenant": "default"})
    first, *others = answer.text.splitlines()
    assert len(others) == 5
    identifier = (await client.rows("SELECT id FROM turns ORDER BY seq LIMIT 1"))[0][0]
    assert json.loads(first) == {"version": 1, "unreadable": identifier, "reason": "its body is gone"}
    with pytest.raises(LineError):
        decode(first.encode())
    assert "cannot be exported: its body is gone" in caplog.text


async def test_an_export_that_loses_its_store_has_no_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is out already: what is left to say it with is the end of the body that HTTP gives a whole one."""
    await fill(client)

    def first_page_only(connection: Connection, choice: Choice, after: int) -> Lines:
        if after:
            raise UnavailableError("gone")
        return lines_after(connection, choice, after)

    monkeypatch.setattr(administering, "lines_after", first_page_only)
    await breaks_off(client)


async def breaks_off(client: Client, *headers: tuple[bytes, bytes]) -> None:
    """Export, and get the first page of six turns, and no end."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return await asyncio.sleep(30)

    scope = {"type": "http", "method": "GET", "path": "/v1/export", "query_string": b"tenant=default"}
    with pytest.raises(Exception, match=r"gone|already started"):
        await client.asgi(scope | {"headers": headers, "http_version": "1.1"}, receive, send)
    assert sent[0]["status"] == 200
    assert len(sent) == 7
    assert all(message["more_body"] for message in sent[1:])


async def test_an_export_breaks_off_once_its_key_is_taken_out(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A key is looked up for each page, not once for all that a tenant ever sent."""
    keys = keys_file(tmp_path, key("t", ["default"], "admin", "write"))
    async with service(tmp_path, database_url=database_url, keys_file=keys) as client:
        for number in range(6):
            assert (await client.turn(turn(str(number)), **bearer("t"))).status_code == 202

        def taken_out_meanwhile(connection: Connection, choice: Choice, after: int) -> Lines:
            keys_file(tmp_path, key("other", ["default"], "admin"))
            assert client.service.access.reload()
            return lines_after(connection, choice, after)

        monkeypatch.setattr(administering, "lines_after", taken_out_meanwhile)
        await breaks_off(client, (b"authorization", b"Bearer t"))
    assert "an export of tenant default breaks off: unknown bearer token" in caplog.text


async def test_a_deletion_is_told_by_session_whatever_became_of_the_turns(
    tmp_path: Path, database_url: str
) -> None:
    """Derived or not, rejected or a transcript: the numbers add up to what was deleted."""
    named = {"harness_id": "h", "harness_session_id": "s"}
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        await client.turn(turn("a", session=named))
        await client.turn(turn("b", session=named, provider="nobody"))
        record = json.dumps({"session": named, "records": [1]})
        await client.post("/v1/ingest/transcript", content=record, headers=JSON)
        unnamed = json.dumps({"session": {"harness_session_id": "t"}, "records": [1]})
        await client.post("/v1/ingest/transcript", content=unnamed, headers=JSON)
        await client.turn(turn("c"))
        scope = Scope(tenant="default", before_us=1 << 60)
        count, events = await client.service.store.write(partial(delete_some, scope=scope, who="x", now_us=1))
    told = {event.session_id: event.turns for event in events}
    assert (count, sorted(told.values())) == (5, [1, 1, 3])
    assert told[""] == 1, "whose session only derivation would know"
    assert told[session_name("default", "h", "s")] == 3
