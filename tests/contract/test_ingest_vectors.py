"""The contract's ingest vectors, in order on one empty database.

``DIFFERENT`` lists every deliberate difference with its reason; everything else must
match: status, content type, body or start of the error, and the rows that are stored.
"""

import base64
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ingest.store import turns
from ingest.store.rows import Body
from tests.paths import CORPORA, needs_shared
from tests.unit.ingest.running import Client, service

pytestmark = [needs_shared, pytest.mark.asyncio(loop_scope="module")]

DIFFERENT = {
    "provider-gemini": (202, "gemini is one of our providers (DESIGN §3.14)"),
    "request-id-dedupe-422-first": (202, "gemini again: accepted"),
    "request-id-dedupe-2": (202, "another body under the same id is a new turn, flagged: nothing is lost"),
    "request-id-dedupe-after-422": (202, "another body under the same id: stored, never lost"),
    "route-POST-/v1/ingest/batch": (400, "the older v0.9 batch route exists; {} has no turns"),
    "route-GET-/healthz": (200, "ours has a health route"),
}
"""Case → our status, and why it or the rows differ from the reference."""

BODY_DIFFERS = {"ping": "ours names the batch that suits, beside the contract's status"}
"""Case → why our JSON has members that the reference's does not; those of the reference are all there."""

ROWS_DIFFER = {
    "nul-escape": "kept as sent, not repaired: the answers of the API are repaired where a reader would choke",
    "raw-only-ollama": "ours reduces every dialect, so the row has a reduction (an empty one: still 422)",
}
"""Case → why what is stored differs, although the answer does not."""

MINIMAL = (
    '{"provider": "anthropic", "request": {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, '
    '"response": {"model": "m", "message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]}, '
    '"done": true}, "meta": {%s}%s}'
)

COLUMNS = (
    "source",
    "provider",
    "agent_name",
    "harness_id",
    "harness_session_id",
    "request_id",
    "raw_response_dropped",
)
Vector = dict[str, Any]


def load() -> list[Vector]:
    path = CORPORA / "ingest-vectors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(vector: Vector) -> str:
    return str(vector.get("name") or vector["case"])


def body_of(vector: Vector) -> bytes:
    if "body_b64" in vector:
        return base64.b64decode(vector["body_b64"])
    if "body_recipe" not in vector:
        return str(vector.get("body") or "").encode("utf-8", "surrogatepass")
    return recipe(named(vector))


def recipe(name: str) -> bytes:
    if name == "at-body-limit":
        body = (MINIMAL % ("", "")).encode()
        return body[:-1] + b" " * (48_933_546 - len(body)) + b"}"
    size, request_id = {"raw-over-8MiB": (8_388_609, "big1"), "raw-exactly-8MiB": (8_388_608, "big2")}[name]
    raw = base64.b64encode(bytes(size)).decode()
    return (MINIMAL % (f'"request_id": "{request_id}"', f', "raw_response": "{raw}"')).encode()


@dataclass(frozen=True)
class Replayed:
    """What one vector was answered, and what was in the database after it."""

    answer: httpx.Response
    rows: list[tuple[Any, ...]]
    bodies: list[Body]
    sessions: set[str]


async def replay(client: Client, vector: Vector) -> Replayed:
    before = (await client.rows("SELECT coalesce(max(seq), 0) FROM turns"))[0][0]
    answer = await client.request(
        vector["method"], vector["path"], headers=vector.get("headers") or {}, content=body_of(vector)
    )
    assert await client.service.deriver.settled(20)
    rows = await client.rows(
        "SELECT seq, source, provider, agent_name, harness_id, harness_session_id, request_id, raw_dropped"
        " FROM turns WHERE seq > ? ORDER BY seq",
        before,
    )
    bodies = [await client.service.store.read(partial(turns.body, seq=row[0])) for row in rows]
    sessions = await client.rows("SELECT harness_id, harness_session_id FROM sessions")
    return Replayed(
        answer=answer,
        rows=[(*row[1:-1], bool(row[-1])) for row in rows],
        bodies=[body for body in bodies if body is not None],
        sessions={f"{harness}/{session}" for harness, session in sessions},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Replayed]:
    """Every vector, in order, on one empty database."""
    async with service(Path(tmp_path_factory.mktemp("ingest"))) as client:
        return {named(vector): await replay(client, vector) for vector in load()}


@pytest.mark.parametrize("vector", load(), ids=named)
async def test_the_answer_is_the_contracts(replayed: dict[str, Replayed], vector: Vector) -> None:
    found, expected = replayed[named(vector)], vector["expect"]
    different = DIFFERENT.get(named(vector))
    if different:
        assert found.answer.status_code == different[0]
    else:
        assert found.answer.status_code == expected["status"]
        check_body(found.answer, expected, more=named(vector) in BODY_DIFFERS)


@pytest.mark.parametrize("vector", load(), ids=named)
async def test_the_rows_are_the_contracts(replayed: dict[str, Replayed], vector: Vector) -> None:
    """And so are the sessions; ours gives one to every other turn as well."""
    found, expected = replayed[named(vector)], vector["expect"]
    assert set(expected["new_sessions"]) <= found.sessions
    if named(vector) in DIFFERENT:
        return
    columns = [tuple(row[name] for name in COLUMNS) for row in expected["stored_rows"]]
    assert found.rows == columns
    for body, row in zip(found.bodies, expected["stored_rows"], strict=True):
        assert json.loads(body.meta) == (row["meta"] or {}), "a null meta is an absent one"
        assert (json.loads(body.session) if body.session else None) == row["session_envelope"]
        assert len(body.raw_response) == (row["raw_response_bytes"] or 0), "no bytes are not told from none"
        assert body.raw_response_encoding == row["raw_response_encoding"]
        check_response(body, row, named(vector))


def check_response(body: Body, row: Vector, name: str) -> None:
    """The stored reduction, where the vectors tell it; the clock is masked."""
    response = json.loads(body.response) if body.response else None
    if row["response"] == "(large)":
        return
    if response and row["response"] and row["response"].get("created_at") == "<time>":
        response["created_at"] = "<time>"
    assert (response == row["response"]) is (name not in ROWS_DIFFER)


def check_body(answer: Any, expected: Vector, *, more: bool = False) -> None:
    """``more``: the answer has members beside the expected ones."""
    assert answer.headers["content-type"] == expected["content_type"]
    if expected["body" if "body" in expected else "error_starts_with"] == "":
        return
    if "body" in expected:
        assert (answer.json() == expected["body"]) is not more
        assert answer.json() | expected["body"] == answer.json()
    elif expected["content_type"] == "application/json":
        assert answer.json()["error"].startswith(expected["error_starts_with"])
    else:
        assert answer.text.startswith(expected["error_starts_with"])
