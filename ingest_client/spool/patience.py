"""Jobs that wait for company: losing one to a crash costs no turn, so it need not have a commit of its own.

A commit costs a thread's waking and an fsync whatever is in it: at a steady few turns a second that is what
the whole sidecar costs. Whoever writes a turn takes along what waits here.
"""

from collections.abc import Callable
from typing import Final

from ingest_client.spool.jobs import Job

MANY: Final = 64
"""So many waiting items (a job stands for one or more) need no company."""


class Patience:
    """The waiting jobs, in order. Its owner looks at the clock; used on the event loop alone."""

    def __init__(self, hand_over: Callable[[Job], None], *, none: bool) -> None:
        """``none``: nothing waits at all."""
        self._hand_over = hand_over
        self._none = none
        self._jobs: list[Job] = []
        self._items = 0

    def wait(self, job: Job, items: int) -> None:
        """Let a job wait."""
        self._jobs.append(job)
        self._items += items
        if self._items >= MANY or self._none:
            self.over()

    def over(self) -> None:
        """What waits goes now."""
        jobs, self._jobs = self._jobs, []
        self._items = 0
        for job in jobs:
            self._hand_over(job)

    def end(self) -> None:
        """What waits goes now, and nothing waits any more: the process is about to stop."""
        self._none = True
        self.over()
