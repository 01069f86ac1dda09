"""The worker process: ``python -m extproc.worker INDEX GENERATION ADDRESS``, started by the supervisor only.

It reads its settings as one JSON line from stdin, answers with one JSON line on stdout
when it listens, and stops on SIGTERM or when stdin closes (the supervisor is gone); on SIGUSR1 it
stops once its last stream has ended (another generation has the address). Where the
supervisor reads Envoy's access log, more lines follow both ways (``extproc.reconcile.summary``).
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Final

import msgspec
import uvloop

from extproc.allocator import give_large_blocks_back
from extproc.app import Place, Worker
from extproc.generation import RETIRE, WorkerReady
from extproc.logs import log_to_stderr
from extproc.reconcile.feed import Pipe
from extproc.settings import SidecarSettings, decode_settings
from extproc.transport.address import AddressError, parse_address
from ingest_client.spool.schema import SpoolRefused

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 65536
_LAST_LINES_S: Final = 2.0
"""How long a worker that stops waits for the supervisor to read its last lines."""


def main() -> int:
    """Run the worker; returns the exit code."""
    place = Place(int(sys.argv[1]), int(sys.argv[2]), parse_address(sys.argv[3]))
    give_large_blocks_back()
    settings = decode_settings(sys.stdin.buffer.readline())
    log_to_stderr(f"worker-{place.index}", settings.log_level)
    try:
        uvloop.run(_serve(settings, place))
    except (AddressError, SpoolRefused, OSError) as error:
        # A refusal is no bug: one line that says what to do, no traceback.
        _log.error("the worker cannot run: %s", error)
        return 1
    return 0


async def _serve(settings: SidecarSettings, place: Place) -> None:
    pipe = await Pipe.open(sys.stdout.buffer) if settings.access_log_listen else None
    worker = Worker(settings, place, pipe.write if pipe is not None else None)
    stopping, replaced = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(RETIRE, replaced.set)
    # Ctrl-C and a closed terminal reach the whole process group; the supervisor tells us when.
    for name in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(name, lambda: None)
    loop.add_reader(sys.stdin.fileno(), _listen, worker, stopping)
    await worker.start()
    ready = msgspec.json.encode(
        WorkerReady(place.index, os.getpid(), str(worker.address), str(worker.admin_socket))
    )
    if pipe is None:
        sys.stdout.buffer.write(ready + b"\n")
        sys.stdout.buffer.flush()
    else:
        pipe.write(ready + b"\n")
    await worker.run(stopping, replaced)
    worker.leave_metrics()
    if pipe is not None:
        await pipe.close(_LAST_LINES_S)


def _listen(worker: Worker, stopping: asyncio.Event) -> None:
    """Take what the supervisor sends; its end is ours."""
    data = os.read(sys.stdin.fileno(), _READ_BYTES)
    if not data:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopping.set()
    elif worker.orders is not None:
        worker.orders.receive(data)


if __name__ == "__main__":
    sys.exit(main())
