"""The supervisor's admin pages: what all workers say, in one voice."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum, unique
from typing import Final

import msgspec

from capture.outcomes import Outcome
from extproc.generation import Generation
from extproc.http1 import UNREACHABLE
from extproc.merge import MergedMetrics, Process
from extproc.reconcile.reconciler import Reconciler
from extproc.slot import Restart, Slot

_log = logging.getLogger(__name__)

_PAGE_S: Final = 5.0
_READINESS_S: Final = 1.0
"""Probes have little patience: a worker that takes longer is not ready."""


@unique
class Replacement(StrEnum):
    """How a request to replace all workers ended. The values are metric labels."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Pages:
    """Asks every living generation. ``durable``: their ledgers are on disk."""

    def __init__(
        self, slots: Sequence[Slot], reconciler: Reconciler | None, stopping: asyncio.Event, *, durable: bool
    ) -> None:
        self.replacements = Counter(dict.fromkeys(Replacement, 0))
        self._slots = slots
        self._reconciler = reconciler
        self._stopping = stopping
        self._merged = MergedMetrics(durable=durable)

    def ended(self, slot: Slot, generation: Generation) -> None:
        """A generation has ended: what it counted is carried along."""
        lost = self._merged.ended((slot.index, generation.number), generation.last_metrics())
        if lost:
            _log.error(
                "a worker died with what was in its memory alone",
                extra={
                    "worker": slot.index,
                    "generation": generation.number,
                    Outcome.CRASH.value: lost,
                },
            )

    async def metrics(self) -> bytes:
        """The exposition text."""
        pages = {process: page.decode() for process, page in (await self._ask("/metrics")).items()}
        own = self._reconciler.metrics() if self._reconciler is not None else b""
        return "\n".join(self._about_workers()).encode() + b"\n" + own + self._merged.render(pages)

    def _about_workers(self) -> Iterable[str]:
        ready = sum(slot.serving is not None for slot in self._slots)
        yield "# HELP steno_workers Workers, by whether a process of theirs is ready."
        yield "# TYPE steno_workers gauge"
        yield f'steno_workers{{ready="true"}} {ready}'
        yield f'steno_workers{{ready="false"}} {len(self._slots) - ready}'
        yield "# HELP steno_workers_leaving Replaced processes that still have something to finish."
        yield "# TYPE steno_workers_leaving gauge"
        yield f"steno_workers_leaving {sum(slot.leaving is not None for slot in self._slots)}"
        yield "# HELP steno_worker_generation How many processes a worker has had, this one included."
        yield "# TYPE steno_worker_generation gauge"
        for slot in self._slots:
            yield f'steno_worker_generation{{worker="{slot.index}"}} {slot.generations}'
        yield "# HELP steno_worker_restarts_total New processes of a worker, by why there had to be one."
        yield "# TYPE steno_worker_restarts_total counter"
        for slot in self._slots:
            for reason in Restart:
                labels = f'worker="{slot.index}",reason="{reason}"'
                yield f"steno_worker_restarts_total{{{labels}}} {slot.restarts[reason]}"
        yield "# HELP steno_replacements_total Requests (SIGHUP) to replace all workers, by how they ended."
        yield "# TYPE steno_replacements_total counter"
        for result in Replacement:
            yield f'steno_replacements_total{{result="{result}"}} {self.replacements[result]}'

    async def state(self) -> dict[str, object]:
        """Every worker with its own page; of a replaced process that still works, that too."""
        pages = await self._ask("/state")
        return {
            "workers": [_worker(slot, pages) for slot in self._slots],
            "access_log": self._reconciler.state() if self._reconciler is not None else None,
        }

    async def not_ready(self) -> str:
        """Why not: each worker is asked, so that a frozen or draining one is not called ready."""
        if self._stopping.is_set():
            return "stopping"
        pages = await self._ask("/readyz", _READINESS_S)
        reasons = [
            f"worker {slot.index}: {reason}" for slot in self._slots if (reason := _reason(slot, pages))
        ]
        return "; ".join(reasons)

    async def _ask(self, path: str, timeout_s: float = _PAGE_S) -> dict[Process, bytes]:
        """Every living generation's page; one that does not answer is left out."""
        asked = [(slot, each) for slot in self._slots for each in slot.living]
        answers = await asyncio.gather(
            *(each.page(path, timeout_s) for _, each in asked), return_exceptions=True
        )
        pages: dict[Process, bytes] = {}
        for (slot, each), answer in zip(asked, answers, strict=True):
            if isinstance(answer, bytes):
                pages[slot.index, each.number] = answer
            elif isinstance(answer, UNREACHABLE):
                _log.log(
                    logging.WARNING if each is slot.serving else logging.DEBUG,
                    "worker does not answer",
                    extra={
                        "worker": slot.index,
                        "generation": each.number,
                        "page": path,
                        "error": str(answer),
                    },
                )
            else:
                raise answer
        return pages


def _worker(slot: Slot, pages: dict[Process, bytes]) -> dict[str, object]:
    serving, leaving = slot.serving, slot.leaving
    return {
        "index": slot.index,
        "generation": slot.generations,
        "pid": serving.ready.pid if serving is not None else None,
        "ready": serving is not None,
        "restarts": slot.restarts[Restart.DIED] + slot.restarts[Restart.DID_NOT_START],
        "replaced": slot.restarts[Restart.REPLACED],
        "state": _state(slot, serving, pages),
        "leaving": {
            "generation": leaving.number,
            "pid": leaving.ready.pid,
            "state": _state(slot, leaving, pages),
        }
        if leaving is not None
        else None,
    }


def _state(slot: Slot, generation: Generation | None, pages: dict[Process, bytes]) -> object:
    page = pages.get((slot.index, generation.number)) if generation is not None else None
    return msgspec.json.decode(page) if page is not None else None


def _reason(slot: Slot, pages: dict[Process, bytes]) -> str:
    """Why a worker is not ready, by its own page; empty when it is."""
    if slot.serving is None:
        return "is being started again"
    page = pages.get((slot.index, slot.serving.number))
    if page is None:
        return "does not answer"
    return msgspec.json.decode(page, type=dict[str, str]).get("reason", "")
