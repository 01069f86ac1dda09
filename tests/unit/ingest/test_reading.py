"""The read surface: what was stored comes back, page by page, to those who may see it."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from ingest.openapi import document
from tests.unit.ingest.running import Client, service, turn


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def derived(client: Client) -> None:
    assert await client.service.deriver.settled(30)


async def get(client: Client, path: str, **query: Any) -> Any:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def harness(session: str, **members: Any) -> dict[str, Any]:
    return {"harness_id": "claude", "harness_session_id": session} | members


def agent_loop() -> list[dict[str, Any]]:
    """A question, a tool call, its result, the answer: two calls, one turn of an agent."""
    question = {"role": "user", "content": "what is\n the  weather?"}
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Ulm"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "sun"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    first = turn(
        request={"model": "m", "stream": True, "messages": [question], "tools": [{"name": "weather"}]},
        response={
            "model": "m",
            "message": {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "tool_use_id": "t1",
                        "tool_name": "weather",
                        "tool_input": {"city": "Ulm"},
                    }
                ],
            },
            "done": True,
            "stop_reason": "tool_use",
            "usage": usage,
        },
        session=harness("s"),
        agent_name="a",
    )
    messages = [
        question,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    second = turn(
        answer="It is sunny.",
        request={"model": "m", "stream": True, "messages": messages, "tools": [{"name": "weather"}]},
        session=harness("s"),
        agent_name="a",
    )
    second["response"]["usage"] = usage
    return [first, second]


async def test_the_calls_of_one_agent_turn_are_one_run(client: Client) -> None:
    first, second = agent_loop()
    await client.turn(first)
    await derived(client)
    session = (await get(client, "/v1/sessions"))["sessions"][0]
    run = (await get(client, f"/v1/sessions/{session['id']}"))["runs"][0]
    assert (run["status"], run["steps"], run["kind"]) == ("in_progress", 1, "chat_turn")
    await client.turn(second)
    await derived(client)
    view = await get(client, f"/v1/runs/{run['id']}")
    assert (view["run"]["status"], view["run"]["steps"]) == ("completed", 2)
    assert view["run"]["label"] == "what is the weather?"
    assert view["run"]["total_tokens"] == 30
    assert [(step["operation"], step["status"], step["result"]) for step in view["steps"]] == [
        ("stream", "completed", "stop"),
        ("stream", "completed", "tool_call"),
    ]


async def test_the_order_of_arrival_does_not_matter(client: Client) -> None:
    for one in reversed(agent_loop()):
        await client.turn(one)
        await derived(client)
    session = (await get(client, "/v1/sessions"))["sessions"]
    assert len(session) == 1
    runs = (await get(client, f"/v1/sessions/{session[0]['id']}"))["runs"]
    assert [(run["status"], run["steps"]) for run in runs] == [("completed", 2)], "an end is written once"


async def test_a_turn_comes_back_with_all_that_was_sent(client: Client) -> None:
    meta = {"request_id": "r-1", "stream": "true", "upstream_status": 200, "extra": [1, None]}
    body = turn("hi", "there", meta=meta, session=harness("s", cwd="/tmp", unknown=1))
    identifier = (await client.turn(body)).headers["steno-turn-id"]
    await derived(client)
    for wanted in (identifier, "r-1"):
        detail = await get(client, f"/v1/turns/{wanted}")
        assert detail["turn"]["id"] == identifier
        for member in ("request", "response", "meta", "session"):
            assert detail[member] == body[member]
        assert detail["canonical"]["text"] == "there"
        assert detail["canonical"]["result"] == "stop"
        assert [attempt["id"] for attempt in detail["attempts"]] == [identifier]


async def test_every_attempt_under_one_id_is_shown(client: Client) -> None:
    await client.turn(turn(provider="nobody", meta={"request_id": "r"}))
    await client.turn(turn("one", meta={"request_id": "r"}))
    await client.turn(turn("two", meta={"request_id": "r"}))
    detail = await get(client, "/v1/turns/r")
    assert [attempt["state"] for attempt in detail["attempts"]] == ["rejected", "accepted", "accepted"]
    assert detail["turn"]["request_id_reused"] is True


async def test_pages_cover_everything_once(client: Client) -> None:
    for n in range(25):
        await client.turn(turn(str(n), meta={"request_id": str(n)}))
    await derived(client)
    seen: list[str] = []
    cursor = ""
    while True:
        page = await get(client, "/v1/turns", limit=10, cursor=cursor)
        seen += [item["request_id"] for item in page["turns"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert seen == [str(n) for n in reversed(range(25))]


async def test_sessions_are_paged_too(client: Client) -> None:
    for n in range(5):
        await client.turn(turn(session=harness(f"s{n}")))
    await derived(client)
    first = await get(client, "/v1/sessions", limit=3)
    second = await get(client, "/v1/sessions", limit=3, cursor=first["next"])
    names = [item["harness_session_id"] for item in first["sessions"] + second["sessions"]]
    assert names == ["s4", "s3", "s2", "s1", "s0"]


async def test_every_cursor_is_as_documented_and_a_full_last_page_has_none(client: Client) -> None:
    """Three of everything: pages of two end with a cursor, a page of three is all there is."""
    for text in "abc":
        await client.turn(turn(text, session=harness("one")))
        await client.turn(turn(text, session=harness(text)))
    await derived(client)
    lists = [("/v1/turns", "turns", 6), ("/v1/sessions", "sessions", 4)]
    session = next(
        item
        for item in (await get(client, "/v1/sessions"))["sessions"]
        if item["harness_session_id"] == "one"
    )
    lists.append((f"/v1/sessions/{session['id']}", "runs", 3))
    pattern = re.compile(documented("cursor"))
    for path, member, count in lists:
        whole = await get(client, path, limit=count)
        assert (len(whole[member]), whole["next"]) == (count, None), path
        short = await get(client, path, limit=count - 1)
        assert pattern.search(short["next"]), path
        last = await get(client, path, limit=count - 1, cursor=short["next"])
        assert short[member] + last[member] == whole[member]
        assert last["next"] is None


def documented(parameter: str) -> str:
    """The pattern of a query parameter in the OpenAPI document."""
    paths: Any = document("1")["paths"]
    parameters = paths["/v1/sessions"]["get"]["parameters"]
    return str(next(each["schema"]["pattern"] for each in parameters if each["name"] == parameter))


async def test_turns_are_filtered(client: Client) -> None:
    await client.turn(turn("1", agent_name="a", session=harness("s")))
    other = turn("2", agent_name="b", provider="openai")
    other["response"]["model"] = "gpt"
    await client.turn(other)
    await client.turn(turn("3", provider="nobody", agent_name="z", meta={"request_id": "r"}))
    await derived(client)
    session = (await get(client, "/v1/sessions", limit=100))["sessions"]
    named = next(item for item in session if item["harness_session_id"] == "s")
    for query, count in (
        ({}, 3),
        ({"agent": "a"}, 1),
        ({"model": "gpt"}, 1),
        ({"provider": "openai", "agent": "b"}, 1),
        ({"provider": "openai", "agent": "a"}, 0),
        ({"session": named["id"]}, 1),
        ({"state": "rejected"}, 1),
        ({"state": "rejected", "provider": "nobody"}, 1),
        ({"state": "rejected", "provider": "nobody", "agent": "z", "model": "m"}, 1),
        ({"state": "rejected", "provider": "anthropic"}, 0),
        ({"state": "rejected", "session": named["id"]}, 0),
        ({"state": "accepted", "provider": "nobody"}, 0),
        ({"provider": "nobody"}, 1),
        ({"model": "m"}, 2),
        ({"model": "m", "limit": 1}, 1),
        ({"provider": "nobody", "request_id": "r"}, 1),
        ({"request_id": "r"}, 1),
        ({"since": "2020-01-01T00:00:00Z"}, 3),
        ({"until": "2020-01-01T00:00:00Z"}, 0),
        ({"tenant": "other"}, 0),
    ):
        assert len((await get(client, "/v1/turns", **query))["turns"]) == count, query


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1", "since=soon", "tenant=../x", "cursor=1-a"],
)
async def test_a_query_that_says_nonsense_is_400(client: Client, query: str) -> None:
    assert (await client.get(f"/v1/turns?{query}")).status_code == 400


@pytest.mark.parametrize("path", ["turns/x", "sessions/x", "runs/x", "nodes/x", "nodes/" + "0" * 64])
async def test_what_does_not_exist_is_404(client: Client, path: str) -> None:
    answer = await client.get(f"/v1/{path}")
    assert (answer.status_code, "error" in answer.json()) == (404, True)


async def test_a_node_is_shown_with_what_came_before(client: Client) -> None:
    first, second = agent_loop()
    await client.turn(first)
    await client.turn(second)
    await derived(client)
    leaf = (await get(client, "/v1/turns"))["turns"][0]["node"]
    view = await get(client, f"/v1/nodes/{leaf}")
    assert view["node"]["content"] == [{"type": "text", "text": "It is sunny."}]
    assert [node["role"] for node in view["ancestors"]] == ["user", "assistant", "user"]
    assert view["next"] is None
    short = await get(client, f"/v1/nodes/{leaf}", limit=1)
    assert short["next"] == short["ancestors"][-1]["parent"] != ""


async def test_usage_is_summed_by_what_is_asked(client: Client) -> None:
    for one in agent_loop():
        await client.turn(one)
    await derived(client)
    (day,) = (await get(client, "/v1/usage"))["usage"]
    assert (day["turns"], day["input_tokens"], day["output_tokens"], day["total_tokens"]) == (2, 20, 10, 30)
    (agent,) = (await get(client, "/v1/usage", by="agent_name,model"))["usage"]
    assert (agent["agent_name"], agent["model"], agent["turns"]) == ("a", "m", 2)
    assert (await client.get("/v1/usage?by=secret")).status_code == 400


async def test_every_turn_has_a_session(client: Client) -> None:
    """Defect 4 of the reference: a turn without one was derived nowhere."""
    await client.turn(turn("alone"))
    await client.turn(turn("half", session={"harness_session_id": "s6"}))
    await client.turn(turn("other half", session={"harness_id": "claude"}))
    await derived(client)
    for item in (await get(client, "/v1/turns"))["turns"]:
        session = await get(client, f"/v1/sessions/{item['session_id']}")
        assert session["session"]["turns"] == 1


async def test_metadata_that_is_null_spoils_nothing(client: Client) -> None:
    """Defect 13 of the reference: null, merged with an object, became a list."""
    for metadata in (None, {"a": 1}, None, {"b": 2}, {"a": 3}):
        await client.turn(turn(session=harness("s", harness_metadata=metadata)))
    await derived(client)
    (session,) = (await get(client, "/v1/sessions"))["sessions"]
    assert session["metadata"] == {"a": 3, "b": 2}


async def test_a_parent_is_there_before_its_own_turns(client: Client) -> None:
    await client.turn(turn(session=harness("child", parent_harness_session_id="parent", name="c")))
    await derived(client)
    sessions = {item["harness_session_id"]: item for item in (await get(client, "/v1/sessions"))["sessions"]}
    assert sessions["parent"]["placeholder"] is True
    assert sessions["child"]["parent_id"] == sessions["parent"]["id"]
    await client.turn(turn(session=harness("parent", name="p")))
    await derived(client)
    parent = await get(client, f"/v1/sessions/{sessions['parent']['id']}")
    assert (parent["session"]["placeholder"], parent["session"]["name"]) == (False, "p")


async def test_the_newest_word_about_a_session_wins(client: Client) -> None:
    for name in ("one", "two", ""):
        await client.turn(turn(session=harness("s", name=name)))
    await derived(client)
    assert (await get(client, "/v1/sessions"))["sessions"][0]["name"] == "two"


async def test_what_a_strict_reader_refuses_is_shown_repaired(client: Client) -> None:
    body = json.dumps(turn()).replace('"hi"', '"a\\ud800b\\u0000"')
    identifier = (await client.turn(body)).headers["steno-turn-id"]
    detail = await get(client, f"/v1/turns/{identifier}")
    assert detail["request"]["messages"][0]["content"] == "a\ufffdb\0"


async def test_health_and_readiness(client: Client) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"ready": True, "problems": []}
    client.service.deriver.stop()
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["draining"])


async def test_an_exchange_that_was_cut_before_its_content_began_is_kept(client: Client) -> None:
    """The contract refuses an answer without content; this one says why it has none."""
    silent: dict[str, Any] = {"message": {"role": "assistant", "content": []}, "done": False}
    assert (await client.turn(turn("who are you?", response=silent))).status_code == 422
    answer = await client.turn(turn("who am I?", response=silent, meta={"partial": True}))
    assert answer.status_code == 202
    await derived(client)
    [item] = (await get(client, "/v1/turns", state="accepted"))["turns"]
    shown = await get(client, f"/v1/turns/{item['id']}")
    assert shown["request"]["messages"] == [{"role": "user", "content": "who am I?"}]
    assert (await client.rows("SELECT status FROM steps")) == [("interrupted",)]
    assert (await client.rows("SELECT status FROM runs")) == [("interrupted",)]


@pytest.mark.parametrize("seen", [{}, {"result": "max_tokens", "stop_reason": "length"}])
async def test_an_answer_that_is_whole_and_empty_is_kept_where_its_producer_saw_why(
    client: Client, seen: dict[str, Any]
) -> None:
    """A view without a message's role is not enough."""
    empty: dict[str, Any] = {"message": {"role": "assistant", "content": []}, "done": True}
    assert (await client.turn(turn(response=empty, meta={"canonical": None}))).status_code == 422
    nobody: dict[str, Any] = {"message": {"content": []}, "done": True}
    assert (await client.turn(turn(response=nobody, meta={"Canonical": seen}))).status_code == 422
    answer = await client.turn(turn(response=empty, meta={"canonical": seen}))
    assert answer.status_code == 202
    await derived(client)
    shown = await get(client, f"/v1/turns/{answer.headers['steno-turn-id']}")
    assert shown["canonical"]["result"] == seen.get("result", shown["canonical"]["result"])
    assert await client.rows("SELECT count(*) FROM derive_failures") == [(0,)]


def other_case(value: object) -> Any:
    """The same with its members' names capitalised, word by word, at every level."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name.title(): other_case(member) for name, member in members.items()}
    if isinstance(value, list):
        return [other_case(item) for item in cast("list[object]", value)]
    return value


async def test_names_in_another_case_become_the_same_turn(client: Client) -> None:
    """Members match without case (wire.md §1): at every level that ingest reads, and behind the accept too."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    blocks = [
        {"type": "text", "text": "hello"},
        {"type": "tool_use", "tool_use_id": "t", "tool_name": "n", "tool_input": {"a": 1}},
    ]
    message = {"role": "assistant", "content": blocks}
    said = harness("s", cwd="/x", name="n", parent_harness_session_id="p", auth_subject="me")
    sent = turn(
        response={"model": "m9", "message": message, "usage": usage, "stop_reason": "tool_use", "done": True},
        session=said,
        meta={"thread_id": "th", "stream": "true", "elapsed_seconds": 2},
    )
    odd = {name: other_case(value) if name != "request" else value for name, value in sent.items()}
    odd["response"]["Message"]["Content"][1]["Tool_Input"] = {"a": 1}
    await client.turn(sent)
    assert (await client.turn(odd)).status_code == 202
    await derived(client)
    two = (await get(client, "/v1/turns"))["turns"]
    own = ("id", "received_at", "body_bytes")
    one, other = ({name: member for name, member in item.items() if name not in own} for item in two)
    assert one == other
    assert (one["text"], one["usage"]["total_tokens"], one["duration_ms"]) == ("hello", 11, 2000)
    views = [(await get(client, f"/v1/turns/{item['id']}"))["canonical"] for item in two]
    assert views[0] == views[1]
    named = {item["harness_session_id"]: item for item in (await get(client, "/v1/sessions"))["sessions"]}
    assert [named["s"][name] for name in ("cwd", "name", "auth_subject", "parent_id")] == [
        "/x", "n", "me", named["p"]["id"]
    ]  # fmt: skip


async def test_a_session_named_in_another_case_alone_keeps_what_it_says(client: Client) -> None:
    said = {"Harness_ID": "h", "Harness_Session_ID": "s", "CWD": "/x", "Parent_Harness_Session_ID": "p"}
    await client.turn(turn(session=said))
    await derived(client)
    named = {item["harness_session_id"]: item for item in (await get(client, "/v1/sessions"))["sessions"]}
    assert (named["s"]["cwd"], named["s"]["parent_id"]) == ("/x", named["p"]["id"])


@pytest.mark.parametrize("by", ["session_id", "model", "agent_name,day,session_id"])
async def test_usage_is_paged_and_no_group_is_left_out(client: Client, by: str) -> None:
    """Of more groups than a page has: it was cut at 10,000 without a word."""
    for number in range(7):
        sent = turn(str(number), session=harness(f"s{number}"), agent_name=f"\u00e4 {number}")
        sent["response"]["model"] = f"m-{number % 5}"
        await client.turn(sent)
    await derived(client)
    whole = await get(client, "/v1/usage", by=by)
    assert (len(whole["usage"]), whole["next"]) == (5 if by == "model" else 7, None)
    seen: list[Any] = []
    cursor = ""
    while True:
        page = await get(client, "/v1/usage", by=by, limit=2, cursor=cursor)
        assert len(page["usage"]) <= 2
        seen += page["usage"]
        if page["next"] is None:
            break
        cursor = page["next"]
        assert re.search(documented("cursor"), cursor)
    assert seen == whole["usage"]


@pytest.mark.parametrize(
    "cursor", ["x", "5-a", "WzFd", "W10", "WyJhIiwiYiJd", "\u00e4", "e30", "WyJhXHVkODAwIl0"]
)
async def test_a_cursor_that_is_none_of_usage_is_400(client: Client, cursor: str) -> None:
    answer = await client.get("/v1/usage", params={"by": "model", "cursor": cursor})
    assert answer.status_code == 400, answer.text


async def test_a_cursor_of_usage_may_hold_any_text(client: Client) -> None:
    answer = await get(client, "/v1/usage", by="model", cursor="WyJhXHUwMDAwIl0")
    assert answer == {"usage": [], "next": None}


async def test_a_filtered_list_has_rejected_turns_in_their_place(client: Client) -> None:
    """Pages of both kinds, newest first, as without a filter."""
    for n in range(9):
        await client.turn(turn(str(n), agent_name="a", provider="nobody" if n % 3 else "anthropic"))
    await derived(client)
    whole = (await get(client, "/v1/turns"))["turns"]
    seen: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = await get(client, "/v1/turns", agent="a", limit=2, cursor=cursor)
        seen += page["turns"]
        cursor = page["next"]
    assert seen == whole


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions?model=m",
        "/v1/usage?model=nope",
        "/v1/usage?agent=none",
        "/v1/turns?sesion=s",
        "/v1/turns?model=a&model=b",
        "/v1/turns/x?state=accepted",
        "/v1/sessions/x?agent=a",
        "/v1/runs/x?model=m",
        "/v1/nodes/x?cursor=1-2",
        "/v1/events?session=s",
    ],
)
async def test_a_parameter_that_a_route_does_not_have_is_400(client: Client, path: str) -> None:
    """It was ignored: whoever asked for the tokens of one model was told those of all."""
    answer = await client.get(path)
    assert answer.status_code == 400
    assert path.partition("?")[2].partition("=")[0] in answer.json()["error"]


async def test_deriving_again_is_for_all_and_takes_no_parameter(client: Client) -> None:
    assert (await client.post("/v1/derive?tenant=a")).status_code == 400


async def test_what_the_contract_ignores_is_ignored(client: Client) -> None:
    assert (await client.post("/v1/ingest?x=1", json=turn())).status_code == 202
    assert (await client.get("/v1/ingest/nodes?x=1")).status_code == 200


async def test_sessions_whose_ids_begin_alike_stay_apart(client: Client) -> None:
    """However long: their columns have 256 characters. A child finds its parent by the whole id, too."""
    long = "L" * 300
    for end in "ab":
        await client.turn(turn(end, session=harness(long + end), meta={"thread_id": long + end}))
    child = harness("child", parent_harness_session_id=long + "b")
    await client.turn(turn("c", session=child, meta={"thread_id": long}))
    await derived(client)
    sessions = (await get(client, "/v1/sessions"))["sessions"]
    assert [item["turns"] for item in sessions] == [1, 1, 1]
    parents = {item["id"]: item["harness_session_id"] for item in sessions}
    (named,) = [item for item in sessions if item["harness_session_id"] == "child"]
    turns = (await get(client, "/v1/turns", session=named["parent_id"]))["turns"]
    assert [item["label"] for item in turns] == ["b"]
    assert len(parents[named["parent_id"]]) == 256
    threads = {item["thread_id"] for item in (await get(client, "/v1/turns"))["turns"]}
    assert len(threads) == 3
    await client.delete("/v1/turns", params={"tenant": "default", "session": named["parent_id"]})
    await derived(client)
    assert [item["label"] for item in (await get(client, "/v1/turns"))["turns"]] == ["c", "a"]
