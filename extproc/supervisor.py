"""One process that starts the workers, restarts what dies, and speaks for all of them.

A worker gets its settings as one JSON line on stdin and answers with one JSON line on
stdout once it listens. Its stdin stays open: when it closes, the supervisor is gone and
the worker stops. Logs go to stderr, shared. Where Envoy's access log is read, more lines follow both
ways (``extproc.reconcile``).
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec

from extproc.admin import AdminPages, AdminServer
from extproc.merge import merged_metrics
from extproc.reconcile.reconciler import Reconciler
from extproc.settings import SidecarSettings, encode_settings
from extproc.transport.address import parse_address

_log = logging.getLogger(__name__)

_READY_S: Final = 60.0
_BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_READINESS_S: Final = 1.0
"""Probes have little patience: a worker that takes longer is not ready."""
_STEADY_S: Final = 60.0
"""A worker that lived so long begins again at the shortest backoff."""
_EXTRA_S: Final = 5.0
"""Beyond the drain time, before a worker that does not stop is killed."""
_UNREACHABLE: Final = (aiohttp.ClientError, OSError, TimeoutError)


class WorkerReady(msgspec.Struct, frozen=True):
    """What a worker reports once it listens."""

    index: int
    pid: int
    address: str
    admin_socket: str


class WorkerError(Exception):
    """A worker ended before it listened: its own log line says why."""


@dataclass(slots=True)
class _Worker:
    index: int
    process: asyncio.subprocess.Process | None = None
    ready: WorkerReady | None = None
    restarts: int = 0


class Supervisor:
    """Runs the sidecar's workers until told to stop."""

    def __init__(self, settings: SidecarSettings, clock_s: Callable[[], float]) -> None:
        self._settings = settings
        self._clock_s = clock_s
        self._workers = [_Worker(index) for index in range(settings.workers)]
        self._stopping = asyncio.Event()
        self._reconciler = _reconciler(settings)
        self._admin = AdminServer(
            parse_address(settings.admin_listen),
            AdminPages(metrics=self._metrics, state=self._state, ready=self._not_ready),
        )

    @property
    def admin_address(self) -> str:
        """Where the admin pages are."""
        return str(self._admin.address)

    @property
    def access_log_address(self) -> str:
        """Where Envoy's access log arrives; empty where it is not read."""
        return str(self._reconciler.address) if self._reconciler is not None else ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the workers that are ready listen."""
        return tuple(worker.ready.address for worker in self._workers if worker.ready is not None)

    async def start(self) -> None:
        """Start the admin pages and every worker; return once all listen.

        Raises :class:`WorkerError` or ``AddressError`` when one cannot.
        """
        await self._admin.start()
        try:
            if self._reconciler is not None:
                self._settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                await self._reconciler.start()
            await self._start_workers()
        except BaseException:
            await self._stop_all()
            raise

    def stop(self) -> None:
        """Ask everything to stop; ``run`` returns when it has."""
        self._stopping.set()

    async def run(self) -> None:
        """Watch the workers until ``stop``; then let them drain."""
        async with asyncio.TaskGroup() as watchers:
            watching = [watchers.create_task(self._watch(worker)) for worker in self._workers]
            if self._reconciler is not None:
                watching.append(watchers.create_task(self._reconciler.run()))
            await self._stopping.wait()
            await self._stop_workers()
            for task in watching:
                task.cancel()
        # A worker that was just being started again when the stop came.
        await self._stop_all()

    async def _start_workers(self) -> None:
        """Wait for every worker's answer, so that none is left behind when one cannot start."""
        answers = await asyncio.gather(
            *(self._spawn(worker) for worker in self._workers), return_exceptions=True
        )
        for answer in answers:
            if answer is not None:
                raise answer

    async def _spawn(self, worker: _Worker) -> None:
        worker.ready = None
        worker.process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "extproc.worker",
            str(worker.index),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_settings(self._settings) + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY_S)
        except TimeoutError:
            process.kill()
            raise WorkerError(f"worker {worker.index} did not listen within {_READY_S:g} s") from None
        if not line:
            raise WorkerError(f"worker {worker.index} ended before it listened: see its last log line")
        worker.ready = msgspec.json.decode(line, type=WorkerReady)

    async def _watch(self, worker: _Worker) -> None:
        """Restart the worker whenever it dies, more slowly each time it dies young."""
        deaths = 0
        while not self._stopping.is_set():
            started = self._clock_s()
            assert worker.process is not None
            await self._follow(worker.process)
            code = await worker.process.wait()
            if self._stopping.is_set():
                return
            worker.ready = None
            deaths = 0 if self._clock_s() - started >= _STEADY_S else deaths
            delay_s = _BACKOFF_S[min(deaths, len(_BACKOFF_S) - 1)]
            deaths += 1
            worker.restarts += 1
            _log.error("worker died", extra={"worker": worker.index, "code": code, "restart_in_s": delay_s})
            if await self._stops_within(delay_s):
                return
            try:
                await self._spawn(worker)
            except (WorkerError, OSError) as error:
                _log.error("worker did not start", extra={"worker": worker.index, "error": str(error)})

    async def _stops_within(self, delay_s: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        except TimeoutError:
            return False
        return True

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Read what a worker tells of its exchanges, to its end."""
        if self._reconciler is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            # What a dead worker does not read goes nowhere: asyncio drops it, and the turns stay owed.
            await self._reconciler.follow(process.stdout, process.stdin.write)

    async def _stop_workers(self) -> None:
        running = [w.process for w in self._workers if w.process is not None and w.process.returncode is None]
        for process in running:
            process.terminate()
        if running:
            _, late = await asyncio.wait(
                [asyncio.ensure_future(process.wait()) for process in running],
                timeout=self._settings.drain_s + _EXTRA_S,
            )
            if late:
                _log.error("workers did not stop in time and are killed", extra={"workers": len(late)})
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _stop_all(self) -> None:
        await self._stop_workers()
        if self._reconciler is not None:
            await self._reconciler.stop()
        await self._admin.stop()

    # -- pages ----------------------------------------------------------------

    async def _ask(self, path: str, timeout_s: float = 5.0) -> dict[str, bytes]:
        """Every ready worker's page, by its number; a worker that does not answer is left out."""
        pages: dict[str, bytes] = {}
        for worker in self._workers:
            if worker.ready is None:
                continue
            connector = aiohttp.UnixConnector(worker.ready.admin_socket)
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            try:
                async with (
                    aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                    session.get(f"http://worker{path}") as answer,
                ):
                    pages[str(worker.index)] = await answer.read()
            except _UNREACHABLE as error:
                _log.warning(
                    "worker does not answer",
                    extra={"worker": worker.index, "page": path, "error": str(error)},
                )
        return pages

    async def _metrics(self) -> bytes:
        pages = {worker: page.decode() for worker, page in (await self._ask("/metrics")).items()}
        lines = [
            "# HELP steno_workers Worker processes, by whether they are ready.",
            "# TYPE steno_workers gauge",
            f'steno_workers{{ready="true"}} {len(self.addresses)}',
            f'steno_workers{{ready="false"}} {len(self._workers) - len(self.addresses)}',
            "# HELP steno_worker_restarts_total Worker processes restarted after they died.",
            "# TYPE steno_worker_restarts_total counter",
            f"steno_worker_restarts_total {sum(worker.restarts for worker in self._workers)}",
        ]
        own = self._reconciler.metrics() if self._reconciler is not None else b""
        return "\n".join(lines).encode() + b"\n" + own + merged_metrics(pages)

    async def _state(self) -> dict[str, object]:
        pages = await self._ask("/state")
        return {
            "workers": [
                {
                    "index": worker.index,
                    "pid": worker.ready.pid if worker.ready is not None else None,
                    "ready": worker.ready is not None,
                    "restarts": worker.restarts,
                    "state": msgspec.json.decode(pages[str(worker.index)])
                    if str(worker.index) in pages
                    else None,
                }
                for worker in self._workers
            ],
            "access_log": self._reconciler.state() if self._reconciler is not None else None,
        }

    async def _not_ready(self) -> str:
        """Why not: each worker is asked, so that a frozen or draining one is not called ready."""
        if self._stopping.is_set():
            return "stopping"
        pages = await self._ask("/readyz", _READINESS_S)
        reasons = [
            f"worker {worker.index}: {reason}"
            for worker in self._workers
            if (reason := _reason(pages.get(str(worker.index))))
        ]
        return "; ".join(reasons)


def _reason(page: bytes | None) -> str:
    """Why a worker is not ready, by its own page; empty when it is."""
    if page is None:
        return "does not answer"
    members = msgspec.json.decode(page, type=dict[str, str])
    return members.get("reason", "")


def _reconciler(settings: SidecarSettings) -> Reconciler | None:
    if not settings.access_log_listen:
        return None
    return Reconciler(
        parse_address(settings.access_log_listen),
        data_dir=settings.data_dir,
        classifier=settings.classifier,
        grace_s=settings.access_log_grace_s,
    )
