"""Reconciliation on the real Envoy: what was served and not captured is named, one by one."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import Envoy, Mode, Settings
from tests.e2e.harness.provider import Script, message_request
from tests.e2e.harness.services import Ingest, Sidecar, get_json
from tests.e2e.harness.upstream import Upstream
from tests.patience import becomes

GRACE_S = 10
# Envoy holds the capture stream of a turn that broke off for so long; the grace must be longer.
QUICK = Settings(deferred_close_s=2, keepalive_timeout_s=20.0)
GIVES_UP = Settings(deferred_close_s=2)
"""As shipped, Envoy leaves a sidecar that does not answer for a second."""
PATH = "/v1/messages"


@dataclass
class Reconciled:
    """An Envoy that sends its access log to the sidecar that captures its turns."""

    envoy: Envoy
    sidecar: Sidecar

    async def state(self) -> dict[str, Any]:
        """The supervisor's page."""
        return await get_json(f"{self.sidecar.admin}/state")

    async def sample(self, name: str, **labels: str) -> float:
        """One sample of the supervisor's merged metrics page."""
        async with httpx.AsyncClient(timeout=30) as client:
            page = (await client.get(f"{self.sidecar.admin}/metrics")).text
        (value,) = (
            each.value
            for family in text_string_to_metric_families(page)
            for each in family.samples
            if each.name == name and each.labels == labels
        )
        return float(value)

    async def worker_pid(self) -> int:
        """The worker's process id."""
        return int((await self.state())["workers"][0]["pid"])

    async def until_back(self) -> None:
        """Return once the worker that died has a successor, and Envoy would send it streams again."""
        await self.sidecar.restarted()
        await self.envoy.until_stat("cluster.steno.membership_healthy", 1)

    async def decided(self, served: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """The access log's section, once so many turn requests have verdicts and all are in a ledger."""
        async with asyncio.timeout(timeout_s):
            while True:
                found: dict[str, Any] = (await self.state())["access_log"]
                if sum(found["entries"].values()) >= served and not found["uncounted"]:
                    return found
                await asyncio.sleep(0.2)

    async def ask(self, script: Script, *, request_id: str = "", leave_after: int | None = None) -> Reply:
        """One streamed turn."""
        headers = [("x-request-id", request_id)] if request_id else []
        body = message_request(stream=True)
        return await fetch(self.envoy.port, PATH, body, script, headers=headers, leave_after=leave_after)


@pytest.fixture
async def reconciled(
    request: pytest.FixtureRequest, short_tmp: Path, logs: list[Path], ingest: Ingest, start_envoy: StartEnvoy
) -> AsyncGenerator[Reconciled]:
    """Everything running, with times that a test can wait for. A parameter: other settings of Envoy."""
    settings: Settings = getattr(request, "param", QUICK)
    port, admin_port, als = free_ports(3)
    sidecar = Sidecar(
        short_tmp, port, admin_port, ingest.url,
        f"--access-log-listen=127.0.0.1:{als}", f"--access-log-grace={GRACE_S}s",
    )  # fmt: skip
    logs.append(sidecar.log)
    await sidecar.start()
    envoy = await start_envoy(
        Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", port)], ledger=als, settings=settings
    )
    yield Reconciled(envoy, sidecar)
    await sidecar.stop()


def seen(found: dict[str, Any]) -> dict[str, int]:
    """The verdicts that were given at all."""
    return {verdict: count for verdict, count in found["entries"].items() if count}


def not_seen_lines(sidecar: Sidecar) -> int:
    """How many requests the log names as not captured."""
    text = sidecar.log.read_text()
    return text.count("a turn was served, but not seen") + text.count("only its stream was seen")


async def test_turns_that_were_captured_are_matched_and_only_turns_count(
    reconciled: Reconciled,
) -> None:
    await asyncio.gather(*(reconciled.ask(Script(seed=f"n{number}-")) for number in range(20)))
    await fetch(reconciled.envoy.port, "/v1/models")
    found = await reconciled.decided(20)
    assert seen(found) == {"matched": 20}
    assert found["endings"]["complete"] == 20
    assert found["short_turns"] == 0
    assert {(each["verdict"], each["ending"], each["status"]) for each in found["recent"]} == {
        ("matched", "complete", 200)
    }
    assert len({each["turn_id"] for each in found["recent"]} - {""}) == 20
    assert (
        await reconciled.sample("steno_access_log_entries_total", verdict="matched", ending="complete") == 20
    )
    assert await reconciled.sample("steno_access_log_duration_seconds_count", ending="complete") == 20
    # Each of Envoy's threads sends its own log once a second: this one may come after the turns'.
    await becomes(lambda: reconciled.sample("steno_access_log_other_requests_total"), 1.0)
    assert await reconciled.sample("steno_access_log_faults_total") == 0
    ledger = await reconciled.sidecar.settled(21)
    assert (ledger["observed"], ledger["delivered"], ledger["lost"]) == (21, 20, 0)


async def test_a_client_that_left_is_told_from_a_provider_that_broke_off(reconciled: Reconciled) -> None:
    long = Script(chunks=200, delay_s=0.02)
    await reconciled.ask(Script())
    await reconciled.ask(long, leave_after=3)
    await reconciled.ask(Script(chunks=30, delay_s=0.02, reset_after=5))
    found = await reconciled.decided(3)
    assert seen(found) == {"matched": 3}
    endings = {ending: count for ending, count in found["endings"].items() if count}
    assert endings == {"complete": 1, "client_abort": 1, "upstream_reset": 1}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after_s", [0.4, 2.5])
async def test_when_a_worker_is_killed_in_the_middle_of_fifty_streams_each_request_is_accounted_for(
    reconciled: Reconciled, provider: Upstream, after_s: float
) -> None:
    """Fifty are interrupted, ten come while nobody listens, ten come after: seventy served, none unexplained."""
    script = Script(chunks=20, delay_s=0.2)
    streams = asyncio.gather(*(reconciled.ask(script) for _ in range(50)))
    pid = await reconciled.worker_pid()
    async with asyncio.timeout(30):
        while (await reconciled.sidecar.ledger())["observed"] < 50:
            await asyncio.sleep(0.05)
    await asyncio.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    blind = await asyncio.gather(*(reconciled.ask(Script()) for _ in range(10)))
    replies = [*(await streams), *blind]
    await reconciled.until_back()
    replies += await asyncio.gather(*(reconciled.ask(Script()) for _ in range(10)))
    assert all(reply.complete for reply in replies)
    found = await reconciled.decided(70)
    assert len(provider.served) == 70
    assert seen(found) == {"matched": 60, "not_seen": 10}
    ledger = await reconciled.sidecar.settled(70)
    assert ledger["observed"] == 70
    assert ledger["outcomes"]["not_seen"] == 10
    assert ledger["delivered"] + ledger["outcomes"].get("crash", 0) == 60
    assert ledger["imbalance"] == 0
    assert not_seen_lines(reconciled.sidecar) == 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("reconciled", [GIVES_UP], indirect=True, ids=["as shipped"])
async def test_turns_that_a_frozen_worker_never_saw_are_named(
    reconciled: Reconciled, provider: Upstream
) -> None:
    """Envoy counts none of these losses as a failure of its own."""
    await reconciled.ask(Script())
    await reconciled.sidecar.settled(1)
    pid = await reconciled.worker_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        replies = await asyncio.gather(*(reconciled.ask(Script(delay_s=0.05)) for _ in range(10)))
        await reconciled.envoy.until_stat("cluster.steno.upstream_cx_active", 0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(reply.complete for reply in replies)
    found = await reconciled.decided(11)
    assert len(provider.served) == 11
    named = found["entries"]["not_seen"] + found["entries"]["not_captured"]
    assert named == 10, found
    ledger = await reconciled.sidecar.settled(11)
    assert (ledger["observed"], ledger["delivered"], ledger["imbalance"]) == (11, 1, 0)
    assert ledger["outcomes"]["not_seen"] == 10
    assert not_seen_lines(reconciled.sidecar) == 10


async def test_the_count_outlives_the_process(reconciled: Reconciled) -> None:
    """A stop decides what waits; the next start counts what the last could not."""
    pid = await reconciled.worker_pid()
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    assert (await reconciled.ask(Script())).complete
    await reconciled.until_back()
    async with asyncio.timeout(30):  # Envoy flushes its log each second
        while not ((log := (await reconciled.state())["access_log"])["waiting_entries"] or seen(log)):
            await asyncio.sleep(0.05)
    await reconciled.sidecar.stop()
    await reconciled.sidecar.start()
    ledger = await reconciled.sidecar.settled(1)
    assert ledger["outcomes"] == {"not_seen": 1}
