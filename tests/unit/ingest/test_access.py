"""Credentials: what is open, what is refused, and how keys change."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingest.access import Access, KeysError, UnauthenticatedError, read_keys
from ingest.app import StartError, build
from ingest.settings import IngestSettings
from tests.unit.ingest.running import service, turn


def key(token: str, tenants: list[str], *roles: str) -> dict[str, Any]:
    return {
        "name": token,
        "sha256": sha256(token.encode()).hexdigest(),
        "tenants": tenants,
        "roles": roles or ["write", "read"],
    }


def keys_file(directory: Path, *keys: dict[str, Any]) -> Path:
    path = directory / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    return path


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_turn_without_a_known_key_is_401_and_not_stored(tmp_path: Path) -> None:
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["*"]))) as client:
        for headers in ({}, bearer("wrong"), {"authorization": "Basic dDp0"}, {"authorization": "Bearer"}):
            answer = await client.turn(turn(), **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert await client.rows("SELECT count(*) FROM turns") == [(0,)]


async def test_a_tenant_outside_the_list_is_403(tmp_path: Path) -> None:
    """T13, store side: nobody writes for a tenant that the credential does not name."""
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["a", "b"]))) as client:
        answer = await client.turn(turn(meta={"tenant": "c"}), **bearer("t"))
        assert answer.status_code == 403
        assert (await client.turn(turn(meta={"tenant": "b"}), **bearer("t"))).status_code == 202
        assert (await client.turn(turn(), **bearer("t"))).status_code == 403, "two to choose from"
        assert await client.rows("SELECT tenant FROM turns") == [("b",)]


async def test_the_only_tenant_is_the_default(tmp_path: Path) -> None:
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["a"]))) as client:
        assert (await client.turn(turn(), **bearer("t"))).status_code == 202
        assert await client.rows("SELECT tenant FROM turns") == [("a",)]
        own = await client.get("/v1/ingest/nodes", headers=bearer("t"))
        assert own.json()["count"] == 2
        other = await client.get("/v1/ingest/nodes", params={"tenant": "b"}, headers=bearer("t"))
        assert other.status_code == 403


async def test_a_writer_may_not_read(tmp_path: Path) -> None:
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["*"], "write"))) as client:
        assert (await client.get("/v1/ingest/nodes", headers=bearer("t"))).status_code == 403
        assert (await client.get("/v1/ingest/nodes")).status_code == 401


async def test_the_refusal_of_one_tenant_in_a_batch_stores_the_others(tmp_path: Path) -> None:
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["a"]))) as client:
        turns = [turn(meta={"tenant": "b"}), turn(meta={"tenant": "a"})]
        answer = await client.post("/v1/ingest/batch", json={"turns": turns}, headers=bearer("t"))
        assert [result["status"] for result in answer.json()["results"]] == [403, 202]


def test_new_keys_are_in_force_when_the_file_changes(tmp_path: Path) -> None:
    path = keys_file(tmp_path, key("old", ["a"]))
    access = Access(path)
    keys_file(tmp_path, key("new", ["a"]), key("newer", ["*"]))
    os.utime(path, ns=(1, 1))
    assert access.reload()
    assert access.principal("Bearer new").name == "new"
    with pytest.raises(UnauthenticatedError):
        access.principal("Bearer old")
    path.write_text("broken")
    assert not access.reload()
    assert access.principal("Bearer new").name == "new", "the last good keys stay"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "[]",
        '{"keys": [{"name": "x", "sha256": "SHORT", "tenants": ["a"], "roles": []}]}',
        json.dumps({"keys": [key("t", [])]}),
        json.dumps({"keys": [key("t", ["../a"])]}),
        json.dumps({"keys": [key("t", ["a"], "root")]}),
        json.dumps({"keys": [key("t", ["a"]) | {"token": "in clear"}]}),
    ],
)
def test_a_keys_file_that_says_nonsense_is_refused(bad: str) -> None:
    with pytest.raises(KeysError):
        read_keys(bad.encode())


def test_an_open_service_listens_on_loopback_only(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/x.db"
    with pytest.raises(StartError, match="without credentials"):
        build(IngestSettings(listen="0.0.0.0:0", database_url=database))


def test_a_keys_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    settings = IngestSettings(database_url=f"sqlite:///{tmp_path}/x.db", keys_file=tmp_path / "none")
    with pytest.raises(StartError, match="keys file"):
        build(settings)


async def test_a_transcript_names_its_tenant_in_the_query(tmp_path: Path) -> None:
    """A writer for several tenants could not post one otherwise."""
    body = {"session": {"harness_session_id": "s"}, "records": [1]}
    async with service(tmp_path, keys_file=keys_file(tmp_path, key("t", ["a", "b"]))) as client:
        for query, status in (("", 403), ("?tenant=c", 403), ("?tenant=a/b", 400), ("?tenant=b", 202)):
            answer = await client.post(f"/v1/ingest/transcript{query}", json=body, headers=bearer("t"))
            assert answer.status_code == status, query
        assert await client.rows("SELECT tenant, source FROM turns") == [("b", "transcript")]
