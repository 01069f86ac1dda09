"""The worker's side of its assembler (``extproc.assembling_process``): started when needed, replaced if dead.

    await Assembler().assemble(captured, identity) → what became of it

One job at a time: what is large is also rare, and memory is promised for one. An assembler that
dies, or takes longer than five minutes, is replaced and the job tried once more; then the exchange is
quarantined with that reason and without its bodies: what killed the assemblers would be done here.
The pipes are served by a thread, which waits for the system and not for the GIL; pickles go
through them without ever being whole in memory, so that a body is there once and not three times.
"""

import asyncio
import logging
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final, cast

from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, Unmade, quarantined
from extproc.assembling_process import GREETING, GREETING_BYTES, Answer, Job, Made, facts, made_of
from extproc.captured import Captured

_log = logging.getLogger(__name__)

JOB_S: Final = 300.0
"""For one job. The largest body is searched for credentials in some five seconds of CPU, which a busy
machine may take a minute to give.
"""

START_S: Final = 60.0
"""Until a new process has said what it is: it imports for a third of a second of CPU."""

TRIES: Final = 2
_AT_ONCE_BYTES: Final = 1 << 20
_STOP_S: Final = 2.0
_STOP_EVERY_S: Final = 0.05


HERE_BYTES: Final = 8 << 20
"""Of a turn that is made in the worker where assemblers are of another version: some time of its GIL."""


class OtherVersion(Exception):  # noqa: N818 - what happened, and no mistake
    """The assembler is no process of this program."""


class AssemblerDied(Exception):  # noqa: N818 - what happened, and no mistake
    """The assembler ended, or did not answer in time."""


@dataclass(slots=True)
class AssemblerCounters:
    """``started`` processes, ``jobs`` answered, ``deaths`` in the middle of one, ``given_up``: jobs that
    every assembler died of. ``other_version``: jobs without one, for theirs would be of another version.
    """

    started: int = 0
    jobs: int = 0
    deaths: int = 0
    given_up: int = 0
    other_version: int = 0


class Assembler:
    """See the module. One a worker."""

    def __init__(self, log_level: str = "info") -> None:
        self._command = (sys.executable, "-m", "extproc.assembling_process", log_level)
        self._process: subprocess.Popen[bytes] | None = None
        self._one = asyncio.Lock()
        self._working = threading.Lock()
        self._stopped = False
        self.counters = AssemblerCounters()

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return self._process.pid if self._process is not None else None

    async def assemble(
        self, captured: Captured, identity: TurnIdentity, unmade: Unmade | None = None
    ) -> Made:
        """What becomes of a large exchange. Its request must be in memory. ``unmade``: it was tried here, and
        is to be quarantined.
        """
        if captured.reducer is not None:
            captured.reducer.read_out()
        async with self._one:
            return await asyncio.to_thread(self._assemble, (captured, identity, unmade))

    def stop(self) -> None:
        """End the process, also in the middle of a job, which is not tried again. The worker is done."""
        self._stopped = True
        while not self._working.acquire(timeout=_STOP_EVERY_S):
            if (process := self._process) is not None:
                process.kill()
        self._let_go(_STOP_S)
        self._working.release()

    # In the thread

    def _assemble(self, job: Job) -> Made:
        with self._working:
            return self._tried(job)

    def _tried(self, job: Job) -> Made:
        captured, identity, _ = job
        for _ in range(TRIES):
            if self._stopped:
                raise AssemblerDied("the worker is done")
            try:
                made = self._answer(job)
            except OtherVersion as error:
                self._let_go(0.0)
                self.counters.other_version += 1
                _log.error("%s: restart the worker", error, extra=facts(captured, identity.turn_id))
                return _made_here(job)
            except Exception as error:  # noqa: BLE001 - whatever it was, the pipes may be out of step
                self.counters.deaths += 1
                self._let_go(0.0)
                _log.error(
                    "an assembler died: %s: %s",
                    type(error).__name__,
                    error,
                    extra=facts(captured, identity.turn_id),
                )
            else:
                self.counters.jobs += 1
                return made
        self.counters.given_up += 1
        reason = f"internal error: {TRIES} assemblers died of it: see the log"
        unmade = Unmade(outcome=Outcome.REDUCER_ERROR, reason=reason, withhold=True)
        return quarantined(captured, identity, unmade), captured.classification

    def _answer(self, job: Job) -> Made:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        until_s = time.monotonic() + JOB_S
        pickle.dump(job, _Pipe(process.stdin.fileno(), until_s), pickle.HIGHEST_PROTOCOL)
        made, last = cast("Answer", pickle.load(_Pipe(process.stdout.fileno(), until_s)))  # noqa: S301 - our assembler's own
        if last:
            self._let_go(_STOP_S)
        return made

    def _running(self) -> subprocess.Popen[bytes]:
        """The assembler, or a new one."""
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
            self.counters.started += 1
            assert self._process.stdout is not None
            said = _Pipe(self._process.stdout.fileno(), time.monotonic() + START_S).read(GREETING_BYTES)
            if said != GREETING:
                raise OtherVersion(f"an assembler is {said!r}, and this is {GREETING!r}")
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


def _made_here(job: Job) -> Made:
    """The same without an assembler, within bounds."""
    captured, identity, _ = job
    answer = captured.reducer.decoded_bytes if captured.reducer is not None else 0
    if captured.request.kept_bytes + answer <= HERE_BYTES:
        return made_of(job)
    reason = "internal error: the assembler is of another version: restart the worker"
    unmade = Unmade(outcome=Outcome.REDUCER_ERROR, reason=reason, withhold=True)
    return quarantined(captured, identity, unmade), captured.classification


class _Pipe:
    """One end of a pipe as a file for pickle. Raises AssemblerDied, also when the time is over."""

    __slots__ = ("_file", "_until_s")

    def __init__(self, file: int, until_s: float) -> None:
        self._file = file
        self._until_s = until_s

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data)
        while rest:
            self._wait(select.POLLOUT)
            rest = rest[os.write(self._file, rest[:_AT_ONCE_BYTES]) :]
        return len(data)

    def readinto(self, into: bytearray | memoryview) -> int:
        rest = memoryview(into)
        size = len(rest)
        while rest:
            self._wait(select.POLLIN)
            read = os.readv(self._file, [rest[:_AT_ONCE_BYTES]])
            if not read:
                raise AssemblerDied("it ended without an answer")
            rest = rest[read:]
        return size

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readline(self) -> bytes:
        raise AssemblerDied("its answer is no pickle of ours")

    def _wait(self, event: int) -> None:
        ready = select.poll()
        ready.register(self._file, event)
        if not ready.poll(max(0.0, self._until_s - time.monotonic()) * 1000):
            raise AssemblerDied("it did not answer in time")
