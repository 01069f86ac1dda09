"""One thread for disk work: a disk that hangs holds it, and neither the event loop nor the process's exit.

The thread is a daemon, which ``concurrent.futures`` has no way to ask for: its threads are waited for
when the interpreter ends.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

_Result = TypeVar("_Result")
_Jobs: TypeAlias = "SimpleQueue[Callable[[], None] | None]"


class DiskThread:
    """Runs what it is given, in order. Starts with its first job."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: _Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[], _Result]) -> "Future[_Result]":
        """Have it done; returns at once. Cancelled before it began, it is not done. After :meth:`close` its
        future fails with an OSError.
        """
        future: Future[_Result] = Future()
        if self._closed:
            future.set_exception(OSError("no more disk work is taken"))
            return future
        if self._thread is None:
            self._thread = threading.Thread(target=_run, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(lambda: _do(work, future))
        return future

    def close(self) -> None:
        """Take no more. What was given is done, if the process lives so long."""
        self._closed = True
        self._jobs.put(None)


def _run(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # it may hold megabytes, and the next one may be long in coming


def _do(work: Callable[[], _Result], future: "Future[_Result]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits is told
        future.set_exception(error)
    else:
        future.set_result(result)
