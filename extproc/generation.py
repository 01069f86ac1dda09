"""One life of one worker process, as the supervisor sees it.

A worker gets its settings as one JSON line on stdin and answers with one JSON line on
stdout once it listens. Its stdin stays open: when it closes, the supervisor is gone and
the worker stops. Logs go to stderr, shared. Where Envoy's access log is read, more lines follow both
ways (``extproc.reconcile``). SIGTERM stops it; SIGUSR1 tells it that another generation has its
address. What its metrics were at the end it leaves in a file beside its admin socket.
"""

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from extproc import http1
from extproc.reconcile.reconciler import Reconciler
from extproc.settings import SidecarSettings, encode_settings
from extproc.transport.address import Address

RETIRE: Final = signal.SIGUSR1
_READY_S: Final = 60.0
_EXTRA_S: Final = 5.0


class WorkerReady(msgspec.Struct, frozen=True):
    """What a worker reports once it listens."""

    index: int
    pid: int
    address: str
    admin_socket: str


class WorkerError(Exception):
    """A worker ended before it listened: its own log line says why."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A worker process that listens, or did. ``number`` counts the lives of one worker, from 1."""

    number: int
    settings: SidecarSettings
    process: asyncio.subprocess.Process
    ready: WorkerReady

    @classmethod
    async def start(cls, settings: SidecarSettings, index: int, number: int, address: Address) -> Self:
        """Start a process; return once it listens. Raises :class:`WorkerError` when it does not."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "extproc.worker", str(index), str(number), str(address)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_settings(settings) + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY_S)
        except BaseException as error:  # cancelled, too: nobody would know of the process
            process.kill()
            if not isinstance(error, TimeoutError):
                raise
            raise WorkerError(f"worker {index} did not listen within {_READY_S:g} s") from None
        if not line:
            await process.wait()
            raise WorkerError(f"worker {index} ended before it listened: see its last log line")
        return cls(number, settings, process, msgspec.json.decode(line, type=WorkerReady))

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.returncode is None

    @property
    def patience_s(self) -> float:
        """Longer than it may take to leave when it is replaced."""
        of = self.settings
        return of.handover_s + 1.2 * of.connection_age_s + of.drain_s + _EXTRA_S

    async def ended(self, reconciler: Reconciler | None) -> int:
        """Hear what it tells of its exchanges, to its end; returns its exit code. To be called once."""
        if reconciler is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            # What a dead worker does not read goes nowhere: asyncio drops it, and the turns stay owed.
            await reconciler.follow(self.process.stdout, self.process.stdin.write)
        return await self.process.wait()

    def send(self, name: signal.Signals) -> None:
        """Send a signal; one that has ended hears nothing."""
        if self.alive:
            self.process.send_signal(name)

    async def page(self, path: str, timeout_s: float) -> bytes:
        """One of its admin pages. Raises one of ``http1.UNREACHABLE``."""
        return await http1.fetch(Path(self.ready.admin_socket), path, timeout_s)

    def last_metrics(self) -> str | None:
        """The metrics that it left at its end, once; None when it had no time to. Its files are removed."""
        left = last_metrics_file(Path(self.ready.admin_socket))
        try:
            page = left.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            page = None
        for file in (left, Path(self.ready.admin_socket)):
            with contextlib.suppress(OSError):
                file.unlink()
        return page


def last_metrics_file(admin_socket: Path) -> Path:
    """Where a worker leaves its last metrics."""
    return admin_socket.with_suffix(".metrics")
