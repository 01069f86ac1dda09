"""The project tag: of the turn, else of the deployment, on both stores and wherever turns are shown."""

import json
from pathlib import Path

import pytest

from tests.unit.ingest.running import JSON, service, turn


@pytest.mark.parametrize("deployment", ["", "ours"])
async def test_a_turns_own_project_goes_before_the_deployments(
    tmp_path: Path, database_url: str, deployment: str
) -> None:
    session = {"harness_id": "h", "harness_session_id": "s"}
    async with service(tmp_path, database_url=database_url, project=deployment) as client:
        await client.turn(turn("own", meta={"project": "theirs"}))
        await client.turn(turn("none"))
        await client.turn(turn("refused", provider="nobody"))
        transcript = json.dumps({"session": session, "records": []})
        await client.post("/v1/ingest/transcript", content=transcript, headers=JSON)
        listed = (await client.get("/v1/turns", params={"tenant": "default"})).json()["turns"]
        assert [item["project"] for item in reversed(listed)] == [
            "theirs",
            deployment,
            deployment,
            deployment,
        ]
        one = (await client.get(f"/v1/turns/{listed[-1]['id']}")).json()
        assert one["turn"]["project"] == "theirs"
        export = await client.get("/v1/export", params={"tenant": "default"})
        lines = [json.loads(line) for line in export.text.splitlines()]
        assert [line["turn"]["project"] for line in lines] == ["theirs", deployment, deployment, deployment]
