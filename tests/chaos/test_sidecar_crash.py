"""The sidecar is killed or stopped in the middle of its work; users and the balance must not notice (T1, T9).

``STENO_T1_KILLS`` sets the number of kills (``docs/reliability.md``).
"""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import Mode
from tests.e2e.harness.provider import Script, answer_text, frames, message_request
from tests.e2e.harness.services import Ingest, Sidecar, get_json
from tests.e2e.harness.upstream import Upstream

_log = logging.getLogger(__name__)

KILLS = int(os.environ.get("STENO_T1_KILLS", "10"))
PATH = "/v1/messages"
TENANT = "default"

ENDED, LONG, FRESH = 10, 40, 10
"""Of each round: turns that end more than a second before the kill; of the fifty that are open at the
kill, those long enough to be written down, and those too young."""

KILL_AT_S, FRESH_AT_S, LONG_LASTS_S = 2.5, 2.0, 3.7


@unique
class Victim(StrEnum):
    """What dies by SIGKILL."""

    EVERYTHING = "everything"
    WORKER = "worker"
    SUPERVISOR = "supervisor"
    """Alone: its worker stops in good order by itself."""


@dataclass
class Expected:
    """What ingest must have in the end: the text of each question to its answer."""

    whole: dict[str, str] = field(default_factory=dict[str, str])
    interrupted: dict[str, str] = field(default_factory=dict[str, str])
    rest: set[str] = field(default_factory=set[str])

    def round(self, victim: Victim, number: int) -> None:
        for question, script in _questions(number, "ended", ENDED):
            self.whole[question] = answer_text(script)
        for question, script in _questions(number, "long", LONG):
            part = self.whole if victim is Victim.SUPERVISOR else self.interrupted
            part[question] = answer_text(script)
        for question, script in _questions(number, "fresh", FRESH):
            if victim is Victim.SUPERVISOR:
                self.whole[question] = answer_text(script)
            else:
                self.rest.add(question)


def _questions(number: int, kind: str, count: int) -> list[tuple[str, Script]]:
    chunks = {"ended": 4, "long": 64, "fresh": 30}[kind]
    delay_s = {"ended": 0.01, "long": LONG_LASTS_S / 64, "fresh": 0.05}[kind]
    return [
        (f"{kind} {number}/{each}", Script(chunks=chunks, delay_s=delay_s, seed=f"{kind}{number}.{each}-"))
        for each in range(count)
    ]


async def _ask(port: int, question: str, script: Script) -> tuple[Script, Reply]:
    return script, await fetch(port, PATH, message_request(stream=True, text=question), script)


async def _ask_all(port: int, number: int, kind: str, count: int, at_s: float) -> list[tuple[Script, Reply]]:
    await asyncio.sleep(at_s)
    return await asyncio.gather(*(_ask(port, *each) for each in _questions(number, kind, count)))


@pytest.mark.timeout(60 + 30 * KILLS)
async def test_kills_in_mid_stream_cost_users_nothing_and_the_ledger_knows_the_rest(
    start_envoy: StartEnvoy, provider: Upstream, ingest: Ingest, short_tmp: Path, logs: list[Path]
) -> None:
    """T1: every turn whose end was read over a second before the kill arrives; what was
    written down arrives as interrupted; the rest is lost(crash), by number.
    """
    steno = await _sidecar(short_tmp, ingest.url, logs)
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    expected, probes = Expected(), 0
    try:
        for number in range(KILLS):
            victim = list(Victim)[number % len(Victim)]
            expected.round(victim, number)
            probes += await _until_seen(envoy.port, steno)
            *replies, steno = await asyncio.gather(
                _ask_all(envoy.port, number, "ended", ENDED, 0),
                _ask_all(envoy.port, number, "long", LONG, 0),
                _ask_all(envoy.port, number, "fresh", FRESH, FRESH_AT_S),
                _kill(victim, steno),
            )
            _assert_unharmed([each for group in replies for each in group])
        turns = await _exported(ingest, probes + len(expected.whole) + len(expected.interrupted))
        ledger = await _settled(steno)
    finally:
        await steno.stop()
    _assert_arrived(turns, expected)
    sure = probes + len(expected.whole) + len(expected.interrupted)
    lost = ledger["outcomes"].get("crash", 0)
    _log.info("T1: %d kills, %s", KILLS, ledger)
    assert ledger["outcomes"] == ({"crash": lost} if lost else {})
    assert lost == len(expected.rest)
    assert (ledger["delivered"], ledger["observed"], ledger["imbalance"]) == (sure, sure + lost, 0)
    assert len(turns) == sure


def _assert_unharmed(replies: Sequence[tuple[Script, Reply]]) -> None:
    assert len(replies) == ENDED + LONG + FRESH
    for script, reply in replies:
        assert (reply.status, reply.complete) == (200, True)
        assert reply.body == b"".join(frames(PATH, script))


def _assert_arrived(turns: Sequence[dict[str, Any]], expected: Expected) -> None:
    found = {turn["request"]["messages"][0]["content"]: turn for turn in turns}
    for question, text in expected.whole.items():
        assert _text(found[question]) == text
        assert "interrupted" not in found[question]["meta"]
    for question, text in expected.interrupted.items():
        assert found[question]["meta"]["interrupted"]
        assert found[question]["meta"]["partial"]
        assert _text(found[question])
        assert text.startswith(_text(found[question]))
    assert not expected.rest & set(found)


def _text(turn: dict[str, Any]) -> str:
    return "".join(block["text"] for block in turn["response"]["message"]["content"])


# Killing


async def _sidecar(directory: Path, ingest_url: str, logs: list[Path], *more: str) -> Sidecar:
    port, admin_port = free_ports(2)
    service = Sidecar(directory, port, admin_port, ingest_url, *more)
    logs.append(service.log)
    await service.start()
    return service


async def _kill(victim: Victim, steno: Sidecar) -> Sidecar:
    """Kill at the time, and wait until there is a sidecar again."""
    await asyncio.sleep(KILL_AT_S)
    (worker,) = psutil.Process(steno.pid).children()
    match victim:
        case Victim.EVERYTHING:
            os.killpg(steno.pid, signal.SIGKILL)
            await steno.ended()
        case Victim.WORKER:
            worker.kill()
        case Victim.SUPERVISOR:
            await steno.kill()
    await _until(lambda: _is_gone(worker))
    if victim is not Victim.WORKER:
        await steno.start()
    await _until(lambda: _answers(steno))
    return steno


async def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _answers(steno: Sidecar) -> bool:
    return await _ledger(steno) is not None


async def _until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.05)


# Looking


async def _ledger(steno: Sidecar) -> dict[str, Any] | None:
    """The balance; None while no worker tells it."""
    try:
        (worker,) = (await get_json(f"{steno.admin}/state"))["workers"]
    except httpx.HTTPError:
        return None
    found: dict[str, Any] | None = worker["state"] and worker["state"]["ledger"]
    return found


async def _settled(steno: Sidecar) -> dict[str, Any]:
    """The balance, once nothing is open or on its way."""

    async def nothing_moves() -> bool:
        ledger = await _ledger(steno)
        return ledger is not None and ledger["open"] == ledger["spooled"] == 0

    await _until(nothing_moves)
    ledger = await _ledger(steno)
    assert ledger is not None
    return ledger


async def _until_seen(port: int, steno: Sidecar) -> int:
    """Make small exchanges until Envoy shows one to the sidecar; returns how many it showed."""

    async def observed() -> int:
        ledger = await _ledger(steno)
        return int(ledger["observed"]) if ledger is not None else 0

    before = (await _settled(steno))["observed"]
    until = time.monotonic() + 30
    while time.monotonic() < until:
        await fetch(port, PATH, message_request(stream=False, text="probe"), Script(chunks=1))
        await asyncio.sleep(0.3)
        if (after := await observed()) > before:
            return int(after - before)
    raise AssertionError("Envoy does not show exchanges to the sidecar again")


async def _exported(ingest: Ingest, at_least: int) -> list[dict[str, Any]]:
    """All turns that ingest has, once they are so many (or after a while)."""
    turns: list[dict[str, Any]] = []
    until = time.monotonic() + 30
    async with httpx.AsyncClient(timeout=30) as client:
        while len(turns) < at_least and time.monotonic() < until:
            await asyncio.sleep(0.3)
            answer = await client.get(f"{ingest.url}/v1/export", params={"tenant": TENANT})
            answer.raise_for_status()
            turns = [json.loads(line) for line in answer.text.splitlines()]
    return turns


# A stop (T9)

PENDING = 500
DRAIN_S = 10.0


@pytest.mark.timeout(120)
async def test_a_stop_with_ingest_down_leaves_every_turn_on_disk_and_ends_in_time(
    start_envoy: StartEnvoy, provider: Upstream, short_tmp: Path, logs: list[Path]
) -> None:
    """T9: 500 turns pending, SIGTERM, gone within the grace period; the next start delivers them all."""
    (ingest_port,) = free_ports(1)
    steno = await _sidecar(short_tmp, f"http://127.0.0.1:{ingest_port}", logs)
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    probes = 0
    try:
        while probes < PENDING:
            await asyncio.gather(*(_ask(envoy.port, f"q{probes + n}", Script(chunks=2)) for n in range(50)))
            probes += 50
        await _until(lambda: _holds(steno, spooled=PENDING))
        began = time.monotonic()
        assert await steno.stop() == 0
        took_s = time.monotonic() - began
        _log.info("T9: stopped in %.1f s with %d turns pending", took_s, PENDING)
        assert took_s <= DRAIN_S
        ingest = Ingest(short_tmp, ingest_port)
        logs.append(ingest.log)
        await ingest.start()
        try:
            await steno.start()
            turns = await _exported(ingest, PENDING)
            ledger = await _settled(steno)
        finally:
            await ingest.stop()
    finally:
        await steno.stop()
    assert len({turn["meta"]["request_id"] for turn in turns}) == len(turns) == PENDING
    assert (ledger["observed"], ledger["delivered"], ledger["imbalance"]) == (PENDING, PENDING, 0)


async def _holds(steno: Sidecar, *, spooled: int) -> bool:
    ledger = await _ledger(steno)
    return ledger is not None and (ledger["open"], ledger["spooled"]) == (0, spooled)
