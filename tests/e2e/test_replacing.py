"""Workers are replaced under traffic: users notice nothing, and not a turn is lost or cut."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from extproc.transport.address import Address, TcpAddress, UnixAddress, worker_address
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import Envoy, Mode
from tests.e2e.harness.provider import Script, answer_text, frames, message_request
from tests.e2e.harness.services import Ingest, Service, Sidecar, get_json

pytestmark = pytest.mark.timeout(300)

PATH = "/v1/messages"
SHORT = Script(chunks=5, delay_s=0.005)
LONG = Script(chunks=20, delay_s=0.1)
EVERY_S = 0.05
LONG_ONES = 5
"""One in so many streams is long: it is open during the whole of a handover."""


@dataclass(slots=True)
class Traffic:
    """Streams that begin one after another until ``stop``, each with texts of its own."""

    port: int
    asked: list[tuple[Script, asyncio.Task[Reply]]] = field(default_factory=list[Any])
    stopping: bool = False

    async def run(self) -> None:
        """Ask until told to stop."""
        while not self.stopping:
            number = len(self.asked)
            kind = SHORT if number % LONG_ONES else LONG
            script = Script(chunks=kind.chunks, delay_s=kind.delay_s, seed=f"n{number}-")
            body = message_request(stream=True, text=f"question {number}")
            self.asked.append((script, asyncio.ensure_future(fetch(self.port, PATH, body, script))))
            await asyncio.sleep(EVERY_S)

    def stop(self) -> None:
        """Ask no more."""
        self.stopping = True

    async def unharmed(self) -> int:
        """Wait for all answers; assert that each came whole and unchanged. Returns how many."""
        replies = await asyncio.gather(*(task for _, task in self.asked))
        for (script, _), reply in zip(self.asked, replies, strict=True):
            assert (reply.complete, reply.body) == (True, b"".join(frames(PATH, script)))
        return len(replies)


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs."""

    steno: Sidecar
    envoy: Envoy
    ingest: Ingest

    async def workers(self) -> list[dict[str, Any]]:
        """The workers, by the state page."""
        found: list[dict[str, Any]] = (await get_json(f"{self.steno.admin}/state"))["workers"]
        return found

    async def replace(self) -> None:
        """SIGHUP, and wait until every worker has a new process and none of the old ones is left."""
        before = [worker["generation"] for worker in await self.workers()]
        os.kill(self.steno.pid, signal.SIGHUP)
        await self.until(
            lambda workers: all(
                worker["generation"] == old + 1 and worker["ready"] and worker["leaving"] is None
                for worker, old in zip(workers, before, strict=True)
            )
        )

    async def until(
        self, condition: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 90.0
    ) -> list[dict[str, Any]]:
        """The workers, once they are so."""
        async with asyncio.timeout(timeout_s):
            while not condition(workers := await self.workers()):
                await asyncio.sleep(0.05)
        return workers

    async def balance(self, observed: int, timeout_s: float = 90.0) -> dict[str, int]:
        """The sum of the workers' ledgers, once so many were observed and none is on its way."""
        total: dict[str, int] = {}
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (total and total["observed"] >= observed and total["open"] == total["spooled"] == 0):
            assert asyncio.get_running_loop().time() < deadline, total
            ledgers = [
                each["state"]["ledger"]
                for worker in await self.workers()
                for each in (worker, worker["leaving"])
                if each is not None and each["state"] is not None
            ]
            total = {
                term: sum(ledger[term] for ledger in ledgers)
                for term in ("observed", "open", "spooled", "delivered", "imbalance")
            }
            await asyncio.sleep(0.2)
        return total

    async def verdicts(self, matched: int) -> dict[str, int]:
        """What became of the requests in Envoy's access log, once so many were matched; without zeros."""
        entries: dict[str, int] = {}
        async with asyncio.timeout(90):
            while entries.get("matched", 0) < matched:
                await asyncio.sleep(0.1)
                entries = (await get_json(f"{self.steno.admin}/state"))["access_log"]["entries"]
        return {verdict: n for verdict, n in entries.items() if n}

    async def failed_open(self) -> dict[str, int]:
        """What Envoy counts where a stream to the sidecar failed; empty when none did."""
        stats = await self.envoy.stats("ext_proc.steno.") | await self.envoy.stats(
            "cluster.steno.upstream_cx_c"
        )
        names = ("streams_failed", "failure_mode_allowed", "upstream_cx_connect_fail")
        return {name: n for name, n in stats.items() if name.endswith(names) and n}

    async def texts(self) -> list[str]:
        """The texts of all turns that ingest has, none of which may be partial or interrupted."""
        url, found, cursor = f"{self.ingest.url}/v1/turns", list[str](), ""
        while True:
            page = await get_json(url, limit="100", **({"cursor": cursor} if cursor else {}))
            turns = await asyncio.gather(*(get_json(f"{url}/{turn['id']}") for turn in page["turns"]))
            for turn in turns:
                assert not turn["canonical"]["partial"]
                assert "interrupted" not in (turn["meta"] or {})
                found.append(turn["canonical"]["text"])
            cursor = page["next"]
            if not cursor:
                return sorted(found)


def free_pair() -> int:
    """A port that was free a moment ago, and the one behind it as well."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port


async def page(url: str) -> str:
    """A page of text."""
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.get(url)).text


def address(kind: str, directory: Path) -> Address:
    """A free address for two workers."""
    return UnixAddress(str(directory / "s")) if kind == "unix" else TcpAddress("127.0.0.1", free_pair())


class Run(Protocol):
    """The type of the ``run`` fixture."""

    def __call__(
        self, listen: Address, workers: int, *more: str
    ) -> contextlib.AbstractAsyncContextManager[Stack]: ...


@pytest.fixture
def run(start_envoy: StartEnvoy, ingest: Ingest, short_tmp: Path, logs: list[Path]) -> Run:
    """A function: a sidecar behind Envoy, for the length of a block.

    Connections age in a second, because a replaced grpcio worker waits for them.
    """

    @contextlib.asynccontextmanager
    async def running(listen: Address, workers: int, *more: str) -> AsyncGenerator[Stack]:
        admin_port, log_port = free_ports(2)
        steno = Sidecar(
            short_tmp, 0, admin_port, ingest.url,
            f"--listen={listen}", f"--workers={workers}", "--connection-age=1s",
            f"--access-log-listen=127.0.0.1:{log_port}", *more,
        )  # fmt: skip
        logs.append(steno.log)
        await steno.start()
        try:
            envoy = await start_envoy(
                Mode.OBSERVE,
                sidecar=[worker_address(listen, index) for index in range(workers)],
                ledger=log_port,
            )
            yield Stack(steno, envoy, ingest)
        finally:
            await steno.stop()

    return running


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("transport", "kind", "workers"),
    [("grpcio", "tcp", 1), ("grpcio", "unix", 2), ("http2", "tcp", 2), ("http2", "unix", 1)],
)
async def test_every_turn_arrives_whole_while_all_workers_are_replaced_again_and_again(
    run: Run, short_tmp: Path, transport: str, kind: str, workers: int
) -> None:
    async with run(address(kind, short_tmp), workers, f"--transport={transport}") as stack:
        traffic = Traffic(stack.envoy.port)
        asking = asyncio.ensure_future(traffic.run())
        for _ in range(3):
            await asyncio.sleep(0.5)
            await stack.replace()
        while len(traffic.asked) < 220:
            await asyncio.sleep(EVERY_S)
        traffic.stop()
        await asking
        count = await traffic.unharmed()
        assert await stack.failed_open() == {}
        balance = await stack.balance(count)
        assert balance == {"observed": count, "open": 0, "spooled": 0, "delivered": count, "imbalance": 0}
        assert await stack.verdicts(count) == {"matched": count}
        assert await stack.texts() == sorted(answer_text(script) for script, _ in traffic.asked)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["old", "new"])
async def test_a_kill_in_the_middle_of_a_handover_harms_no_user_and_leaves_no_turn_unnamed(
    run: Run, short_tmp: Path, victim: str
) -> None:
    """What was open in the process that died is sent as interrupted, counted as lost in a crash, or not seen.

    Interrupted ones are looked for every minute.
    """
    async with run(address("tcp", short_tmp), 1) as stack:
        traffic = Traffic(stack.envoy.port)
        asking = asyncio.ensure_future(traffic.run())
        await asyncio.sleep(2)
        os.kill(stack.steno.pid, signal.SIGHUP)
        (worker,) = await stack.until(lambda workers: workers[0]["leaving"] is not None)
        os.kill(worker["pid"] if victim == "new" else worker["leaving"]["pid"], signal.SIGKILL)
        await stack.until(lambda workers: workers[0]["leaving"] is None and workers[0]["ready"])
        await asyncio.sleep(1)
        traffic.stop()
        await asking
        count = await traffic.unharmed()
        (worker,) = await stack.workers()
        assert worker["generation"] == (3 if victim == "new" else 2)
        balance = await stack.balance(count, timeout_s=180)
        outcomes = (await stack.steno.ledger())["outcomes"]
        assert set(outcomes) <= {"crash", "not_seen"}
        # A commit whose line to the supervisor the kill cut off counts twice; never is one unnamed.
        assert balance["observed"] - count in range(3)
        assert balance["observed"] == balance["delivered"] + sum(outcomes.values())
        assert balance["imbalance"] == 0


async def test_settings_that_cannot_be_used_leave_everything_as_it_is(run: Run, short_tmp: Path) -> None:
    """SIGHUP reads the file again: what is wrong in it, or needs a restart, is logged and counted."""
    file = short_tmp / "steno.yaml"
    file.write_text("extproc: {drain: 5s}\n")
    async with run(address("tcp", short_tmp), 1, f"--config={file}") as stack:
        before = await stack.workers()
        for text, refusal in (
            ("extproc: {interrupted_after: never}\n", "interrupted_after: expected seconds"),
            ("extproc: {transport: http2}\n", "only a restart of the sidecar can change extproc.transport"),
        ):
            file.write_text(text)
            os.kill(stack.steno.pid, signal.SIGHUP)
            async with asyncio.timeout(60):
                while refusal not in stack.steno.log.read_text():
                    await asyncio.sleep(0.05)
        metrics = await page(f"{stack.steno.admin}/metrics")
        assert 'steno_replacements_total{result="refused"} 2' in metrics
        assert [(each["pid"], each["generation"]) for each in await stack.workers()] == [
            (each["pid"], each["generation"]) for each in before
        ]


async def test_where_a_new_process_does_not_start_the_old_one_goes_on(run: Run, short_tmp: Path) -> None:
    """A certificate that is no certificate. Also one that dies later starts with what it had before."""
    file, broken = short_tmp / "steno.yaml", short_tmp / "broken.pem"
    file.write_text("")
    broken.write_text("no certificate")
    flags = (f"--config={file}", "--transport=http2")
    async with run(address("unix", short_tmp), 2, *flags) as stack:
        before = [worker["pid"] for worker in await stack.workers()]
        file.write_text(f"extproc: {{tls_cert_file: {broken}, tls_key_file: {broken}}}\n")
        os.kill(stack.steno.pid, signal.SIGHUP)
        async with asyncio.timeout(60):
            while 'steno_replacements_total{result="failed"} 1' not in await page(
                f"{stack.steno.admin}/metrics"
            ):
                await asyncio.sleep(0.1)
        assert "worker is not replaced and goes on as it is" in stack.steno.log.read_text()
        assert [worker["pid"] for worker in await stack.workers()] == before
        os.kill(before[0], signal.SIGKILL)
        await stack.until(lambda workers: workers[0]["restarts"] == 1 and workers[0]["ready"])
        reply = await fetch(stack.envoy.port, PATH, message_request(stream=True), SHORT)
        assert (reply.complete, (await stack.balance(1))["delivered"]) == (True, 1)


async def test_a_second_sidecar_on_the_same_address_is_told_how_to_restart_the_first(
    run: Run, short_tmp: Path, ingest: Ingest
) -> None:
    listen = address("tcp", short_tmp)
    async with run(listen, 1) as stack:
        (admin_port,) = free_ports(1)
        second = Sidecar(short_tmp, 0, admin_port, ingest.url, f"--listen={listen}")
        await Service.start(second)
        assert await second.ended() == 1
        assert f"kill -HUP {stack.steno.pid}" in second.log.read_text()
