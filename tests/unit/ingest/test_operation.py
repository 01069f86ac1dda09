"""What an operator and a careful client meet: probes, disks, slow bodies, odd queries, the end."""

import asyncio
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from ingest import bodies, condition, intake
from ingest.store.connection import UnavailableError
from tests.patience import eventually
from tests.unit.ingest.running import Client, service, turn
from tests.unit.ingest.test_access import bearer, key, keys_file
from tests.unit.ingest.test_serving import process, stored


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


# Probes.


async def test_ping_names_the_batch_and_the_codings_that_suit(client: Client) -> None:
    answer = await client.get("/ping")
    assert answer.json() == {"status": "ok", "batch": {"turns": 64, "bytes": 1048576}}
    assert answer.headers["accept-encoding"] == "zstd, gzip, x-gzip, deflate"
    assert (await client.turn(turn())).headers["accept-encoding"] == answer.headers["accept-encoding"]


async def test_ping_never_names_a_batch_that_would_be_refused(tmp_path: Path) -> None:
    async with service(tmp_path, max_body_bytes=5000) as client:
        assert (await client.get("/ping")).json()["batch"]["bytes"] == 5000


async def test_a_service_that_leaves_says_so_to_heartbeats(client: Client) -> None:
    client.service.hub.closed.set()
    assert (await client.get("/ping")).json()["status"] == "draining"
    assert (await client.get("/healthz")).json() == {"status": "ok"}, "it is alive all the same"


async def test_a_disk_that_is_almost_full_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as client:
        for free, status in ((condition.FREE_BYTES - 1, 503), (condition.FREE_BYTES, 200)):
            disk = SimpleNamespace(f_bavail=free, f_frsize=1)
            monkeypatch.setattr(os, "statvfs", MagicMock(return_value=disk))
            answer = await client.get("/readyz")
            assert answer.status_code == status
            assert answer.json()["problems"] == (["disk: almost full"] if status == 503 else [])


async def test_a_store_that_answers_and_takes_nothing_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk lets empty transactions through; the failed write counts until one works, or for a while."""
    async with service(tmp_path) as client:

        async def full(*_: object) -> None:
            raise UnavailableError("SQLite: database or disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(type(client.service.store), "put", full)
            assert (await client.turn(turn())).status_code == 503
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["problems"] == ["store: it did not take the last turn"]
        with monkeypatch.context() as later:
            later.setattr(intake, "_TROUBLE_S", 0.0)
            assert (await client.get("/readyz")).status_code == 200, "it gets another chance"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.turn(turn())).status_code == 202
        assert (await client.get("/readyz")).status_code == 200


async def test_a_store_that_is_busy_with_something_else_is_ready_where_puts_go_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deriving everything again takes long; on SQLite puts wait for it, and the probe is told so in time."""
    store, done = client.service.store, threading.Event()
    long = asyncio.ensure_future(store.write(lambda _: done.wait(60)))
    try:
        with monkeypatch.context() as probing:
            probing.setattr(condition, "_PROBE_S", 30.0 if store.notifies else 0.5)
            answer = await asyncio.wait_for(client.get("/readyz"), 30)
    finally:
        done.set()
        await long
    expected = [] if store.notifies else ["store: it does not answer within 0.5 s"]
    assert (answer.json()["problems"], answer.status_code) == (expected, 503 if expected else 200)
    assert (await client.get("/readyz")).status_code == 200


async def test_what_a_database_says_of_itself_is_for_the_log(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Probes and refusals are for everybody, also for those without a credential."""
    store = type(client.service.store)

    async def gone(*_: object) -> None:
        raise UnavailableError("connection to host db.internal as user steno failed")

    with monkeypatch.context() as broken:
        for name in ("probe", "put", "read", "write"):
            broken.setattr(store, name, gone)
        answers = [await client.get(path) for path in ("/readyz", "/v1/turns", "/v1/ingest/nodes")]
        answers += [await client.turn(turn()), await client.post("/v1/derive")]
        answers += [await client.post("/v1/ingest/batch", json={"turns": [turn()]})]
    for answer in answers:
        assert answer.status_code == 503
        assert "away" in answer.text
        assert "db.internal" not in answer.text
        assert "steno failed" not in answer.text
    assert caplog.text.count("db.internal") >= 4, "nothing is lost for the operator"


# Queries.


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/turns?state=zzz", "state must be accepted or rejected"),
        ("/v1/turns?since=yesterday", "a time must be"),
        ("/v1/turns?since=2026-W05", "a time must be"),
        ("/v1/turns?since=2026-W05-1", "a time must be"),
        ("/v1/turns?since=20260131T00", "a time must be"),
        ("/v1/turns?since=2026-01-31T00:00:00", "a time must be"),
        ("/v1/turns?since=2026-02-30", "a time must be"),
        ("/v1/turns?since=20260131", "a time must be"),
        ("/v1/turns?limit=0", "limit must be"),
        ("/v1/turns?limit=101", "limit must be"),
        ("/v1/turns?limit=000000100999", "limit must be"),
        ("/v1/turns?limit=00000001099999999999999999999", "limit must be"),
        ("/v1/turns?since=0001-01-01T00:00:00%2B23:59", "a time must be"),
        ("/v1/turns?until=9999-12-31T23:59:59-23:59", "a time must be"),
        ("/v1/usage?since=0001-01-01T00:00:00%2B23:59", "a time must be"),
        ("/v1/usage?until=9999-12-31T23:59:59-23:59", "a time must be"),
        ("/v1/usage?by=colour", "by must be"),
        ("/v1/turns?tenant=a/b", "a tenant is"),
        ("/v1/turns?cursor=1-99999999999999999999", "cursor must be"),
        ("/v1/turns?cursor=1-9223372036854775808", "cursor must be"),
        ("/v1/turns?cursor=1-abc", "cursor must be"),
        ("/v1/export?tenant=default&state=zzz", "state must be"),
        ("/v1/export", "name the tenant"),
    ],
)
async def test_a_query_that_cannot_be_read_is_400_and_says_what_to_do(
    client: Client, path: str, error: str
) -> None:
    """Never an empty list, which would look like an answer."""
    answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert answer.json()["action"] == "correct the query; the same one will be refused again"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
async def test_the_first_and_the_last_time_are_times(client: Client, time: str) -> None:
    for path in ("/v1/turns", "/v1/sessions", "/v1/usage"):
        for name in ("since", "until"):
            assert (await client.get(f"{path}?{name}={time}")).status_code == 200


@pytest.mark.parametrize(
    "time",
    ["2026-01-31", "2026-01-31T00:00:00.123456789Z", "2026-01-31t00:00:00z", "2026-01-31T00:00:00-23:59"],
)
async def test_days_and_times_of_rfc_3339_are_understood(client: Client, time: str) -> None:
    assert (await client.get("/v1/turns", params={"since": time})).status_code == 200


@pytest.mark.parametrize("said", ["a/b?c", "/a", "a//b", "/", "a/", "a%2Fb"])
async def test_a_turn_is_found_by_whatever_id_its_producer_gave_it(client: Client, said: str) -> None:
    """Slashes are part of an id, also as %2F; what is not there is told as everywhere."""
    answer = await client.turn(turn(meta={"request_id": said}))
    found = await client.get(f"/v1/turns/{quote(said, safe='')}")
    assert found.json()["turn"]["id"] == answer.headers["steno-turn-id"]
    for path in ("turns", "sessions", "runs", "nodes"):
        missing = await client.get(f"/v1/{path}/{quote(said, safe='')}x")
        assert (missing.status_code, missing.json()["error"][:7]) == (404, "no such")


async def test_the_methods_of_a_path_are_all_named(client: Client) -> None:
    for path, methods in (("/v1/turns", {"GET", "DELETE"}), ("/v1/ingest", {"POST"}), ("/ping", {"GET"})):
        answer = await client.put(path)
        assert (answer.status_code, answer.text) == (405, "Method Not Allowed")
        assert set(answer.headers["allow"].split(", ")) == methods
    assert (await client.head("/ping")).status_code == 405


@pytest.mark.parametrize(
    "value", ["%00", "a%00b", "%ed%a0%80", "%ff", "%f0%9f%92%a9", "x" * 10_000, "'--", "%25"]
)
async def test_no_value_of_a_query_is_our_failure(client: Client, value: str) -> None:
    """What no engine stores is in no row: an empty list or a refusal, and never a 500."""
    for name in ("session", "agent", "model", "provider", "request_id", "tenant", "cursor", "since", "limit"):
        answer = await client.get(f"/v1/turns?{name}={value}")
        assert answer.status_code in (200, 400), (name, answer.text)
    for path in ("/v1/turns", "/v1/sessions", "/v1/runs", "/v1/nodes"):
        assert (await client.get(f"{path}/{value}")).status_code == 404, path
    assert (await client.get(f"/v1/ingest/nodes?agent={value}")).json() == {"count": 0, "nodes": []}
    await client.turn(turn())
    answer = await client.delete(f"/v1/turns?tenant=default&session={value}")
    assert answer.status_code in (200, 400)
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


@pytest.mark.parametrize(
    "query",
    [
        "tenant=default&sesion=s",
        "tenant=default&session=a&session=b",
        "tenant=default&before=1970-01-01T00:00:00Z&before=2030-01-01T00:00:00Z",
        "tenant=default&before=yesterday",
        "tenant=default&tenant=default",
        "session=s",
        "tenant=default&session=",
        "tenant=default&before=",
        "tenant=default&before=9999-12-31T23:59:59-23:59",
        "tenant=default&before=9999-12-31T00:00:00Z",
    ],
)
async def test_a_deletion_that_may_be_meant_otherwise_deletes_nothing(client: Client, query: str) -> None:
    """A misspelt limit must not make it a deletion of everything."""
    await client.turn(turn())
    assert (await client.delete(f"/v1/turns?{query}")).status_code == 400
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_a_deletion_before_the_beginning_of_time_deletes_nothing(client: Client) -> None:
    """The epoch is a time, and not the lack of one."""
    await client.turn(turn())
    answer = await client.delete("/v1/turns?tenant=default&before=1970-01-01T00:00:00Z")
    assert answer.json() == {"deleted": 0, "before": "1970-01-01T00:00:00.000000Z"}
    assert await client.rows("SELECT count(*) FROM turns") == [(1,)]


async def test_a_deletion_before_a_time_to_come_is_refused_and_told_what_time_it_is(client: Client) -> None:
    """Asked for again, it would take what came since."""
    answer = await client.delete("/v1/turns?tenant=default&before=9999-12-31T00:00:00Z")
    now = re.fullmatch(r"before must not lie in the future: here it is (\S+Z)", answer.json()["error"])
    assert now is not None
    answer = await client.delete("/v1/turns", params={"tenant": "default", "before": now[1]})
    assert answer.json() == {"deleted": 0, "before": now[1]}


async def test_who_may_not_is_told_so_before_what_is_wrong_with_the_query(tmp_path: Path) -> None:
    keys = keys_file(tmp_path, key("t", ["a"], "write", "read"))
    async with service(tmp_path, keys_file=keys) as client:
        for headers, status in (({}, 401), (bearer("t"), 403)):
            assert (await client.delete("/v1/turns", headers=headers)).status_code == status
            assert (await client.get("/v1/export", headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/v1/ingest", "//v1/ingest", "/v1/ingest/"])
async def test_a_base_url_with_a_slash_at_its_end_still_arrives(client: Client, path: str) -> None:
    """The contract's sidecar joins its base and the path as strings (wire.md §1)."""
    answer = await client.post(f"http://ingest{path}", json=turn())
    assert answer.status_code == 202


# The audit of reads.


async def test_an_export_is_a_read_of_content(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the other logs are quiet: who wants fewer lines does not mean these."""
    caplog.set_level(logging.ERROR)
    caplog.handler.setLevel(logging.DEBUG)  # only the loggers decide
    await client.turn(turn())
    await client.get("/v1/export?tenant=default")
    assert [json.loads(record.getMessage()) for record in caplog.records] == [
        {"who": "open", "read": "export", "tenant": "default"}
    ]


# Bodies.


async def test_a_body_that_does_not_come_is_408_and_frees_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a few producers that stop half-way would keep everybody's room for ever."""
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.1)

    async def stuck(client: Client) -> AsyncGenerator[bytes]:
        yield b"x" * 1000
        assert client.service.budget.held == 1000
        await asyncio.sleep(30)

    async with service(tmp_path) as client:
        head = {"content-type": "application/json", "content-length": "2000"}
        answer = await client.post("/v1/ingest", content=stuck(client), headers=head)
        assert answer.status_code == 408
        assert answer.headers["connection"] == "close"
        assert answer.json()["action"].startswith("send the body faster")
        assert client.service.budget.held == 0
        assert await client.rows("SELECT count(*) FROM turns") == [(0,)]


async def test_a_large_body_under_a_coding_is_the_same_turn(client: Client) -> None:
    """Decoded in a thread; its room is given back all the same."""
    import zstandard  # noqa: PLC0415 -- here only

    body = json.dumps(turn(os.urandom(100_000).hex())).encode()
    coded = zstandard.compress(body)
    assert len(coded) > bodies._INLINE_CODED_BYTES
    first = await client.turn(body)
    second = await client.turn(
        coded.decode("latin-1").encode("latin-1"), content_encoding="zstd", idempotency_key="k"
    )
    third = await client.turn(body, idempotency_key="k")
    assert (first.status_code, second.status_code, third.headers["steno-duplicate"]) == (202, 202, "true")
    assert client.service.budget.held == 0


# Leaving.


@pytest.mark.timeout(300)
async def test_leaving_under_load_answers_everybody_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    """Writers and a listener at work; SIGTERM; an end within the drain, without complaint."""
    database = tmp_path / "x.db"
    accepted, heard = 0, bytearray()
    async with process(database) as (child, url), httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def write(number: int) -> None:
            nonlocal accepted
            for count in range(1000):
                try:
                    answer = await http.post("/v1/ingest", json=turn(f"{number} {count}"))
                except httpx.TransportError:
                    return  # the listener is closed: not acknowledged
                assert answer.status_code in (202, 503), answer.text
                accepted += answer.status_code == 202

        async def listen() -> None:
            async with http.stream("GET", "/v1/events") as stream:
                async for chunk in stream.aiter_raw():
                    heard.extend(chunk)

        listening = asyncio.ensure_future(listen())
        writing = [asyncio.ensure_future(write(number)) for number in range(8)]
        await eventually(lambda: accepted > 20 and b"event: step_update" in heard, 60)
        began = time.monotonic()
        os.kill(child.pid, signal.SIGTERM)
        await asyncio.gather(*writing)
        assert await asyncio.wait_for(child.wait(), 60) == 0
        assert time.monotonic() - began < 20, "the drain, which is twenty seconds"
        await listening  # which was ended in order, not cut: that would raise
    assert await asyncio.to_thread(stored, database) == accepted


async def test_a_listener_that_goes_away_leaves_nothing_behind(client: Client) -> None:
    """Neither in the hub nor as a task that nobody waits for."""
    from ingest.streaming import event_lines  # noqa: PLC0415 -- here only

    lines: Any = event_lines(client.service.hub, "default", lambda: True)
    assert await anext(lines) == b": listening\n\n"
    waiting = asyncio.ensure_future(anext(lines))
    while (await asyncio.wait((waiting,), timeout=0.3))[0]:  # the channel between instances begins with a gap
        assert b"event: gap" in waiting.result()
        waiting = asyncio.ensure_future(anext(lines))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await lines.aclose()
    assert client.service.hub.listening == 0
    await eventually(
        lambda: not [task for task in asyncio.all_tasks() if "Listener.next" in repr(task.get_coro())]
    )
