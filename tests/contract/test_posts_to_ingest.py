"""The contract's own sidecar may post to our ingest unchanged: every body that the corpora record is taken.

What is answered 422 is what the reference's ingest answers so, too (the vectors' own was a stand-in
that takes everything): ``REFUSED`` lists it. It is kept as rejected all the same.
"""

import base64
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Final, cast

import pytest
import pytest_asyncio

from tests.paths import CORPORA, needs_shared
from tests.unit.ingest.running import Client, service

pytestmark = [needs_shared, pytest.mark.asyncio(loop_scope="module")]

Json = dict[str, Any]
_NO_CONTENT: Final = "missing response.message.content"
REFUSED: Final = {
    "path /codex/responses?x=1-0": _NO_CONTENT,
    "path /backend-api/codex/responses-0": _NO_CONTENT,
    "reducer-empty-0": _NO_CONTENT,
    "oneshot-error-json-200-0": _NO_CONTENT,
    "mode-raw-empty-reduction-0": _NO_CONTENT,
    "request-stream-string-0": "cannot parse request",
}
"""Name of a post → what its 422 says."""
CLOCK: Final = {
    "<seconds>": 1.5,
    "<int ns>": 1_500_000_000,
    "<now RFC3339 with offset>": "2026-07-27T10:00:00.123456789+02:00",
}
"""What the vectors leave open, and a value of it."""


def lines(name: str) -> list[Json]:
    path = CORPORA / name
    text = path.read_text(errors="surrogateescape") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


POSTS: Final = [
    (f"{vector['name']}-{number}", post)
    for vector in lines("sidecar-vectors.jsonl")
    for number, post in enumerate(vector["expect"]["posts"])
]
RECORDINGS: Final = lines("recordings-expected.jsonl")


def filled(value: Any) -> Any:
    """``value`` with times in the places of the marks."""
    if isinstance(value, dict):
        return {name: filled(member) for name, member in cast("Json", value).items()}
    if isinstance(value, list):
        return list(map(filled, cast("Iterable[Any]", value)))
    return CLOCK.get(value, value) if isinstance(value, str) else value


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Client]:
    async with service(tmp_path_factory.mktemp("ingest")) as running:
        yield running


@pytest.mark.parametrize(("name", "post"), POSTS, ids=[name for name, _ in POSTS])
async def test_what_the_references_sidecar_posts_is_taken(client: Client, name: str, post: Json) -> None:
    body = json.dumps(filled(post["body"]), ensure_ascii=False).encode("utf-8", "surrogateescape")
    heads = {"content-type": post["content_type"]}
    answer = await client.request(post["method"], post["path"], content=body, headers=heads)
    assert answer.status_code == (422 if name in REFUSED else 202), answer.text
    assert REFUSED.get(name, "") in answer.text
    assert await client.rows("SELECT state FROM turns WHERE id = ?", answer.headers["steno-turn-id"]) == [
        ("rejected" if name in REFUSED else "accepted",)
    ]


async def test_every_refusal_is_of_a_post() -> None:
    """One whose post is gone would go stale unseen."""
    assert set(REFUSED) <= {name for name, _ in POSTS}


async def test_the_vectors_are_there() -> None:
    assert (len(POSTS), len(RECORDINGS)) == (58, 17)


def posted(recording: Json) -> Json:
    """The recording as a turn. A request that the corpus leaves out has a short one in its place."""
    request = json.loads((CORPORA / "recordings" / recording["case"] / "request.json").read_text())
    body = (
        base64.b64decode(request.get("body_b64") or "")
        or b'{"messages":[{"role":"user","content":"left out"}]}'
    )
    model = recording["reduced_response"]["model"]
    return {"provider": recording["provider"], "request": {"model": model} | json.loads(body), "meta": {}}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording["case"][-8:])
async def test_a_recorded_turn_is_taken_reduced_and_raw(client: Client, recording: Json) -> None:
    """With the reference's reduction, and as the bytes alone, which are reduced here to the same text."""
    directory = CORPORA / "recordings" / recording["case"]
    meta = json.loads((directory / "meta.json").read_text())
    raw = base64.b64encode((directory / "response.sse").read_bytes()).decode()
    reduced = posted(recording) | {"response": recording["reduced_response"]}
    alone = posted(recording) | {
        "response": None,
        "raw_response": raw,
        "raw_response_encoding": meta["content_encoding"],
        "meta": {"content_type": meta["content_type"], "path": "/v1/messages"},
    }
    contents: list[Any] = []
    for body in (reduced, alone):
        answer = await client.turn(body)
        assert answer.status_code == 202, answer.text
        stored = (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).json()
        contents.append(stored["response"]["message"]["content"])
    assert contents[0] == contents[1]
