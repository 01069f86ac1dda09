"""Steno's own two services, as a user runs them: ``steno ingest`` and ``steno extproc``."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

_READY_S = 60.0


class Service:
    """One ``steno`` process on loopback; its log is shown when a test fails."""

    def __init__(self, name: str, log: Path, *arguments: str) -> None:
        self.log = log
        self._arguments = (name, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; the caller waits until it serves."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "steno", *self._arguments, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    async def stop(self) -> int:
        """SIGTERM, then wait; returns the exit code (0 again when it was gone already)."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), 60)

    async def ended(self) -> int:
        """Wait until it ends by itself; returns the exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), _READY_S)

    async def kill(self) -> None:
        """SIGKILL, then wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def get_json(url: str, **params: str) -> dict[str, Any]:
    """A JSON page."""
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(url, params=params)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


async def until_ready(url: str, service: Service) -> None:
    """Wait until ``url`` answers with success."""
    async with httpx.AsyncClient(timeout=5) as client:
        async with asyncio.timeout(_READY_S):
            while True:
                try:
                    if (await client.get(url)).is_success:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
    raise AssertionError(service.log.read_text())


def workers_of(supervisor: int) -> list[int]:
    """The ids of a supervisor's worker processes."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(child) for child in children]


class Ingest(Service):
    """A running ``steno ingest`` with its database in ``directory``."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            "ingest", directory / "ingest.log", f"--listen=127.0.0.1:{port}",
            f"--database-url=sqlite:///{directory}/ingest.db",
        )  # fmt: skip

    async def start(self) -> None:
        """Start; returns once it answers."""
        await super().start()
        await until_ready(f"{self.url}/ping", self)

    async def nodes(self, at_least: int, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """The stored nodes, once there are so many."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = await get_json(f"{self.url}/v1/ingest/nodes")
                if found["count"] >= at_least:
                    nodes: list[dict[str, Any]] = found["nodes"]
                    return nodes
                await asyncio.sleep(0.1)


class Sidecar(Service):
    """A running ``steno extproc`` with its spool in ``directory``."""

    def __init__(self, directory: Path, port: int, admin_port: int, ingest_url: str, *more: str) -> None:
        self.port = port
        self.admin = f"http://127.0.0.1:{admin_port}"
        super().__init__(
            "extproc", directory / "extproc.log", f"--listen=127.0.0.1:{port}",
            f"--admin-listen=127.0.0.1:{admin_port}", f"--ingest-url={ingest_url}",
            f"--data-dir={directory}/spool", "--drain=10s", *more,
        )  # fmt: skip

    async def start(self) -> None:
        """Start; returns once it listens."""
        await super().start()
        await until_ready(f"{self.admin}/readyz", self)

    async def kill_everything(self) -> None:
        """SIGKILL to the supervisor and to every worker at once: those are what Envoy talks to."""
        workers = workers_of(self.pid)
        assert workers
        for pid in (self.pid, *workers):
            os.kill(pid, signal.SIGKILL)
        await self.ended()

    async def ledger(self) -> dict[str, Any]:
        """The first worker's balance, once it answers."""
        async with asyncio.timeout(_READY_S):
            while (state := (await get_json(f"{self.admin}/state"))["workers"][0]["state"]) is None:
                await asyncio.sleep(0.1)
        found: dict[str, Any] = state["ledger"]
        return found

    async def restarted(self) -> None:
        """Return once the only worker, which has died once, has a successor that is ready."""
        async with asyncio.timeout(_READY_S):
            while True:
                (worker,) = (await get_json(f"{self.admin}/state"))["workers"]
                if worker["restarts"] == 1 and worker["ready"]:
                    return
                await asyncio.sleep(0.1)

    async def settled(self, observed: int, timeout_s: float = 60.0) -> dict[str, Any]:
        """The balance, once so many exchanges were observed and none is open or on its way."""
        async with asyncio.timeout(timeout_s):
            while True:
                ledger = await self.ledger()
                if ledger["observed"] >= observed and ledger["open"] == ledger["spooled"] == 0:
                    return ledger
                await asyncio.sleep(0.1)
