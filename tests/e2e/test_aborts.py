"""A client that leaves at any frame: the turn is made of the bytes that Envoy forwarded, no more, no fewer (T18).

What Envoy forwarded is what passed its filters on the way to the client. The capture filter
copies each piece there and lets it go on at once, so three numbers must be one: the bytes that
the sidecar got (``meta.response_bytes``), the bytes that Envoy's access log says it sent, and the
length of the prefix of the provider's answer that the turn was reduced from. What the client
*read* may be less: bytes were still in Envoy's or the kernel's buffers when it left. Where the
provider waits for the client to leave, nothing is on its way, and all four are equal.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from capture.canonical import ViewFacts, view
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.turn import Dialect, Ending, Turn
from capture.wire_response import reduced_response
from extproc.pb.access_log_pb2 import HttpAccessLogEntry
from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import CUT_SHORT, Envoy, Mode
from tests.e2e.harness.ledger import Ledger
from tests.e2e.harness.provider import Script, chat_request, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar

CHUNKS = 36
FOR_EVER_S = 60.0


@dataclass(frozen=True)
class Kind:
    """A dialect: where it is spoken, how a request looks, and what a turn of it is called."""

    path: str
    dialect: Dialect
    provider: str
    endpoint: str

    def request(self, question: str) -> bytes:
        make = message_request if self.dialect is Dialect.ANTHROPIC_MESSAGES else chat_request
        return make(stream=True, text=question)

    def reduced(self, prefix: bytes, ending: Ending, at: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The canonical view and the wire's response of an answer that ended after ``prefix``."""
        facts = ResponseFacts(content_type="text/event-stream")
        reducer = ResponseReducer(self.dialect, RequestFacts(path=self.path, model=""), facts)
        reducer.feed(prefix)
        turn = reducer.finish(ending)
        assert isinstance(turn, Turn)
        model = json.loads(self.request(""))["model"]
        seen = ViewFacts(provider=self.provider, endpoint=self.endpoint, stream=True, request_model=model)
        return _plain(view(turn, seen)), _untimed(_plain(reduced_response(turn, reduced_at=at)))


KINDS = (
    Kind("/v1/messages", Dialect.ANTHROPIC_MESSAGES, "anthropic", "messages"),
    Kind("/v1/chat/completions", Dialect.OPENAI_CHAT, "openai", "chat_completions"),
)


def _plain(value: object) -> dict[str, Any]:
    """As it is after a journey as JSON."""
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found


def _untimed(response: dict[str, Any]) -> dict[str, Any]:
    """Without how long the exchange took."""
    usage = {name: value for name, value in response.get("usage", {}).items() if name != "total_duration_ns"}
    return {**response, "usage": usage}


@dataclass
class Rig:
    """An Envoy whose clients leave, with everybody who wrote down what passed."""

    envoy: Envoy
    sidecar: Sidecar
    ingest: Ingest
    ledger: Ledger

    async def ask(self, kind: Kind, question: str, script: Script, leave_after_bytes: int) -> Reply:
        return await fetch(
            self.envoy.port, kind.path, kind.request(question), script,
            headers=[("x-request-id", question)], leave_after_bytes=leave_after_bytes,
        )  # fmt: skip

    async def turns(self, count: int) -> dict[str, dict[str, Any]]:
        """Ingest's turns by their questions, once it has so many."""
        async with asyncio.timeout(60), httpx.AsyncClient(timeout=30) as client:
            while True:
                answer = await client.get(f"{self.ingest.url}/v1/export", params={"tenant": "default"})
                found = [json.loads(line) for line in answer.raise_for_status().text.splitlines()]
                if len(found) >= count:
                    return {turn["request"]["messages"][0]["content"]: turn for turn in found}
                await asyncio.sleep(0.2)

    async def entries(self, count: int) -> dict[str, HttpAccessLogEntry]:
        """Envoy's account of each request, by its question."""
        found = await self.ledger.until(count)
        return {each.request.request_id: each for each in found}


@pytest.fixture(params=["grpcio", "http2"])
async def rig(
    *, request: pytest.FixtureRequest, short_tmp: Path, logs: list[Path], ingest: Ingest,
    ledger: Ledger, start_envoy: StartEnvoy,
) -> AsyncGenerator[Rig]:  # fmt: skip
    """Everything running, on each transport."""
    port, admin_port = free_ports(2)
    sidecar = Sidecar(short_tmp, port, admin_port, ingest.url, f"--transport={request.param}")
    logs.append(sidecar.log)
    await sidecar.start()
    envoy = await start_envoy(
        Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", port)], ledger=ledger.port, settings=CUT_SHORT
    )
    yield Rig(envoy, sidecar, ingest, ledger)
    await sidecar.stop()


def _lengths(pieces: Sequence[bytes]) -> list[int]:
    """How many bytes are out before each frame, and after the last."""
    return [sum(map(len, pieces[:number])) for number in range(len(pieces) + 1)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.dialect.value)
async def test_a_turn_holds_exactly_the_frames_that_the_client_got_before_it_left(
    rig: Rig, kind: Kind
) -> None:
    """The provider waits behind frame n until the client has left, for every n: 0 is behind its headers."""
    scripts = {f"cut-{n}": Script(chunks=CHUNKS, pause_at=n, pause_s=FOR_EVER_S) for n in range(CHUNKS + 6)}
    whole = frames(kind.path, Script(chunks=CHUNKS))
    lengths = dict(zip(scripts, _lengths(whole), strict=False))
    assert len(lengths) == len(whole) + 1
    replies = await asyncio.gather(
        *(rig.ask(kind, question, scripts[question], length) for question, length in lengths.items())
    )
    ledger = await rig.sidecar.settled(len(lengths))
    # Behind the headers there is no turn. Behind the first frame there is one without content.
    assert ledger["outcomes"] == {"upstream_no_response": 1}
    assert (ledger["delivered"], ledger["imbalance"]) == (len(whole), 0)
    turns, entries = await rig.turns(len(whole)), await rig.entries(len(lengths))
    assert set(turns) == set(lengths) - {"cut-0"}
    for (question, length), reply in zip(lengths.items(), replies, strict=True):
        assert (reply.body, reply.complete) == (b"".join(whole)[:length], False)
        assert entries[question].response.response_body_bytes == length
        if length:
            assert turns[question]["meta"]["response_bytes"] == length
            assert _as_stored(turns[question]) == kind.reduced(reply.body, Ending.CUT, _end(turns[question]))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.dialect.value)
async def test_a_turn_holds_exactly_what_envoy_forwarded_while_the_provider_went_on(
    rig: Rig, kind: Kind
) -> None:
    """The client leaves behind frame n and more is on its way: Envoy's own count decides."""
    whole = frames(kind.path, Script(chunks=CHUNKS))
    body = b"".join(whole)
    lengths = {f"cut-{n}": length for n, length in enumerate(_lengths(whole)) if length}
    script = Script(chunks=CHUNKS, delay_s=0.01)
    replies = await asyncio.gather(
        *(rig.ask(kind, question, script, length) for question, length in lengths.items())
    )
    ledger = await rig.sidecar.settled(len(lengths))
    assert (ledger["delivered"], ledger["imbalance"]) == (len(lengths), 0)
    turns, entries = await rig.turns(len(lengths)), await rig.entries(len(lengths))
    for (question, length), reply in zip(lengths.items(), replies, strict=True):
        turn = turns[question]
        forwarded = entries[question].response.response_body_bytes
        assert turn["meta"]["response_bytes"] == forwarded
        assert length <= len(reply.body) <= forwarded <= len(body)
        assert body.startswith(reply.body)
        endings = [Ending.CUT] if forwarded < len(body) else [Ending.CUT, Ending.COMPLETE]
        assert _as_stored(turn) in [kind.reduced(body[:forwarded], each, _end(turn)) for each in endings]


def _as_stored(turn: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return turn["meta"]["canonical"], _untimed(turn["response"])


def _end(turn: dict[str, Any]) -> str:
    """When the sidecar closed the exchange: it dates a turn whose provider sent no time."""
    found: str = turn["meta"]["captured_at"]
    return found
