"""Puts one worker together, runs it, and takes it down without losing a kept turn.

    transport → recorder → pipeline → spool → delivery → ingest
                   └──► checkpointer ──┘

Start: spool (what an earlier process left is there again), delivery, pipeline, checkpointer,
transport last. Stop, in the same direction: the transport accepts no more and lets
open streams end, the checkpointer stops, the pipeline drains into the spool, delivery gets
what is left of the drain time, and what it could not deliver stays on disk.

A worker that is replaced has more time: everything goes on until its last stream has ended, and
only then does it stop. The address has another generation's listener meanwhile.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from capture.outcomes import Outcome, State
from extproc.admin import AdminPages, AdminServer
from extproc.assemblers import Assembler
from extproc.budget import Budget
from extproc.captured import Instant
from extproc.checkpoints import Checkpointer
from extproc.exchange import ExchangeRules
from extproc.generation import last_metrics_file
from extproc.metrics import WorkerMetrics
from extproc.open_metrics import OpenMetrics
from extproc.pipeline import Pipeline, PipelineLimits
from extproc.policy import OnePolicy, Policy
from extproc.queue_metrics import DeliveryMetrics, SpoolMetrics
from extproc.reconcile.feed import Feed, Orders
from extproc.recorder import Recorder
from extproc.settings import SidecarSettings, TlsSettings
from extproc.shelf import Shelf
from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress
from extproc.transport.base import ServerTls, StreamAcceptor, Transport, TransportCounters
from extproc.transport.binding import prefer_newest
from ingest_client.delivery.clock import SystemClock
from ingest_client.delivery.delivery import Delivery
from ingest_client.ledger import Ledger
from ingest_client.spool.instance import write_private_file
from ingest_client.spool.spool import Spool

_log = logging.getLogger(__name__)

_STREAMS_SHARE: Final = 0.5
"""Of the drain time, for streams that are still open."""

_DELIVERY_SHARE: Final = 0.25
"""Of the drain time, left for delivery, however long a turn in the making takes."""

_FLUSH_AGAIN_S: Final = 0.5
"""How long a disk in trouble is left alone before it is asked again: nothing is called durable meanwhile."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which worker a process is, which of its lives (from 1), and where it listens.

    The address is claimed by the supervisor (``extproc.transport.binding``).
    """

    index: int
    generation: int
    address: Address


class Worker:
    """One worker of the sidecar: every part of it, and their order."""

    def __init__(
        self, settings: SidecarSettings, place: Place, tell: Callable[[bytes], bool] | None = None
    ) -> None:
        """``tell`` takes lines for the supervisor (``extproc.reconcile.feed``); None: it reads none."""
        self._settings = settings
        self._place = place
        self._ledger = Ledger()
        self._metrics = WorkerMetrics(self._ledger, self._transport_counters)
        self._feed = Feed(self._metrics, settings.classifier, tell) if tell is not None else None
        self.orders = Orders(self._ledger, self._feed) if self._feed is not None else None
        self._transport: Transport | None = None
        self._spool: Spool | None = None
        self._draining = False
        self._delivery: Delivery | None = None
        self._admin = AdminServer(
            UnixAddress(str(settings.data_dir.resolve() / f"admin-{place.index}-{place.generation}.sock")),
            AdminPages(metrics=self._render_metrics, state=self._state, ready=self._not_ready),
        )

    @property
    def address(self) -> Address:
        """Where the worker listens for Envoy."""
        assert self._transport is not None
        return self._transport.address

    @property
    def admin_socket(self) -> Path:
        """Where the supervisor and the command line ask."""
        assert isinstance(self._admin.address, UnixAddress)
        return Path(self._admin.address.path)

    async def start(self) -> None:
        """Open everything and listen.

        Raises ``AddressError`` when the address cannot be had and ``SpoolRefused`` when
        the data directory cannot be used; both say what to do.
        """
        settings = self._settings
        await asyncio.to_thread(_make_private, settings.data_dir)
        self._spool = await Spool.open(settings.data_dir, settings.spool, ledger=self._ledger)
        self._delivery = Delivery(self._spool, settings.delivery, SystemClock(), random.random)
        self._metrics.registry.register(SpoolMetrics(self._spool))
        self._metrics.registry.register(DeliveryMetrics(self._delivery))
        spool = self._spool
        self._shelf = Shelf(
            None if settings.spool.memory_only else settings.data_dir, trouble=lambda: spool.condition.trouble
        )
        self._assembler = Assembler(settings.log_level)
        self._pipeline = Pipeline(
            sink=self._spool,
            checkpoints=self._spool,
            ledger=self._ledger,
            observer=self._feed or self._metrics,
            limits=PipelineLimits(max_turns=settings.queue_turns, max_bytes=settings.queue_bytes),
            wall_ns=time.time_ns,
            shelf=self._shelf,
            assembler=self._assembler,
        )
        self._checkpointer = Checkpointer(
            checkpoints=self._spool, sink=self._spool, name=self._pipeline.name, clock=_now
        )
        budget = Budget(settings.budget)
        self._open = OpenMetrics(
            budget,
            self._shelf,
            self._assembler,
            self._checkpointer,
            waiting_bytes=lambda: self._pipeline.waiting_bytes,
        )
        self._metrics.registry.register(self._open)
        policy = Policy(errors=settings.capture_errors, quarantine_raw=settings.quarantine_raw)
        recorder = Recorder(
            rules=ExchangeRules(OnePolicy(policy), settings.classifier, budget),
            pipeline=self._pipeline,
            checkpointer=self._checkpointer,
            ledger=self._ledger,
            clock=_now,
            feed=self._feed,
        )
        self._transport = _transport(settings, self._place.address, recorder)
        try:
            await self._admin.start()
            await self._transport.start()
        except BaseException:
            await self._spool.close(1.0)
            raise
        if isinstance(self.address, TcpAddress) and not prefer_newest(self.address):
            _log.warning("this kernel shares new connections out between two generations of a worker")
        self._transport.health.serving = True

    async def run(self, stopping: asyncio.Event, replaced: asyncio.Event) -> None:
        """Work until ``stopping``, or ``replaced`` and the streams have ended; then drain and return."""
        assert self._delivery is not None
        async with asyncio.TaskGroup() as tasks:
            delivering = tasks.create_task(self._delivery.run())
            keeping = tasks.create_task(self._pipeline.run())
            watching = tasks.create_task(self._metrics.loop_lag.run())
            checkpointing = [
                tasks.create_task(self._checkpointer.run()),
                tasks.create_task(self._checkpointer.sweep_forever()),
            ]
            # What is in memory alone dies with the process: nothing of it may be called durable.
            if self._feed is not None and not self._settings.spool.memory_only:
                checkpointing.append(tasks.create_task(self._feed.confirm_forever(self._commit)))
            await self._work(stopping, replaced)
            watching.cancel()
            await self._drain(keeping, checkpointing, delivering)
        await self._admin.stop()

    async def _work(self, stopping: asyncio.Event, replaced: asyncio.Event) -> None:
        """Return when it is time to drain."""
        assert self._transport is not None
        async with asyncio.TaskGroup() as tasks:
            told = tasks.create_task(stopping.wait())
            relieved = tasks.create_task(replaced.wait())
            await asyncio.wait({told, relieved}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.is_set():
                self._draining = True
                retired = tasks.create_task(self._transport.retire(self._settings.handover_s))
                await asyncio.wait({told, retired}, return_when=asyncio.FIRST_COMPLETED)
                retired.cancel()
            relieved.cancel()
            told.cancel()

    async def _drain(
        self,
        keeping: asyncio.Task[None],
        checkpointing: Sequence[asyncio.Task[None]],
        delivering: asyncio.Task[None],
    ) -> None:
        assert self._transport is not None
        assert self._delivery is not None
        assert self._spool is not None
        self._draining = True
        self._spool.hurry()
        until = time.monotonic() + self._settings.drain_s
        await self._transport.stop(self._settings.drain_s * _STREAMS_SHARE)
        for task in checkpointing:
            task.cancel()
        deliver_s = self._settings.drain_s * _DELIVERY_SHARE
        # What is not kept in time stays open in the books: the next process keeps its snapshot, or counts it.
        await self._pipeline.drain(max(0.5, until - time.monotonic() - deliver_s))
        keeping.cancel()
        await asyncio.to_thread(self._assembler.stop)
        self._shelf.close()
        await self._delivery.close(max(0.5, until - time.monotonic()), drain=True)
        await delivering
        await self._spool.close(max(0.5, until - time.monotonic()))
        if self._settings.spool.memory_only:
            self._discard()

    def _discard(self) -> None:
        """With this process goes what it kept in memory alone; no disk has its last ledger."""
        lost = self._ledger.discard()
        _log.log(
            logging.ERROR if lost else logging.INFO,
            "the worker ends, and with it what was in memory alone",
            extra={Outcome.VOLUME_DISCARDED.value: lost, "ledger": self._balance()},
        )

    async def _commit(self) -> None:
        """Return when everything counted so far is on disk: writes come to the spool in order."""
        assert self._spool is not None
        while not await self._spool.flush():  # noqa: ASYNC110 - a disk that works again sets no event
            await asyncio.sleep(_FLUSH_AGAIN_S)

    # -- pages ----------------------------------------------------------------

    def leave_metrics(self) -> None:
        """Write down what was counted: the supervisor carries it along. All of it, or nothing."""
        try:
            write_private_file(last_metrics_file(self.admin_socket), self._metrics.render())
        except OSError as error:
            _log.warning("the last metrics cannot be left for the supervisor: %s", error)

    def _transport_counters(self) -> TransportCounters:
        return self._transport.counters if self._transport is not None else TransportCounters()

    async def _render_metrics(self) -> bytes:
        return self._metrics.render()

    async def _not_ready(self) -> str:
        """Why not: traffic goes on all the same, but a dashboard or a Deployment may want to know."""
        if self._transport is None or self._spool is None:
            return "the worker is starting"
        if self._draining:
            return "draining"
        return self._spool.condition.trouble

    async def _state(self) -> dict[str, object]:
        return {
            "listen": str(self.address),
            "ledger": self._balance(),
            "waiting_bytes": self._pipeline.waiting_bytes,
            "open": self._open.state(),
            "loop_lag_worst_s": self._metrics.loop_lag.worst_s(),
            "checkpoints": asdict(self._checkpointer.counters),
            "delivery": asdict(self._delivery.snapshot()) if self._delivery is not None else None,
        }

    def _balance(self) -> dict[str, object]:
        ledger = self._ledger
        return {
            "observed": ledger.observed,
            **{state.value: ledger.total(state) for state in State},
            "imbalance": ledger.imbalance,
            "outcomes": {outcome.value: count for outcome, count in sorted(ledger.ended.items())},
        }


def _transport(settings: SidecarSettings, address: Address, acceptor: StreamAcceptor) -> Transport:
    """The transport that was chosen, and nothing of the other: gRPC takes 10 MiB of a process that only
    imports it. Raises ``AddressError`` when it is not installed.
    """
    if settings.transport == "grpcio":
        from extproc.transport.grpcio import GrpcioTransport  # noqa: PLC0415

        return GrpcioTransport(
            address,
            acceptor,
            tls=_tls(settings.tls),
            reuse_port=True,
            connection_age_s=settings.connection_age_s,
        )
    try:
        from extproc.transport.http2.limits import LEAST_PROCESS_BYTES, Limits  # noqa: PLC0415
        from extproc.transport.http2.server import Http2Transport  # noqa: PLC0415 - an extra of its own
    except ModuleNotFoundError as error:
        raise AddressError(
            f"the transport http2 needs {error.name}, which is not installed: pip install 'steno[http2]'"
        ) from error
    return Http2Transport(
        address,
        acceptor,
        tls=_tls(settings.tls),
        reuse_port=True,
        limits=Limits(process_bytes=max(LEAST_PROCESS_BYTES, settings.budget.max_bytes)),
        rest_s=settings.rest_s,
    )


def _tls(settings: TlsSettings | None) -> ServerTls | None:
    if settings is None:
        return None
    return ServerTls(
        certificate_chain=settings.certificate.read_bytes(),
        private_key=settings.key.read_bytes(),
        client_ca=settings.client_ca.read_bytes() if settings.client_ca is not None else None,
    )


def _make_private(directory: Path) -> None:
    """Turns are other people's words: nobody else on the machine may read them."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def _now() -> Instant:
    return Instant(time.time_ns(), time.monotonic_ns())
