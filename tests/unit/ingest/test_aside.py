"""Large bodies are worked on beside the event loop, small ones on it."""

import base64
import gzip
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ingest import bodies, intake, transcript, views, writing
from ingest.aside import INLINE_BYTES
from tests.unit.ingest.running import Client, service, turn

WORK: list[tuple[ModuleType, str]] = [
    (bodies, "_uncoded"),
    (intake, "prepare"),
    (intake, "prepare_transcript"),
    (transcript, "decode"),
    (views, "turn_detail"),
    (writing, "_turns_of"),
]
LARGE = "x" * INLINE_BYTES
JSON = {"content-type": "application/json"}


def watch(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What was done, by name: whether it was last done on the event loop's own thread."""
    inline: dict[str, bool] = {}

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            inline[name] = threading.current_thread() is threading.main_thread()
            return work(*given, **named)

        return wrapped

    for module, name in WORK:
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return inline


async def everything(client: Client, text: str) -> None:
    """Post, batch, a transcript and a read, each of a body that holds ``text``."""
    coded = gzip.compress(json.dumps(turn(text)).encode())
    answer = await client.post("/v1/ingest", content=coded, headers=JSON | {"content-encoding": "gzip"})
    assert answer.status_code == 202
    assert (await client.get(f"/v1/turns/{answer.headers['steno-turn-id']}")).status_code == 200
    assert (await client.post("/v1/ingest/batch", json={"turns": [turn(text)]})).status_code == 202
    record = {"session": {"harness_session_id": "s"}, "records": [text]}
    assert (await client.post("/v1/ingest/transcript", json=record)).status_code == 202


@pytest.mark.parametrize(("text", "inline"), [("x", True), (LARGE, False)])
async def test_large_bodies_leave_the_loop_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, inline: bool
) -> None:
    async with service(tmp_path) as client:
        done = watch(monkeypatch)
        await everything(client, text)
    assert done == {name: inline for _, name in WORK}


@pytest.mark.parametrize(
    "name", ["raw_response_encoding", "RAW_Response_Encoding", "raw_respons\\u0065_encoding"]
)
async def test_a_small_body_that_may_unfold_is_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Coded raw bytes are undone where the turn is reduced: their size on the wire says nothing."""
    raw = base64.b64encode(gzip.compress(b"data: {}\n\n" * 10_000)).decode()
    body = json.dumps(turn(response={}, raw_response=raw))[:-1] + f', "{name}": "gzip"}}'
    assert len(body) < INLINE_BYTES
    async with service(tmp_path) as client:
        done = watch(monkeypatch)
        assert (await client.turn(body)).status_code in (202, 422)
    assert done == {"prepare": False}
