"""The OpenAPI document is true: schemathesis calls every operation with good and bad values."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from ingest.envelope import MetaFacts
from ingest.openapi import document
from ingest.routes import ROUTES
from tests.paths import PROJECT
from tests.unit.ingest.running import service, turn

SERVE = """
import sys
from ingest.app import run
from ingest.settings import IngestSettings
run(IngestSettings(listen="127.0.0.1:0", database_url=sys.argv[1]))
"""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance"
)


def test_every_route_is_in_the_document() -> None:
    paths = cast("dict[str, dict[str, object]]", document("1")["paths"])
    assert {(row.path, row.method.lower()) for row in ROUTES} == {
        (path, method) for path, methods in paths.items() for method in methods
    }


async def test_every_header_that_an_answer_says_something_with_is_in_the_document(tmp_path: Path) -> None:
    """And so is every one of a request that is understood."""
    paths = cast("dict[str, Any]", document("1")["paths"])

    def said(answer: httpx.Response) -> set[str]:
        standard = {"content-type", "content-length", "connection"}
        documented = paths[answer.url.path][answer.request.method.lower()]["responses"]
        headers = set(documented[str(answer.status_code)].get("headers", {}))
        assert set(answer.headers) - standard <= headers, (answer.url, answer.headers)
        return set(answer.headers) & headers

    limits = tmp_path / "limits.yaml"
    limits.write_text("- {tenant: busy, turns_per_s: 1, burst_turns: 1}")
    async with service(tmp_path, limits_file=limits) as client:
        for text in ("one", "two", "two"):
            answer = await client.turn(turn(text, meta={"request_id": "r"}))
            seen = said(answer)
        assert seen >= {"steno-turn-id", "steno-duplicate", "accept-encoding"}
        assert said(await client.turn(turn("three", meta={"request_id": "r"}))) >= {"steno-request-id-reused"}
        assert said(await client.turn(turn(provider="no"))) == {"steno-turn-id", "accept-encoding"}
        busy = [turn(text, meta={"tenant": "busy"}) for text in "abc"]
        assert said(await client.post("/v1/ingest/batch", json={"turns": busy})) >= {"retry-after"}
        assert said(await client.turn(busy[2])) == {"retry-after", "accept-encoding"}
        transcript: dict[str, Any] = {"session": {"harness_session_id": "s"}, "records": []}
        heads = {"x-paper-auth-subject": "u"}
        assert "steno-turn-id" in said(
            await client.post("/v1/ingest/transcript", json=transcript, headers=heads)
        )
        assert said(await client.get("/ping")) == {"accept-encoding"}
        for path in ("/v1/turns", "/readyz", "/healthz"):
            assert said(await client.get(path)) == set()

    def taken(path: str) -> set[str]:
        return {one["name"] for one in paths[path]["post"]["parameters"] if one["in"] == "header"}

    assert (taken("/v1/ingest"), taken("/v1/ingest/transcript")) == (
        {"idempotency-key"},
        {"x-paper-auth-subject"},
    )


def test_all_that_is_understood_of_meta_is_in_the_document() -> None:
    components = cast("dict[str, Any]", document("1")["components"])
    documented = set(components["schemas"]["PostedMeta"]["properties"])
    assert set(MetaFacts.__struct_fields__) <= documented


@pytest.mark.timeout(600)
def test_schemathesis_finds_no_lie(tmp_path: Path) -> None:
    """Everything but the event stream, which never ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE, f"sqlite:///{tmp_path}/x.db"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert child.stdout is not None
    try:
        url = child.stdout.readline().split()[-1]
        arguments = ["run", f"{url}/openapi", "--checks", CHECKS, "--max-examples", "15", "--seed", "7"]
        arguments += ["--phases", "examples,coverage,fuzzing", "--exclude-path", "/v1/events"]
        arguments += ["--request-timeout", "60", "--no-color"]
        found = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), *arguments],
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
            cwd=tmp_path,
        )
    finally:
        os.kill(child.pid, signal.SIGTERM)
        child.wait(60)
        child.stdout.close()
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", found.stdout)
    assert counted is not None
    assert int(counted[1]) == int(counted[2]) > 500
