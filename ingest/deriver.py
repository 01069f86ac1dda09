"""The deriver: behind the durable accept, it turns stored turns into everything else.

It takes what waits in small batches, derives in a thread, and commits a batch together
with the removal of its turns from the queue. A crash repeats a batch and changes nothing.
While turns come it works in small pieces with pauses between them: who waits for a 202 goes first.
A turn that cannot be derived, or whose derived rows cannot be saved, is recorded with its
reason and never stops the others. Nothing that a turn provokes ends the deriver.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ingest.derivation.derive import Derived, derive
from ingest.metrics import Metrics
from ingest.store import derived as derived_tables
from ingest.store.connection import BusyError, StoreError, UnavailableError
from ingest.store.derived import Waiting
from ingest.store.rows import Event, State, TurnRow
from ingest.store.store import Store

_log = logging.getLogger("steno.ingest.derive")
_BATCH: Final = 256
_SMALL_BATCH: Final = 32
"""Turns of a batch while turns come: saving them holds up the commit they share."""
_COMING_S: Final = 0.25
"""How long after the last turn others are still on their way."""
_GATHER_S: Final = 0.05
"""From one batch to the next while turns come: what a batch costs besides its turns is shared."""
_IDLE_S: Final = 1.0
_LOOK_S: Final = 0.02
_TROUBLE_S: Final = 1.0

Failure: TypeAlias = tuple[int, str]
"""A turn's sequence number, and why it could not be derived."""


def derive_all(
    batch: Sequence[Waiting], *, gently: bool = False
) -> tuple[list[Derived], list[Failure], list[TurnRow]]:
    """Derive each turn of the batch on its own: results, failures, and refused turns, which give nothing.

    ``gently``: sleep after each as long as it took. Whoever answers writers meanwhile needs the
    interpreter's lock ten times a turn, and would wait for it each time.
    """
    results: list[Derived] = []
    failures: list[Failure] = []
    refused: list[TurnRow] = []
    for one in batch:
        if one.turn.state == State.REJECTED:
            refused.append(one.turn)
            continue
        began = time.perf_counter()
        try:
            results.append(derive(one.turn, one.body()))
        except Exception as error:  # noqa: BLE001 -- whatever a hostile turn provokes, the next one goes on
            failures.append((one.turn.seq, _reason(error)))
        if gently:
            time.sleep(min(time.perf_counter() - began, _GATHER_S))
    return results, failures, refused


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Deriver:
    """Runs until told to stop. ``wake`` it when something was stored."""

    def __init__(self, store: Store, metrics: Metrics, publish: Callable[[Sequence[Event]], None]) -> None:
        self._publish = publish
        self._store = store
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._woken_at_s = -math.inf
        self.stopping = False
        self.running = False

    def wake(self) -> None:
        """Something new waits."""
        self._woken_at_s = time.monotonic()
        self._wake.set()

    async def settled(self, within_s: float) -> bool:
        """Wait until what is stored by now is derived, by whichever instance; whether that came to pass.

        At most ``within_s`` seconds, and not at all where nobody derives. Raises StoreError.
        """
        try:
            async with asyncio.timeout(within_s):
                newest = await self._store.read(derived_tables.newest_pending)
                self._wake.set()  # another instance may have stored it, and not derive
                while await self._store.read(lambda connection: derived_tables.waits(connection, newest)):
                    if not (self.running or self._store.notifies):
                        return False
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Finish the batch at hand, then end."""
        self.stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Derive what waits, and then what comes."""
        self.running = True
        while not self.stopping:
            self._wake.clear()
            try:
                busy = await self.step()
            except StoreError as error:
                _log.warning("derivation waits for the store: %s", error)
                await self._rest(_TROUBLE_S)
                continue
            except Exception:  # noqa: BLE001 -- a bug of ours ends neither the service nor, for ever, derivation
                _log.exception("derivation failed, and tries again")
                await self._rest(_TROUBLE_S)
                continue
            if not busy and not self._wake.is_set():
                await self._rest(_IDLE_S)

    async def step(self) -> bool:
        """Derive one batch; whether there was one."""
        began = time.monotonic()
        gently = began < self._woken_at_s + _COMING_S
        size = _SMALL_BATCH if gently else _BATCH
        batch = await self._store.read(lambda connection: derived_tables.pending(connection, size))
        if not batch:
            return False
        results, failures, refused = await asyncio.to_thread(derive_all, batch, gently=gently)
        try:
            await self._save(results, failures, refused)
        except (UnavailableError, BusyError):
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, each turn is saved alone and has its own
            _log.warning("a batch of %d turns is saved one by one: %a", len(batch), _reason(error))
            await self._save_each(results, failures, refused)
        if self._wake.is_set() and len(batch) < size:
            await asyncio.sleep(began + _GATHER_S - time.monotonic())
        return True

    async def _save(
        self, results: Sequence[Derived], failures: Sequence[Failure], refused: Sequence[TurnRow] = ()
    ) -> None:
        events = await self._store.write(
            lambda connection: derived_tables.save(connection, results, failures, refused)
        )
        self._publish(events)
        self._metrics.derived.labels("ok").inc(len(results))
        self._metrics.derived.labels("failed").inc(len(failures))
        for seq, reason in failures:
            _log.warning("turn %d could not be derived: %a", seq, reason)

    async def _save_each(
        self, results: Sequence[Derived], failures: Sequence[Failure], refused: Sequence[TurnRow]
    ) -> None:
        await self._save((), failures, refused)
        for one in results:
            try:
                await self._save((one,), ())
            except (UnavailableError, BusyError):
                raise
            except Exception as error:  # noqa: BLE001 -- told in its row
                await self._save((), ((one.turn.seq, f"not saved: {_reason(error)}"),))

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return
