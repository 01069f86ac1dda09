"""One process that starts the workers, restarts what dies, replaces them on request, and speaks for all.

Theory of operation. Each worker has a slot with the generation that serves and, for a while, the
one that leaves: never more than two, because the kernel's rule for a shared port (``binding``) and
the names of sockets know of two. A replacement starts the new process, which binds beside the old one and
gets every new connection; then the old one is told (``extproc.generation``), finishes its open
streams, delivers, and ends. Its spool is adopted by a living worker. Where the new process does not
start, the old one goes on and the replacement is over: what has not been replaced keeps its settings,
also when it dies and is started again.

    serving ── dies ──► backoff ──► the next generation
       └── replaced ──► leaving ── ends, or is killed when it is too late
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Final

from extproc.admin import AdminPages, AdminServer
from extproc.generation import RETIRE, Generation, WorkerError
from extproc.pages import Pages, Replacement
from extproc.reconcile.reconciler import Reconciler
from extproc.settings import SidecarSettings, need_a_restart
from extproc.slot import Restart, Slot
from extproc.transport.address import TcpAddress, parse_address, worker_address
from extproc.transport.binding import AddressClaim, claim

_log = logging.getLogger(__name__)

_BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S: Final = 60.0
"""A worker that lived so long begins again at the shortest backoff."""
_SETTLE_S: Final = 0.25
"""New connections go to the new generation; so long the old one has to take up those it had got before."""
_EXTRA_S: Final = 5.0
"""Beyond the time it has, before a worker that does not stop is killed."""


class Supervisor:
    """Runs the sidecar's workers until told to stop."""

    def __init__(self, settings: SidecarSettings, clock_s: Callable[[], float]) -> None:
        self._settings = settings
        self._clock_s = clock_s
        listen = parse_address(settings.listen)
        self._slots = [
            Slot(index, worker_address(listen, index), settings) for index in range(settings.workers)
        ]
        self._claims: list[AddressClaim] = []
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._until_stop: set[asyncio.Task[None]] = set()
        self._reconciler = _reconciler(settings)
        self._pages = Pages(
            self._slots, self._reconciler, self._stopping, durable=not settings.spool.memory_only
        )
        self._admin = AdminServer(
            parse_address(settings.admin_listen),
            AdminPages(metrics=self._pages.metrics, state=self._pages.state, ready=self._pages.not_ready),
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
        return tuple(slot.serving.ready.address for slot in self._slots if slot.serving is not None)

    async def start(self) -> None:
        """Claim the addresses, start the admin pages and every worker; return once all listen.

        Raises :class:`WorkerError` or ``AddressError`` when one cannot.
        """
        try:
            self._claim()
            await self._admin.start()
        except BaseException:
            self._release()
            raise
        try:
            if self._reconciler is not None:
                await self._reconciler.start()
            await self._start_workers()
        except BaseException:
            await self._stop_all()
            raise

    def stop(self) -> None:
        """Ask everything to stop; ``run`` returns when it has."""
        self._stopping.set()

    def replace(self, settings: SidecarSettings) -> None:
        """Ask for new generations of all workers, with these settings; ``run`` does it.

        Settings that differ in what only a restart can change are refused. Asked again meanwhile,
        all are replaced once more.
        """
        fixed = need_a_restart(self._settings, settings)
        if fixed:
            self.refuse(f"only a restart of the sidecar can change {', '.join(fixed)}")
            return
        self._settings = settings
        if self._reconciler is not None:
            self._reconciler.classify_by(settings.classifier)
        self._asked.set()

    def refuse(self, why: str) -> None:
        """A replacement was asked for, with settings that cannot be used: all goes on as it is."""
        self._pages.replacements[Replacement.REFUSED] += 1
        _log.error("the workers are not replaced and go on with their settings: %s", why)

    async def run(self) -> None:
        """Watch the workers until ``stop``; then let them drain."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for slot in self._slots:
                for generation in slot.living:
                    tasks.create_task(self._follow(slot, generation))
            self._meanwhile(self._replace_when_asked())
            if self._reconciler is not None:
                self._meanwhile(self._reconciler.run())
            await self._stopping.wait()
            await self._stop_workers()
            for task in tuple(self._until_stop):
                task.cancel()
        # A worker that was just being started when the stop came.
        await self._stop_all()

    def _meanwhile(self, work: Coroutine[None, None, None]) -> None:
        """Do something until it is done, or the stop comes."""
        assert self._tasks is not None
        task = self._tasks.create_task(work)
        self._until_stop.add(task)
        task.add_done_callback(self._until_stop.discard)

    def _claim(self) -> None:
        """Make sure that no other program, and no other Steno, has an address: workers share theirs."""
        self._settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for slot in self._slots:
            if not (isinstance(slot.address, TcpAddress) and slot.address.port == 0):
                self._claims.append(claim(slot.address, self._settings.data_dir))

    def _release(self) -> None:
        for each in self._claims:
            each.release()

    async def _start_workers(self) -> None:
        """Wait for every worker's answer, so that none is left behind when one cannot start."""
        answers = await asyncio.gather(
            *(self._next(slot, self._settings) for slot in self._slots), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _next(self, slot: Slot, settings: SidecarSettings) -> None:
        """Start the slot's next generation and let it serve. Raises WorkerError or OSError."""
        generation = await Generation.start(settings, slot.index, slot.generations + 1, slot.address)
        slot.serve(generation)
        if self._tasks is not None:
            self._tasks.create_task(self._follow(slot, generation))

    # -- those that die -------------------------------------------------------

    async def _follow(self, slot: Slot, generation: Generation) -> None:
        """Hear a generation to its end, and see to what is then to be done."""
        started = self._clock_s()
        code = await generation.ended(self._reconciler)
        self._pages.ended(slot, generation)
        served = slot.ended(generation)
        facts = {"worker": slot.index, "generation": generation.number, "code": code}
        if not code:
            _log.info("worker has ended", extra=facts)
        elif self._stopping.is_set():
            _log.error("worker did not stop in good order", extra=facts)
        elif not served:
            _log.error("a replaced worker died before it was done; its turns are taken over", extra=facts)
        if served and not self._stopping.is_set():
            if self._clock_s() - started >= _STEADY_S:
                slot.deaths = 0
            slot.restarts[Restart.DIED] += 1
            _log.error("worker died", extra={**facts, "restart_in_s": _backoff_s(slot)})
            self._meanwhile(self._revive(slot))

    async def _revive(self, slot: Slot) -> None:
        """Start the next generation, more slowly each time."""
        while slot.serving is None:
            delay_s = _backoff_s(slot)
            slot.deaths += 1
            await asyncio.sleep(delay_s)
            async with slot.changing:
                if slot.serving is not None:  # a replacement was faster
                    return
                try:
                    await self._next(slot, slot.settings)
                except (WorkerError, OSError) as error:
                    slot.restarts[Restart.DID_NOT_START] += 1
                    _log.error(
                        "worker did not start",
                        extra={"worker": slot.index, "error": str(error), "again_in_s": _backoff_s(slot)},
                    )

    # -- those that are replaced ----------------------------------------------

    async def _replace_when_asked(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            _log.info("replacing the workers", extra={"workers": len(self._slots)})
            replaced = await self._replace_all()
            result = Replacement.DONE if replaced == len(self._slots) else Replacement.FAILED
            self._pages.replacements[result] += 1
            if result is Replacement.DONE:
                _log.info("every worker has a new process; the old ones finish what is open")
            else:
                _log.error(
                    "not all workers were replaced: mend what their log lines say, and ask again",
                    extra={"replaced": replaced, "workers": len(self._slots)},
                )

    async def _replace_all(self) -> int:
        """Replace one worker after another, until one cannot be; returns how many were."""
        for count, slot in enumerate(self._slots):
            if slot.leaving is not None:
                _log.info(
                    "waiting for the process that was replaced before",
                    extra={"worker": slot.index, "pid": slot.leaving.ready.pid},
                )
            await slot.alone.wait()
            async with slot.changing:
                try:
                    await self._next(slot, self._settings)
                except (WorkerError, OSError) as error:
                    _log.error(
                        "worker is not replaced and goes on as it is",
                        extra={"worker": slot.index, "error": str(error)},
                    )
                    return count
                await asyncio.sleep(_SETTLE_S)
            if slot.leaving is not None:
                slot.leaving.send(RETIRE)
                self._meanwhile(_see_off(slot, slot.leaving))
        return len(self._slots)

    # -- the end --------------------------------------------------------------

    async def _stop_workers(self) -> None:
        running = [each for slot in self._slots for each in slot.living if each.alive]
        for generation in running:
            generation.send(signal.SIGTERM)
        if running:
            _, late = await asyncio.wait(
                [asyncio.ensure_future(each.process.wait()) for each in running],
                timeout=max(each.settings.drain_s for each in running) + _EXTRA_S,
            )
            if late:
                _log.error("workers did not stop in time and are killed", extra={"workers": len(late)})
        for generation in running:
            generation.send(signal.SIGKILL)
            await generation.process.wait()

    async def _stop_all(self) -> None:
        await self._stop_workers()
        if self._reconciler is not None:
            await self._reconciler.stop()
        await self._admin.stop()
        self._release()


async def _see_off(slot: Slot, generation: Generation) -> None:
    """Kill a generation that leaves when it has not ended in time."""
    try:
        await asyncio.wait_for(slot.alone.wait(), generation.patience_s)
    except TimeoutError:
        _log.error(
            "a replaced worker did not end in time and is killed",
            extra={"worker": slot.index, "generation": generation.number, "pid": generation.ready.pid},
        )
        generation.send(signal.SIGKILL)


def _backoff_s(slot: Slot) -> float:
    return _BACKOFF_S[min(slot.deaths, len(_BACKOFF_S) - 1)]


def _reconciler(settings: SidecarSettings) -> Reconciler | None:
    if not settings.access_log_listen:
        return None
    return Reconciler(
        parse_address(settings.access_log_listen),
        data_dir=settings.data_dir,
        classifier=settings.classifier,
        grace_s=settings.access_log_grace_s,
    )
