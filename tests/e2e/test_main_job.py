"""The main job on a real Envoy: users get every byte, and ingest gets every turn."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable

import pytest

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import CUT_SHORT, Mode
from tests.e2e.harness.provider import Script, answer_text, chat_request, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar
from tests.e2e.harness.upstream import Upstream

EXCHANGES = 100
ANTHROPIC, OPENAI = "/v1/messages", "/v1/chat/completions"


def script(number: int, *, delay_s: float = 0.005, chunks: int = 12) -> Script:
    """Each exchange has an answer of its own."""
    return Script(seed=f"n{number}-", chunks=chunks, delay_s=delay_s)


def path(number: int) -> str:
    """Both dialects, in turn."""
    return ANTHROPIC if number % 2 else OPENAI


def request(number: int) -> bytes:
    """A streamed request that no other exchange makes."""
    make = message_request if number % 2 else chat_request
    return make(stream=True, text=f"question {number}")


async def ask(port: int, number: int, *, delay_s: float = 0.005, chunks: int = 12) -> Reply:
    """One exchange."""
    return await fetch(port, path(number), request(number), script(number, delay_s=delay_s, chunks=chunks))


def node(parent: str, role: str, text: str) -> str:
    """A node's hash, by hand: behaviour.md §8 for one text block (trimmed, no tags in it)."""
    block = {"is_error": False, "text": text.strip(), "type": "text"}
    content = {"content": {"content": [block], "role": role, "type": "message"}, "parent": parent}
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def expected_nodes(number: int) -> set[str]:
    """The two nodes of an exchange, from what its client sent and was sent."""
    question = node("", "user", f"question {number}")
    return {question, node(question, "assistant", answer_text(script(number)))}


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.FULL_DUPLEX_STREAMED, Mode.BUFFERED, Mode.STREAMED])
async def test_a_hundred_concurrent_turns_arrive_and_no_byte_changes(
    start_envoy: StartEnvoy, provider: Upstream, steno: Sidecar, ingest: Ingest, mode: Mode
) -> None:
    with_sidecar = await start_envoy(mode, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    without = await start_envoy(None)
    plain = await asyncio.gather(*(ask(without.port, number) for number in range(EXCHANGES)))
    seen = await asyncio.gather(*(ask(with_sidecar.port, number) for number in range(EXCHANGES)))
    for number, (one, other) in enumerate(zip(plain, seen, strict=True)):
        whole = b"".join(frames(path(number), script(number)))
        assert (one.status, one.complete, one.body) == (200, True, whole)
        assert (other.status, other.complete, other.body) == (200, True, whole)
    assert len(provider.served) == 2 * EXCHANGES
    nodes = await ingest.nodes(2 * EXCHANGES)
    assert {each["hash"] for each in nodes} == {
        each for number in range(EXCHANGES) for each in expected_nodes(number)
    }
    ledger = await steno.settled(EXCHANGES)
    assert ledger["delivered"] == ledger["observed"] == EXCHANGES
    assert ledger["imbalance"] == 0


async def test_capture_headers_never_reach_the_provider(
    start_envoy: StartEnvoy, provider: Upstream, steno: Sidecar, ingest: Ingest
) -> None:
    """In observability mode Envoy itself removes them; elsewhere our answer does."""
    secret = [("x-tapes-agent-name", "tester"), ("x-steno-tenant", "evil"), ("x-tapes-cwd", "/home")]
    for mode in (Mode.OBSERVE, Mode.STREAMED):
        envoy = await start_envoy(mode, sidecar=[TcpAddress("127.0.0.1", steno.port)])
        await fetch(envoy.port, ANTHROPIC, message_request(stream=False), headers=secret)
        served = provider.served[-1]
        assert [served.header(name) for name, _ in secret] == [None, None, None]
    nodes = await ingest.nodes(2)
    assert {each.get("agent_name") for each in nodes} == {"tester"}


@pytest.mark.parametrize("leave", ["client", "upstream reset", "upstream close"])
async def test_a_stream_without_its_end_is_stored_as_far_as_it_came(
    start_envoy: StartEnvoy, provider: Upstream, steno: Sidecar, ingest: Ingest, leave: str
) -> None:
    sidecar = [TcpAddress("127.0.0.1", steno.port)]
    envoy = await start_envoy(Mode.OBSERVE, sidecar=sidecar, settings=CUT_SHORT)
    cut = Script(chunks=40, delay_s=0.02)
    if leave == "upstream reset":
        cut = Script(chunks=40, delay_s=0.02, reset_after=10)
    elif leave == "upstream close":
        cut = Script(chunks=40, delay_s=0.02, close_after=10)
    await fetch(
        envoy.port, ANTHROPIC, message_request(stream=True), cut, leave_after=8 if leave == "client" else None
    )
    ledger = await steno.settled(1)  # Envoy ends our stream after deferred_close_timeout
    assert (ledger["delivered"], ledger["imbalance"]) == (1, 0)
    assert len(await ingest.nodes(2)) == 2
    assert len(provider.served) == 1


@pytest.mark.timeout(300)
async def test_sixty_idle_seconds_in_a_stream_cost_nothing(
    start_envoy: StartEnvoy, steno: Sidecar, ingest: Ingest
) -> None:
    """Envoy pings the sidecar every second meanwhile: gRPC must not call that abuse."""
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    silent = Script(chunks=6, pause_at=3, pause_s=60)
    reply = await fetch(envoy.port, ANTHROPIC, message_request(stream=True), silent, timeout_s=180)
    assert (reply.complete, reply.body) == (True, b"".join(frames(ANTHROPIC, silent)))
    ledger = await steno.settled(1)
    assert (ledger["observed"], ledger["delivered"]) == (1, 1)
    assert len(await ingest.nodes(2)) == 2
    stats = await envoy.stats("cluster.steno.")
    assert stats.get("cluster.steno.http2.keepalive_timeout", 0) == 0
    assert stats["cluster.steno.upstream_cx_connect_fail"] == 0


@pytest.mark.parametrize("victim", ["sidecar", "ingest"])
async def test_killing_a_service_in_mid_stream_changes_no_byte_and_delays_nobody(
    start_envoy: StartEnvoy, provider: Upstream, steno: Sidecar, ingest: Ingest, victim: str
) -> None:
    """Delays are compared with two runs without the sidecar: their spread is the yardstick.

    One of the two goes beside the run that is measured, so that what else the machine
    does at that moment counts in both.
    """
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    without = await start_envoy(None)
    before = await _run(without.port)
    replies, beside, _ = await asyncio.gather(
        _run(envoy.port),
        _run(without.port),
        _after(0.6, steno.kill_everything if victim == "sidecar" else ingest.kill),
    )
    ends = [reply.times_s[-1] for reply in (*before, *beside)]
    spread = max(_TICK_S, max(ends) - min(ends))
    for number, reply in enumerate(replies):
        whole = b"".join(frames(path(number), script(number, delay_s=0.05, chunks=24)))
        assert (reply.complete, reply.body) == (True, whole)
        assert reply.times_s[-1] <= max(ends) + spread
    assert len(provider.served) == 3 * _AT_ONCE


_AT_ONCE = 20
_TICK_S = 0.05  # one frame's pause: what two busy cores may cost a timer; a stall would be seconds


async def _run(port: int) -> list[Reply]:
    return await asyncio.gather(*(ask(port, number, delay_s=0.05, chunks=24) for number in range(_AT_ONCE)))


async def _after(delay_s: float, kill: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(delay_s)
    await kill()
