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
PROBE = "probe"
TENANT = "default"

ENDED, LONG, FRESH = 10, 40, 10
"""Of each round: turns that are on disk more than a second before the kill; of the fifty that are open at
the kill, those that were written down, and those too young."""

LONG_LASTS_S = 4.5
ENDED_BEFORE_S = 1.2
COUNTED_AFTER_S = 0.5
"""A sidecar counts on disk what it sees begin within half of this."""
NEAR_S = 0.5
"""An end that a client saw so long after the kill may have come before it."""


@unique
class Victim(StrEnum):
    """What dies by SIGKILL."""

    EVERYTHING = "everything"
    WORKER = "worker"
    SUPERVISOR = "supervisor"
    """Alone: its worker stops in good order by itself."""


@dataclass(frozen=True)
class Asked:
    """A question, what it was answered with, and when its client had the end."""

    question: str
    script: Script
    reply: Reply
    ended_s: float


@dataclass
class Expected:
    """What ingest must have in the end: the text of each question to its answer."""

    whole: dict[str, str] = field(default_factory=dict[str, str])
    written_down: dict[str, str] = field(default_factory=dict[str, str])
    """These at least as interrupted,"""
    rest: dict[str, str] = field(default_factory=dict[str, str])
    """and these as interrupted or not at all."""
    may_be_whole: set[str] = field(default_factory=set[str])
    """Of both: a busy machine was so late with the kill that they had ended."""

    def round(self, victim: Victim, killed_s: float, asked: Sequence[Asked]) -> None:
        """Add what became of one round."""
        for each in asked:
            kind = each.question.partition(" ")[0]
            part = {"ended": self.whole, "long": self.written_down, "fresh": self.rest}[kind]
            part = self.whole if victim is Victim.SUPERVISOR else part
            part[each.question] = answer_text(each.script)
            if part is not self.whole and each.ended_s < killed_s + NEAR_S:
                self.may_be_whole.add(each.question)


def _questions(number: int, kind: str, count: int) -> list[tuple[str, Script]]:
    chunks = {"ended": 4, "long": 64, "fresh": 30}[kind]
    delay_s = {"ended": 0.01, "long": LONG_LASTS_S / 64, "fresh": 0.05}[kind]
    return [
        (f"{kind} {number}/{each}", Script(chunks=chunks, delay_s=delay_s, seed=f"{kind}{number}.{each}-"))
        for each in range(count)
    ]


async def _ask(port: int, question: str, script: Script) -> Asked:
    reply = await fetch(port, PATH, message_request(stream=True, text=question), script, timeout_s=120)
    return Asked(question, script, reply, time.monotonic())


def _ask_all(port: int, number: int, kind: str, count: int) -> asyncio.Future[list[Asked]]:
    return asyncio.gather(*(_ask(port, *each) for each in _questions(number, kind, count)))


@pytest.mark.timeout(120 + 60 * KILLS)
async def test_kills_in_mid_stream_cost_users_nothing_and_the_ledger_knows_the_rest(
    start_envoy: StartEnvoy, provider: Upstream, ingest: Ingest, short_tmp: Path, logs: list[Path]
) -> None:
    """T1: every turn whose end was read over a second before the kill arrives; what was
    written down arrives as interrupted; the rest is lost(crash), by number.
    """
    steno = await _sidecar(short_tmp, ingest.url, logs)
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", steno.port)])
    expected = Expected()
    try:
        for number in range(KILLS):
            victim = list(Victim)[number % len(Victim)]
            await _until_seen(envoy.port, steno)
            killed_s, asked = await _round(envoy.port, number, victim, steno)
            _assert_unharmed(asked)
            expected.round(victim, killed_s, asked)
        ledger = await _settled(steno)
        turns = await _exported(ingest, ledger["delivered"])
    finally:
        await steno.stop()
    lost = ledger["outcomes"].get("crash", 0)
    _log.info("T1: %d kills, %s", KILLS, ledger)
    assert lost == _assert_arrived(turns, expected)
    assert lost > 0
    assert ledger["outcomes"] == {"crash": lost}
    assert (ledger["delivered"], ledger["observed"], ledger["imbalance"]) == (
        len(turns),
        len(turns) + lost,
        0,
    )


async def _round(port: int, number: int, victim: Victim, steno: Sidecar) -> tuple[float, list[Asked]]:
    """Sixty exchanges and a kill among them, once each is where the kill must find it: when it came, and
    what the clients saw.
    """
    before = (await _settled(steno))["observed"]
    written = await _written(steno)
    long = _ask_all(port, number, "long", LONG)
    ended = await _ask_all(port, number, "ended", ENDED)
    await _until(lambda: _has(steno, observed=before + LONG + ENDED, open_at_most=LONG))
    await asyncio.sleep(ENDED_BEFORE_S)

    async def all_written_down() -> bool:
        return await _written(steno) >= written + LONG or long.done()

    await _until(all_written_down)
    fresh = _ask_all(port, number, "fresh", FRESH)
    await _until(lambda: _has(steno, observed=before + LONG + ENDED + FRESH))
    await asyncio.sleep(COUNTED_AFTER_S)
    killed_s = time.monotonic()
    await _kill(victim, steno)
    return killed_s, [*ended, *await long, *await fresh]


def _assert_unharmed(asked: Sequence[Asked]) -> None:
    assert len(asked) == ENDED + LONG + FRESH
    for each in asked:
        assert (each.reply.status, each.reply.complete) == (200, True)
        assert each.reply.body == b"".join(frames(PATH, each.script))


def _assert_arrived(turns: Sequence[dict[str, Any]], expected: Expected) -> int:
    """Each turn once, whole or interrupted as it must be; returns how many are missing that may be."""
    found = {turn["request"]["messages"][0]["content"]: turn for turn in turns}
    probes = sum(turn["request"]["messages"][0]["content"] == PROBE for turn in turns)
    assert len(turns) - probes == len(found) - 1
    assert (
        found.keys() - {PROBE} <= expected.whole.keys() | expected.written_down.keys() | expected.rest.keys()
    )
    for question, text in expected.whole.items():
        assert _text(found[question]) == text
        assert "interrupted" not in found[question]["meta"]
    for question, text in (expected.written_down | expected.rest).items():
        if question not in found and question in expected.rest:
            continue
        if "interrupted" not in found[question]["meta"]:
            assert question in expected.may_be_whole
            assert _text(found[question]) == text
            continue
        assert found[question]["meta"]["interrupted"]
        assert found[question]["meta"]["partial"]
        assert _text(found[question])
        assert text.startswith(_text(found[question]))
    assert any("interrupted" in turn["meta"] for turn in turns)
    return len(expected.rest.keys() - found.keys())


def _text(turn: dict[str, Any]) -> str:
    return "".join(block["text"] for block in turn["response"]["message"]["content"])


# Killing


async def _sidecar(directory: Path, ingest_url: str, logs: list[Path], *more: str) -> Sidecar:
    port, admin_port = free_ports(2)
    service = Sidecar(directory, port, admin_port, ingest_url, *more)
    logs.append(service.log)
    await service.start()
    return service


async def _kill(victim: Victim, steno: Sidecar) -> None:
    """Kill, and wait until there is a sidecar again."""
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


async def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _answers(steno: Sidecar) -> bool:
    return await _ledger(steno) is not None


async def _until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.05)


# Looking


async def _state(steno: Sidecar) -> dict[str, Any] | None:
    """What the worker says of itself; None while there is none."""
    try:
        (worker,) = (await get_json(f"{steno.admin}/state"))["workers"]
    except httpx.HTTPError:
        return None
    found: dict[str, Any] | None = worker["state"]
    return found


async def _ledger(steno: Sidecar) -> dict[str, Any] | None:
    """The balance; None while no worker tells it."""
    state = await _state(steno)
    return state and state["ledger"]


async def _written(steno: Sidecar) -> int:
    """How many snapshots of open exchanges this worker has written down."""
    state = await _state(steno)
    assert state is not None
    return int(state["checkpoints"]["written"])


async def _has(steno: Sidecar, *, observed: int, open_at_most: int = ENDED + LONG + FRESH) -> bool:
    ledger = await _ledger(steno)
    return ledger is not None and ledger["observed"] >= observed and ledger["open"] <= open_at_most


async def _settled(steno: Sidecar) -> dict[str, Any]:
    """The balance, once nothing is open or on its way."""

    async def nothing_moves() -> bool:
        ledger = await _ledger(steno)
        return ledger is not None and ledger["open"] == ledger["spooled"] == 0

    await _until(nothing_moves)
    ledger = await _ledger(steno)
    assert ledger is not None
    return ledger


async def _until_seen(port: int, steno: Sidecar) -> None:
    """Make small exchanges until Envoy shows one to the sidecar."""

    async def observed() -> int:
        ledger = await _ledger(steno)
        return int(ledger["observed"]) if ledger is not None else 0

    before = (await _settled(steno))["observed"]
    until = time.monotonic() + 60
    while time.monotonic() < until:
        await fetch(port, PATH, message_request(stream=False, text=PROBE), Script(chunks=1))
        await asyncio.sleep(0.3)
        if await observed() > before:
            return
    raise AssertionError("Envoy does not show exchanges to the sidecar again")


async def _exported(ingest: Ingest, at_least: int) -> list[dict[str, Any]]:
    """All turns that ingest has, once they are so many (or after a while)."""
    turns: list[dict[str, Any]] = []
    until = time.monotonic() + 60
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
