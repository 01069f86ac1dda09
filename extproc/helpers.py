"""The worker's side of its helper process (``extproc.helper``): started when needed, replaced when it dies.

    await Helper().assemble(captured, identity) → what became of it

One job at a time: what is large is also rare, and memory is promised for one. A helper that
dies, or takes longer than a minute, is replaced and the job tried once more; then the exchange is
quarantined as it is, with that reason. The pipes are served by a thread, which waits for the
system and not for the GIL.
"""

import asyncio
import logging
import os
import pickle
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final, cast

from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, quarantined
from extproc.exchange import Captured
from extproc.helper import HEAD, Made, facts

_log = logging.getLogger(__name__)

JOB_S: Final = 60.0
"""For one job. The largest body is searched for credentials in some five seconds."""

TRIES: Final = 2
_READ_BYTES: Final = 1 << 20
_STOP_S: Final = 2.0


class HelperDied(Exception):  # noqa: N818 - what happened, and no mistake
    """The helper ended, or did not answer in time."""


@dataclass(slots=True)
class HelperCounters:
    """``started`` processes, ``jobs`` answered, ``deaths`` in the middle of one, ``given_up``: jobs that
    every helper died of.
    """

    started: int = 0
    jobs: int = 0
    deaths: int = 0
    given_up: int = 0


class Helper:
    """See the module. One a worker."""

    def __init__(self, log_level: str = "info") -> None:
        self._command = (sys.executable, "-m", "extproc.helper", log_level)
        self._process: subprocess.Popen[bytes] | None = None
        self._one = asyncio.Lock()
        self.counters = HelperCounters()

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return self._process.pid if self._process is not None else None

    async def assemble(self, captured: Captured, identity: TurnIdentity) -> Made:
        """What becomes of a large exchange. Its request must be in memory, and is let go of: what the
        helper gets is copy enough.
        """
        if captured.reducer is not None:
            captured.reducer.read_out()
        async with self._one:
            return await asyncio.to_thread(self._assemble, captured, identity)

    def stop(self) -> None:
        """End the process. The worker is done."""
        self._let_go(_STOP_S)

    # In the thread

    def _assemble(self, captured: Captured, identity: TurnIdentity) -> Made:
        job = pickle.dumps((captured, identity), pickle.HIGHEST_PROTOCOL)
        captured.request.let_go()
        for _ in range(TRIES):
            try:
                made = self._answer(job)
            except (HelperDied, OSError, EOFError, pickle.UnpicklingError) as error:
                self.counters.deaths += 1
                self._let_go(0.0)
                _log.error("a helper died: %s", error, extra=facts(captured, identity.turn_id))
            else:
                self.counters.jobs += 1
                return made
        self.counters.given_up += 1
        captured = cast("Captured", pickle.loads(job)[0])  # noqa: S301 - our own, of a moment ago
        del job
        reason = f"internal error: {TRIES} helper processes died of it: see the log"
        return quarantined(captured, identity, Outcome.REDUCER_ERROR, reason), captured.classification

    def _answer(self, job: bytes) -> Made:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        until_s = time.monotonic() + JOB_S
        _send(process.stdin.fileno(), HEAD.pack(len(job), False), until_s)
        _send(process.stdin.fileno(), job, until_s)
        length, last = HEAD.unpack(_receive(process.stdout.fileno(), HEAD.size, until_s))
        answer = _receive(process.stdout.fileno(), length, until_s)
        if last:  # it has grown too large, and ends
            self._let_go(_STOP_S)
        return cast("Made", pickle.loads(answer))  # noqa: S301 - our helper's own

    def _running(self) -> subprocess.Popen[bytes]:
        """The helper, or a new one."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
            self.counters.started += 1
        return self._process

    def _let_go(self, grace_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _send(pipe: int, data: bytes, until_s: float) -> None:
    rest = memoryview(data)
    while rest:
        _wait(pipe, select.POLLOUT, until_s)
        rest = rest[os.write(pipe, rest[:_READ_BYTES]) :]


def _receive(pipe: int, size: int, until_s: float) -> bytearray:
    data = bytearray()
    while len(data) < size:
        _wait(pipe, select.POLLIN, until_s)
        read = os.read(pipe, min(_READ_BYTES, size - len(data)))
        if not read:
            raise HelperDied("it ended without an answer")
        data += read
    return data


def _wait(pipe: int, event: int, until_s: float) -> None:
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0.0, until_s - time.monotonic()) * 1000):
        raise HelperDied(f"it did not answer within {JOB_S:g} s")
