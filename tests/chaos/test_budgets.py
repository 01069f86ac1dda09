"""Low budgets over both transports: reading goes on, prefixes are kept, and every exchange is accounted for."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from capture.outcomes import Outcome, State
from extproc.budget import Budget, BudgetLimits, ShedPart
from extproc.captured import Captured, Instant
from extproc.checkpoints import Checkpointer
from extproc.exchange import ExchangeRules
from extproc.pb.ext_proc_pb2 import (
    HeaderMap,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    ProcessingMode,
    ProcessingRequest,
    ProtocolConfiguration,
)
from extproc.pipeline import Pipeline, PipelineLimits
from extproc.policy import OnePolicy
from extproc.recorder import Recorder
from extproc.shelf import Shelf
from extproc.transport.address import TcpAddress
from extproc.transport.base import StreamAcceptor, Transport
from extproc.transport.grpcio import GrpcioTransport
from extproc.transport.http2.server import Http2Transport
from ingest_client.ledger import Ledger
from ingest_client.sink import Kept, Record
from ingest_client.spool.api import Checkpoint
from tests.patience import eventually
from tests.unit.extproc.transport.peer import Peer

KIB: Final = 1024
MIB: Final = 1024 * KIB
TRANSPORTS: Final[dict[str, Callable[[StreamAcceptor], Transport]]] = {
    "grpcio": lambda acceptor: GrpcioTransport(TcpAddress("127.0.0.1", 0), acceptor),
    "http2": lambda acceptor: Http2Transport(TcpAddress("127.0.0.1", 0), acceptor),
}


class Store:
    """A sink in memory that counts as the spool does."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.records: list[Record] = []

    async def keep(self, record: Record) -> Kept:
        self.records.append(record)
        if record.quarantine is None:
            self.ledger.settle({"spooled": 1})
        else:
            self.ledger.end(record.quarantine.outcome)
        return Kept()

    async def close(self, grace_s: float) -> None: ...
    async def forget(self, turn_id: str) -> None: ...
    async def checkpoint(self, snapshot: Checkpoint) -> bool:
        return bool(snapshot.body)

    async def take_interrupted(self, now_ns: int) -> list[Checkpoint]:
        del now_ns
        return []


class Deaf:
    def kept(self, captured: Captured, record: Record) -> None: ...
    def ended(self, captured: Captured, outcome: Outcome) -> None: ...


def _now() -> Instant:
    return Instant(time.time_ns(), time.monotonic_ns())


class Sidecar:
    """A worker's parts around a budget, served by a transport."""

    def __init__(self, limits: BudgetLimits, folder: Path) -> None:
        self.ledger = Ledger()
        self.store = Store(self.ledger)
        self.budget = Budget(limits)
        self.shelf = Shelf(folder)
        self.pipeline = Pipeline(
            sink=self.store,
            checkpoints=self.store,
            ledger=self.ledger,
            observer=Deaf(),
            limits=PipelineLimits(max_turns=100, max_bytes=1 << 30),
            wall_ns=time.time_ns,
            shelf=self.shelf,
        )
        self.checkpointer = Checkpointer(
            checkpoints=self.store, sink=self.store, name=self.pipeline.name, clock=_now
        )
        self.recorder = Recorder(
            rules=ExchangeRules(OnePolicy(), budget=self.budget),
            pipeline=self.pipeline,
            checkpointer=self.checkpointer,
            ledger=self.ledger,
            clock=_now,
        )

    @asynccontextmanager
    async def serving(self, transport: str) -> AsyncGenerator[Peer]:
        """A peer of the sidecar; at the end everything that came is kept or counted."""
        served = TRANSPORTS[transport](self.recorder)
        await served.start()
        running = [
            asyncio.ensure_future(self.pipeline.run()),
            asyncio.ensure_future(self.checkpointer.run()),
        ]
        try:
            async with Peer(served.address) as peer:
                yield peer
        finally:
            await served.stop(30)
            await asyncio.wait_for(self.pipeline.drain(), 60)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await asyncio.to_thread(self.pipeline.assembler.stop)
            self.shelf.close()

    @property
    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(record.body) for record in self.store.records]

    def check_the_books(self, exchanges: int) -> None:
        """Nothing is held any more, and the balance closes."""
        assert (self.budget.used.bytes, self.budget.used.exchanges) == (0, 0)
        assert (self.ledger.observed, self.ledger.open, self.ledger.imbalance) == (exchanges, 0, 0)


def _headers(*pairs: tuple[str, str]) -> HttpHeaders:
    values = [HeaderValue(key=name, raw_value=value.encode()) for name, value in pairs]
    return HttpHeaders(headers=HeaderMap(headers=values))


REQUEST_HEADERS: Final = _headers((":method", "POST"), (":path", "/v1/messages"), (":authority", "api.test"))
RESPONSE_HEADERS: Final = _headers((":status", "200"), ("content-type", "text/event-stream"))
START: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","role":"assistant"}}\n\n'
)


def _delta(text: str) -> bytes:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + json.dumps(event).encode() + b"\n\n"


async def _exchange(peer: Peer, request: list[bytes], response: list[bytes], *, observe: bool = True) -> int:
    """One whole exchange as Envoy would have it; returns the number of answers that came."""
    messages = [
        ProcessingRequest(request_headers=REQUEST_HEADERS),
        *(ProcessingRequest(request_body=HttpBody(body=chunk)) for chunk in request),
        ProcessingRequest(request_body=HttpBody(end_of_stream=True)),
        ProcessingRequest(response_headers=RESPONSE_HEADERS),
        *(ProcessingRequest(response_body=HttpBody(body=chunk)) for chunk in response),
        ProcessingRequest(response_body=HttpBody(end_of_stream=True)),
    ]
    call = peer.call()
    answers = 0
    for message in messages:
        message.observability_mode = observe
        if not observe and message is messages[0]:
            message.protocol_config.CopyFrom(
                ProtocolConfiguration(
                    request_body_mode=ProcessingMode.STREAMED, response_body_mode=ProcessingMode.STREAMED
                )
            )
        await call.write(message.SerializeToString())
        if not observe:
            answers += isinstance(await call.read(), bytes)
    await call.done_writing()
    async with asyncio.timeout(100):
        while isinstance(await call.read(), bytes):
            answers += 1
    return answers


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_long_answers_over_the_budget_are_truncated_and_read_to_their_end(
    transport: str, tmp_path: Path
) -> None:
    """Sixteen answers of 512 KiB of text at once where three have room: a prefix of each is kept, and only
    an exchange that begins when there is no room at all is lost.
    """
    sidecar = Sidecar(BudgetLimits(max_bytes=2 * MIB, max_exchanges=100, tenant_share=1.0), tmp_path)
    chunks = [START, *(_delta(f"{number:05d}" + "x" * 8 * KIB) for number in range(64))]
    async with sidecar.serving(transport) as peer:
        await asyncio.gather(*(_exchange(peer, [b'{"model": "m"}'], chunks) for _ in range(16)))
    sidecar.check_the_books(16)
    lost = sidecar.ledger.ended[Outcome.OVER_BUDGET]
    assert sidecar.ledger.total(State.SPOOLED) == 16 - lost
    assert lost < 8
    truncated = [each for each in sidecar.payloads if each["meta"].get("truncated")]
    assert len(truncated) == sum(n for (part, _), n in sidecar.budget.shed.items() if part is ShedPart.ANSWER)
    assert 0 < len(truncated) <= 16
    whole = "".join(f"{number:05d}" + "x" * 8 * KIB for number in range(64))
    for payload in sidecar.payloads:
        assert whole.startswith(payload["meta"]["canonical"]["text"])
        assert payload["meta"]["response_bytes"] == sum(map(len, chunks)), "every byte was read"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_large_requests_over_the_budget_are_lost_and_counted(transport: str, tmp_path: Path) -> None:
    """Twelve of 4 MiB at once where two have room; those that have are kept as they came."""
    sidecar = Sidecar(BudgetLimits(max_bytes=9 * MIB, max_exchanges=100, tenant_share=1.0), tmp_path)
    request = [b'{"model": "m", "messages": ["', *[b"x" * 256 * KIB] * 16, b'"]}']
    async with sidecar.serving(transport) as peer:
        await asyncio.gather(*(_exchange(peer, request, [START]) for _ in range(12)))
    sidecar.check_the_books(12)
    kept, lost = sidecar.ledger.total(State.SPOOLED), sidecar.ledger.ended[Outcome.OVER_BUDGET]
    assert (kept + lost, kept >= 1, lost >= 1) == (12, True, True)
    assert sum(n for (part, _), n in sidecar.budget.shed.items() if part is ShedPart.REQUEST) == lost
    for payload in sidecar.payloads:
        assert payload["request"] == json.loads(b"".join(request))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_shed_is_answered_like_everything_else(transport: str, tmp_path: Path) -> None:
    """In reply mode Envoy waits for an answer to every message: it gets one, whatever was lost."""
    sidecar = Sidecar(BudgetLimits(max_bytes=64 * KIB, max_exchanges=100, tenant_share=1.0), tmp_path)
    request = [b'{"model": "m", "messages": ["', *[b"x" * 64 * KIB] * 4, b'"]}']
    async with sidecar.serving(transport) as peer:
        answers = await _exchange(peer, request, [START, _delta("y" * 64 * KIB)], observe=False)
    sidecar.check_the_books(1)
    assert answers == len(request) + 6
    assert sidecar.ledger.ended[Outcome.OVER_BUDGET] == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_exchanges_too_many_are_lost_and_the_others_kept(transport: str, tmp_path: Path) -> None:
    sidecar = Sidecar(BudgetLimits(max_bytes=1 << 30, max_exchanges=4, tenant_share=1.0), tmp_path)
    chunks = [START, *[_delta("word")] * 50]
    async with sidecar.serving(transport) as peer:
        await asyncio.gather(*(_exchange(peer, [b'{"model": "m"}'], chunks) for _ in range(40)))
        await _exchange(peer, [b'{"model": "m"}'], chunks)
    sidecar.check_the_books(41)
    lost = sidecar.ledger.ended[Outcome.OVER_BUDGET]
    assert sidecar.ledger.total(State.SPOOLED) == 41 - lost
    assert 0 < lost <= 36
    assert sum(n for (part, _), n in sidecar.budget.shed.items() if part is ShedPart.EXCHANGE) == lost


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_waits_on_the_shelf_while_its_answer_comes(transport: str, tmp_path: Path) -> None:
    """Half a megabyte of request holds no memory of the budget until its turn is made."""
    sidecar = Sidecar(BudgetLimits(max_bytes=1 << 30, max_exchanges=100, tenant_share=1.0), tmp_path)
    request = [b'{"model": "m", "messages": ["', *[b"x" * 64 * KIB] * 8, b'"]}']
    async with sidecar.serving(transport) as peer:
        call = peer.call()
        for message in (
            ProcessingRequest(request_headers=REQUEST_HEADERS, observability_mode=True),
            *(ProcessingRequest(request_body=HttpBody(body=c), observability_mode=True) for c in request),
            ProcessingRequest(request_body=HttpBody(end_of_stream=True), observability_mode=True),
        ):
            await call.write(message.SerializeToString())
        await eventually(lambda: sidecar.shelf.counters.shelved >= 1)
        assert sidecar.budget.used.bytes < 64 * KIB
        # A checkpoint reads it, and puts it back.
        await eventually(lambda: sidecar.checkpointer.counters.written >= 1)
        await eventually(lambda: sidecar.budget.used.bytes < 64 * KIB)
        assert sidecar.shelf.counters.fetched >= 1
        for message in (
            ProcessingRequest(response_headers=RESPONSE_HEADERS, observability_mode=True),
            ProcessingRequest(
                response_body=HttpBody(body=START + _delta("done"), end_of_stream=True),
                observability_mode=True,
            ),
        ):
            await call.write(message.SerializeToString())
        await call.done_writing()
        await call.read()
    sidecar.check_the_books(1)
    (payload,) = sidecar.payloads
    assert payload["request"] == json.loads(b"".join(request))
    assert payload["meta"]["canonical"]["text"] == "done"
    assert sidecar.shelf.used_bytes == 0
