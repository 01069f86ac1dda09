"""Hostile turns are stored or refused with a reason, and every later turn still works (issue 7, must show 4)."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.unit.ingest.running import Client, service, turn

REQUEST = '{"model":"m","messages":[{"role":"user","content":"hi"}]}'
RESPONSE = '{"model":"m","done":true,"message":{"role":"assistant","content":[{"type":"text","text":"x"}]}}'


def body(request: str = REQUEST, response: str = RESPONSE, meta: str = "{}", more: str = "") -> str:
    return f'{{"provider":"anthropic","request":{request},"response":{response},"meta":{meta}{more}}}'


def block(member: str) -> str:
    return f'{{"model":"m","message":{{"role":"assistant","content":[{{"type":"tool_use",{member}}}]}}}}'


NESTED = "[" * 400 + "]" * 400
DEEP = "[" * 100_000 + "]" * 100_000
STORED = {
    "repeated members": body(
        request='{"messages":[],"a":1,"a":2,"messages":[{"role":"user","content":"b"}]}'
    ),
    "unpaired surrogates": body(request='{"messages":[{"role":"user","content":"\\ud800"}],"\\udfff":1}'),
    "surrogate halves in the answer": body(response=RESPONSE.replace('"x"', '"\\ud83d"')),
    "NUL": body(request=REQUEST.replace("hi", "a\\u0000b"), response=RESPONSE.replace('"x"', '"\\u0000"')),
    "NUL in names": body(meta='{"request_id":"a\\u0000b","thread_id":"\\u0000","model":"\\u0000"}'),
    "surrogates in names": body(more=',"agent_name":"\\ud800"'),
    "repeated member of a hashed block": body(response=block('"content":{"a":1,"a":2}')),
    "huge number": body(request='{"messages":[],"n":1e999}', response=block('"tool_input":{"n":-1e400}')),
    "many digits": body(request='{"messages":[],"n":' + "9" * 4000 + "}"),
    "more digits than Python reads": body(request='{"messages":[],"n":' + "9" * 9000 + "}"),
    "nested request": body(request='{"messages":[],"n":' + NESTED + "}"),
    "nested tool input": body(response=block('"tool_input":{"n":' + NESTED + "}")),
    "long names": body(
        meta=json.dumps({"request_id": "r" * 100_000, "thread_id": "t" * 5000, "model": "m" * 9999})
    ),
    "long agent": body(more=',"agent_name":"' + "\u00fc" * 5000 + '"'),
    "long session": body(
        more=',"session":{"harness_id":"' + "h" * 5000 + '","harness_session_id":"' + "s" * 5000 + '"}'
    ),
    "tokens beyond any machine": body(
        response=RESPONSE[:-1] + ',"usage":{"prompt_tokens":9223372036854775807}}'
    ),
    "odd canonical view": body(meta='{"canonical":{"usage":5,"tool_calls":"x","text":[],"result":{}}}'),
    "odd metadata": body(
        more=',"session":{"harness_id":"h","harness_session_id":"s","harness_metadata":{"\\u0000":"\\ud800"}}'
    ),
    "injected log lines": body(meta='{"request_id":"a\\nERROR forged\\r\\n","path":"/x\\n"}'),
    "SQL": body(more=""",\"agent_name\":\"'; DROP TABLE turns; --\""""),
}
REFUSED = {
    "deep request": body(request=DEEP),
    "deep everything": DEEP,
    "not a number": body(request='{"n":NaN}'),
    "half": body()[:-10],
    "integers beyond 64 bits": body(meta='{"upstream_status":99999999999999999999}'),
}


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def still_works(client: Client) -> None:
    assert (await client.turn(turn("after", agent_name="after"))).status_code == 202
    assert await client.service.deriver.settled(60)
    listing = (await client.get("/v1/ingest/nodes", params={"agent": "after"})).json()
    assert listing["count"] == 2
    for path in ("/v1/turns", "/v1/sessions", "/v1/usage", "/metrics", "/readyz"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("name", STORED)
async def test_it_is_stored_shown_and_harms_nobody(client: Client, name: str) -> None:
    answer = await client.turn(STORED[name].encode("utf-8", "surrogatepass"))
    assert answer.status_code in (202, 422), answer.text
    identifier = answer.headers["steno-turn-id"]
    assert await client.rows("SELECT count(*) FROM bodies") == [(1,)]
    await still_works(client)
    detail = await client.get(f"/v1/turns/{identifier}")
    assert detail.status_code == 200
    assert json.loads(detail.content)["turn"]["id"] == identifier


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_with_a_reason(client: Client, name: str) -> None:
    answer = await client.turn(REFUSED[name].encode())
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid envelope: ")
    assert await client.rows("SELECT count(*) FROM turns") == [(0,)]
    await still_works(client)


async def test_bytes_that_are_not_utf8_are_stored_repaired(client: Client) -> None:
    answer = await client.turn(body().encode().replace(b'"hi"', b'"\xff\xfe"'))
    assert answer.status_code == 202
    detail = (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).json()
    assert detail["request"]["messages"][0]["content"] == "\ufffd\ufffd"


@pytest.mark.timeout(300)
async def test_a_hundred_thousand_blocks(client: Client) -> None:
    blocks = [{"type": "text", "text": str(n)} for n in range(100_000)]
    big = turn(request={"messages": [{"role": "user", "content": blocks}]})
    big["response"]["message"]["content"] = blocks
    assert (await client.turn(big)).status_code == 202
    await still_works(client)


@pytest.mark.timeout(300)
async def test_a_body_of_48_million_bytes(client: Client) -> None:
    answer = await client.turn(turn("x" * 48_000_000))
    assert answer.status_code == 202
    await still_works(client)
    detail = await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")
    assert len(detail.content) > 48_000_000
