"""T20: floods at the gRPC port cost their own connection, and nobody else anything.

The attacks of ``tests.chaos.floods`` at once, on one server, for ``STENO_T20_SECONDS``
(10), beside a user who does no harm. Attackers, server and user have a process each, and so
has a server that nobody floods: how long its user waits is the machine's part. The
http2 transport ends every attacker's connection with the reason, and counts it. gRPC's own
server ends next to none; of it is asked what it can do.
"""

import asyncio
import contextlib
import json
import logging
import os
import statistics
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple

import grpc
import psutil
import pytest

from extproc.transport.address import TcpAddress
from extproc.transport.http2.limits import Limits
from extproc.transport.reasons import Reason
from tests.chaos.floods import ATTACKS
from tests.paths import PROJECT
from tests.unit.extproc.transport.peer import Peer, exchange, status

_log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("STENO_T20_SECONDS", "10"))
# gRPC bounds no backlog: 5 to 42 MiB/s were seen, by how fast the attackers were.
GRPCIO_GROWTH_BYTES_PER_S = 100 << 20
LONGEST_S = 3.0
"""So much longer than elsewhere at most."""
RECOVERY_S = 120.0
IDLE_CPU_S = 0.5
MIB = 1 << 20


class Python:
    """A program of ours in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen = psutil.Process(process.pid)

    async def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def report(self) -> Any:
        """Its last line, a JSON document; its input has ended by then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = json.loads(await self.line())
        await self._process.wait()
        return found


@contextlib.asynccontextmanager
async def running(*arguments: str, quiet: bool = False) -> AsyncGenerator[Python]:
    """``python -m`` for the length of a block. ``quiet``: gRPC's core writes a line for each bad header."""
    stderr = asyncio.subprocess.DEVNULL if quiet else None
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=PROJECT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
    )  # fmt: skip
    try:
        yield Python(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def one_exchange(peer: Peer) -> float:
    """A whole exchange of somebody who does no harm; how long it took."""
    began = asyncio.get_running_loop().time()
    call = peer.call()
    for message in exchange(observe=True):
        await call.write(message)
    assert await status(call) is grpc.StatusCode.OK
    return asyncio.get_running_loop().time() - began


class Beside(NamedTuple):
    """What was seen while the floods came. ``elsewhere_s``: exchanges with a server that nobody floods."""

    took_s: list[float]
    elsewhere_s: list[float]
    rss_bytes: int


async def user(
    peer: Peer | None, elsewhere: Peer, server: psutil.Process, flooding: "asyncio.Future[Any]"
) -> Beside:
    """Exchange after exchange, if there is a user, until the floods are over."""
    seen = Beside([], [], 0)
    while not flooding.done():
        if peer is not None:
            seen.took_s.append(await one_exchange(peer))
            seen.elsewhere_s.append(await one_exchange(elsewhere))
        seen = seen._replace(rss_bytes=max(seen.rss_bytes, server.memory_info().rss))
        await asyncio.sleep(0.02)
    return seen


class Flooded(NamedTuple):
    """What became of one server under a set of attacks. ``attacks``: as the attackers saw it."""

    attacks: dict[str, Any]
    beside: Beside
    growth_bytes: int
    idle_cpu_s: float
    counted: Any


async def flooded(transport: str, attacks: Sequence[str], *, user_beside: bool) -> Flooded:
    """Flood a server of its own, and look at it while that lasts and afterwards."""
    async with (
        running("tests.chaos.flooded", transport, quiet=True) as server,
        running("tests.chaos.flooded", transport, quiet=True) as another,
    ):
        port, other_port = int(await server.line()), int(await another.line())
        async with (
            Peer(TcpAddress("127.0.0.1", port)) as peer,
            Peer(TcpAddress("127.0.0.1", other_port)) as elsewhere,
        ):
            alone_s = [await one_exchange(peer) for _ in range(50)]
            before_bytes, before_s = server.seen.memory_info().rss, cpu_s(server)
            async with running("tests.chaos.floods", str(port), str(SECONDS), *attacks) as attackers:
                flooding = asyncio.ensure_future(attackers.report())
                beside = await user(peer if user_beside else None, elsewhere, server.seen, flooding)
                told = await flooding
            spent_s = cpu_s(server) - before_s
        recovered_s, idle_cpu_s = await recovery(server, port)
        counted = await server.report()
    took_s = beside.took_s or [0.0]
    _log.info(
        "T20 %s, %.0f s of %s: %d exchanges beside, p50 %.1f ms, longest %.0f ms (elsewhere %.0f ms, alone p50 %.1f ms); RSS %+.0f MiB"
        " at most; %.1f s of CPU; serves %.1f s after, %.2f s of CPU in an idle second",
        transport, SECONDS, ", ".join(attacks), len(beside.took_s), 1e3 * statistics.median(took_s),
        1e3 * max(took_s), 1e3 * max(beside.elsewhere_s, default=0.0), 1e3 * statistics.median(alone_s), (beside.rss_bytes - before_bytes) / MIB, spent_s,
        recovered_s, idle_cpu_s,
    )  # fmt: skip
    for name, each in told.items():
        _log.info("T20 %s, %s: %s", transport, name, each)
    return Flooded(told, beside, beside.rss_bytes - before_bytes, idle_cpu_s, counted)


async def recovery(server: Python, port: int) -> tuple[float, float]:
    """How long it takes until somebody new is served, and the CPU of a second once nothing lingers: of the
    first that is idle, or else the last looked at.
    """
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(RECOVERY_S):
        while True:
            async with Peer(TcpAddress("127.0.0.1", port)) as peer:
                with contextlib.suppress(
                    TimeoutError, grpc.RpcError, AssertionError, asyncio.InvalidStateError
                ):
                    await one_exchange(peer)
                    break
    took_s = asyncio.get_running_loop().time() - began
    idle_s = IDLE_CPU_S
    for _ in range(20):
        before_s = cpu_s(server)
        await asyncio.sleep(1.0)
        if (idle_s := cpu_s(server) - before_s) < IDLE_CPU_S:
            break
    return took_s, idle_s


def cpu_s(server: Python) -> float:
    """CPU time that a process has used."""
    times = server.seen.cpu_times()
    return times.user + times.system


@pytest.mark.timeout(300 + 2 * SECONDS)
async def test_floods_at_http2_end_their_own_connections_and_are_counted() -> None:
    """All at once. Memory stays in its budget, the user is served, nothing stays behind, each reason is told."""
    seen = await flooded("http2", list(ATTACKS), user_beside=True)
    assert max(seen.beside.took_s) < LONGEST_S + max(seen.beside.elsewhere_s)
    assert seen.growth_bytes < Limits().process_bytes + (64 << 20)
    assert seen.idle_cpu_s < IDLE_CPU_S
    assert seen.counted["streams_open"] == 0
    check_reasons(seen.attacks, seen.counted["metrics"])


# gRPC's own server takes each stream of a rapid reset into Python, works off what a
# CONTINUATION flood sent long after it, nobody else being served meanwhile, and lets frames
# of an unknown kind pile up in memory for as long as they come (36 MB/s here).
BEYOND_GRPCIO = ("rapid reset", "continuation", "unknown frames")


@pytest.mark.timeout(300 + 2 * SECONDS)
async def test_most_floods_at_grpcio_do_not_hold_up_a_user() -> None:
    """gRPC answers them without an end of the connection; its memory grows, but slowly."""
    seen = await flooded("grpcio", [name for name in ATTACKS if name not in BEYOND_GRPCIO], user_beside=True)
    assert max(seen.beside.took_s) < LONGEST_S + max(seen.beside.elsewhere_s)
    assert seen.growth_bytes < GRPCIO_GROWTH_BYTES_PER_S * SECONDS
    assert seen.counted["streams_open"] == 0


@pytest.mark.timeout(300 + 2 * SECONDS + RECOVERY_S)
async def test_what_grpcio_cannot_fend_off_is_over_when_the_attacker_leaves() -> None:
    """Where gRPC does not allow more: users wait while it lasts, and are served again after it."""
    seen = await flooded("grpcio", BEYOND_GRPCIO, user_beside=False)
    assert seen.counted["streams_open"] == 0


def check_reasons(attacks: dict[str, Any], metrics: str) -> None:
    """Every attack was told its reason, and is counted under it."""
    told = {
        reason: attack["last_words"].get(reason.value, 0)
        for reason, attack in zip((each.reason for each in ATTACKS.values()), attacks.values(), strict=True)
    }
    assert all(told.values()), attacks
    counted = {
        reason: float(line.rpartition(" ")[2])
        for reason in Reason
        for line in metrics.splitlines()
        if line.startswith(f'steno_extproc_connections_broken_total{{reason="{reason.value}"}}')
    }
    for reason, connections in told.items():
        assert counted[reason] >= connections
