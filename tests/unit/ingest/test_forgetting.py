"""What a deletion takes along, and what it leaves whole: sessions, their kin, and what they share."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ingest.derivation.sessions import session_id as name_of
from ingest.store.connection import Connection
from ingest.store.deletion import Scope
from ingest.store.derived import save
from tests.unit.ingest.running import JSON, Client, service, turn
from tests.unit.ingest.test_deletion import TABLES, contents, fill, session_id


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


def fail_all(connection: Connection) -> None:
    """As if what waits had failed derivation."""
    connection.run("INSERT INTO derive_failures SELECT seq, 'damaged' FROM pending")
    connection.run("DELETE FROM pending")


async def test_a_session_of_more_than_a_batch_goes_whole(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch drops what was derived of the session: the second must still find its turns."""
    monkeypatch.setattr("ingest.store.deletion.BATCH", 2)
    await fill(client)
    for n in range(3):  # of a session that they do not name
        request = {"model": "m", "messages": [{"role": "user", "content": "same"}]}
        await client.turn(turn(request=request, answer=f"{n}"))
    assert await client.service.deriver.settled(30)
    unnamed = (await client.rows("SELECT id FROM sessions WHERE harness_id = 'unknown'"))[0][0]
    for gone in (await session_id(client, "s1"), unnamed):
        answer = await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
        assert answer.json()["deleted"] == 3
    assert await client.service.deriver.settled(30)
    left = await client.rows("SELECT DISTINCT harness_session_id FROM turns")
    assert left == [("s2",)]
    assert await client.rows("SELECT count(*), count(DISTINCT session_id) FROM steps") == [(3, 1)]


async def test_a_deleted_session_takes_its_rejected_failed_and_waiting_turns_along(
    tmp_path: Path, database_url: str
) -> None:
    """The turns themselves say which session they are of, whatever became of them."""
    secret = {"harness_id": "h", "harness_session_id": "s1"}
    async with service(tmp_path, database_url=database_url) as client:
        await fill(client)
        assert (await client.turn(turn(provider="nobody", session=secret))).status_code == 422
        gone = await session_id(client, "s1")
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        await client.turn(turn("fails", session=secret))
        await client.service.store.write(fail_all)
        await client.turn(turn("waits", session=secret))
        answer = await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
        assert answer.json()["deleted"] == 6, "three derived, and one of each kind"
        assert await client.rows("SELECT DISTINCT harness_session_id FROM turns") == [("s2",)]
        for table, left in (("bodies", 3), ("derive_failures", 0), ("pending", 0)):
            assert await client.rows(f"SELECT count(*) FROM {table}") == [(left,)]


async def test_a_session_of_rejected_turns_alone_is_deleted_by_its_id(client: Client) -> None:
    await client.turn(turn(provider="nobody", session={"harness_id": "h", "harness_session_id": "s"}))
    gone = name_of("default", "h", "s")
    answer = await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert answer.json()["deleted"] == 1


async def test_a_session_that_derivation_must_tell_is_not_deleted_before_it_did(
    tmp_path: Path, database_url: str
) -> None:
    """Also where another instance took the turn, or nobody derives: the answer says so, and deletes nothing."""
    async with service(tmp_path, database_url=database_url) as client:
        await client.turn(turn("same"))
        assert await client.service.deriver.settled(30)
        gone = (await client.rows("SELECT id FROM sessions"))[0][0]
    params = {"tenant": "default", "session": gone}
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        await client.turn(turn("same", "another answer"))
        answer = await client.delete("/v1/turns", params=params)
        assert answer.status_code == 503
        assert "1 turns that may be of this session wait" in answer.json()["error"]
        assert await client.rows("SELECT count(*) FROM turns") == [(2,)]
    async with service(tmp_path, database_url=database_url) as client:
        await client.turn(turn("other"))
        assert await client.service.deriver.settled(30)
        assert (await client.delete("/v1/turns", params=params)).json()["deleted"] == 2


async def test_a_tenants_deletion_leaves_no_session(client: Client) -> None:
    """Sessions of transcripts alone have no step, and placeholders of parents have no turn."""
    record = {"harness_id": "h", "harness_session_id": "t", "cwd": "/secret", "name": "secret"}
    body = json.dumps({"session": record, "records": [{"a": 1}]})
    assert (await client.post("/v1/ingest/transcript", content=body, headers=JSON)).status_code == 202
    child = {"harness_id": "h", "harness_session_id": "c", "parent_harness_session_id": "secret"}
    await client.turn(turn(session=child))
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT count(*) FROM sessions") == [(3,)]
    assert (await client.delete("/v1/turns", params={"tenant": "default"})).json()["deleted"] == 2
    assert {name: len(rows) for name, rows in (await contents(client)).items()} == dict.fromkeys(TABLES, 0)


async def test_a_session_keeps_what_a_transcript_that_stays_says(client: Client) -> None:
    record = {"harness_id": "h", "harness_session_id": "s1", "cwd": "/here"}
    await client.turn(turn("old", session={"harness_id": "h", "harness_session_id": "s1"}))
    await client.turn(turn("until"))
    body = json.dumps({"session": record, "records": [{"a": 1}]})
    await client.post("/v1/ingest/transcript", content=body, headers=JSON)
    assert await client.service.deriver.settled(30)
    last = int((await client.rows("SELECT max(received_at_us) FROM turns"))[0][0])
    scope = Scope(tenant="default", before_us=last)
    assert await client.service.retention.delete(scope, "x") == 2
    client.service.deriver.wake()
    assert await client.service.deriver.settled(30)
    assert await client.rows("SELECT cwd, turns FROM sessions") == [("/here", 0)]


async def test_a_deleted_parent_is_again_what_its_child_says_of_it(client: Client) -> None:
    for name, more in (("p", {}), ("c", {"parent_harness_session_id": "p"})):
        await client.turn(turn(name, session={"harness_id": "h", "harness_session_id": name} | more))
    assert await client.service.deriver.settled(30)
    gone = await session_id(client, "p")
    await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert await client.service.deriver.settled(30)
    after_deletion = await contents(client)
    assert (await client.rows("SELECT label, turns FROM sessions WHERE placeholder = 1")) == [("", 0)]
    await client.post("/v1/derive")
    assert await client.service.deriver.settled(30)
    assert await contents(client) == after_deletion


async def test_a_node_that_another_session_shares_lists_an_agent_of_its_own(client: Client) -> None:
    for session, agent in (("s1", "a"), ("s2", "b")):
        envelope = {"harness_id": "h", "harness_session_id": session}
        await client.turn(turn("shared", f"answer in {session}", session=envelope, agent_name=agent))
    assert await client.service.deriver.settled(30)
    gone = await session_id(client, "s1")
    await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert await client.rows("SELECT DISTINCT agent_name FROM nodes") == [("b",)]


async def test_a_turn_deleted_while_it_fails_derivation_leaves_no_reason(
    tmp_path: Path, database_url: str
) -> None:
    """A reason may quote the turn."""
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        await client.turn(turn())
        ((seq,),) = await client.rows("SELECT seq FROM pending")
        await client.delete("/v1/turns", params={"tenant": "default"})
        await client.service.store.write(lambda connection: save(connection, (), [(seq, "secret")]))
        assert await client.rows("SELECT count(*) FROM derive_failures") == [(0,)]


async def test_a_rejected_turn_that_waits_to_be_told_of_holds_up_no_deletion(
    tmp_path: Path, database_url: str
) -> None:
    """Nobody will find that it is of the session: nothing is derived of it."""
    async with service(tmp_path, database_url=database_url, derive=False) as client:
        await client.turn(turn(provider="nobody"))
        answer = await client.delete("/v1/turns", params={"tenant": "default", "session": "s"})
        assert (answer.status_code, answer.json()["deleted"]) == (200, 0)


def said(text: str, session: str, parent: str = "", agent: str = "a") -> dict[str, Any]:
    """A turn of a session that may name its parent."""
    envelope = {"harness_id": "h", "harness_session_id": session}
    more = {"parent_harness_session_id": parent} if parent else {}
    return turn(text, session=envelope | more, agent_name=agent)


@pytest.mark.parametrize(
    ("turns", "gone"),
    [
        ([said("1", "child", "p"), said("2", "p")], "child"),
        ([said("1", "child", "p"), said("2", "other", "p"), said("3", "z")], "child"),
        ([said("1", "child", "p"), said("2", "child", "q"), said("3", "z")], "z"),
        ([said("1", "child", "p"), said("2", "p", "q"), said("3", "other", "p")], "p"),
        ([said("1", "p", "p"), said("2", "child", "p")], "p"),
    ],
    ids=["its time", "the next child's time", "named no more", "a parent with a parent", "its own parent"],
)
async def test_parents_are_after_a_deletion_what_deriving_again_makes_of_them(
    client: Client, turns: list[dict[str, Any]], gone: str
) -> None:
    """A session without turns is as its children say, and one with turns as these do."""
    for one in turns:
        await client.turn(one)
        assert await client.service.deriver.settled(30)
    name = await session_id(client, gone)
    await client.delete("/v1/turns", params={"tenant": "default", "session": name})
    assert await client.service.deriver.settled(30)
    after_deletion = await contents(client)
    await client.post("/v1/derive")
    assert await client.service.deriver.settled(30)
    assert await contents(client) == after_deletion


async def test_an_agent_lists_no_node_that_none_of_its_turns_holds_any_more(client: Client) -> None:
    """Though a session that stays has turns of this agent, and the node: by another agent's turn."""
    await client.turn(said("shared", "s1", agent="a"))
    await client.turn(said("own", "s2", agent="a"))
    await client.turn(said("shared", "s2", agent="b"))
    assert await client.service.deriver.settled(30)
    listed = "SELECT agent_name, hash FROM node_agents ORDER BY agent_name, hash"
    assert len(await client.rows(listed)) == 6
    gone = await session_id(client, "s1")
    await client.delete("/v1/turns", params={"tenant": "default", "session": gone})
    assert await client.service.deriver.settled(30)
    after_deletion = await client.rows(listed)
    assert [agent for agent, _ in after_deletion] == ["a", "a", "b", "b"]
    await client.post("/v1/derive")
    assert await client.service.deriver.settled(30)
    assert await client.rows(listed) == after_deletion
