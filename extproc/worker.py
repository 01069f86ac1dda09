"""The worker process: ``python -m extproc.worker INDEX``, started by the supervisor only.

It reads its settings as one JSON line from stdin, answers with one JSON line on stdout
when it listens, and stops on SIGTERM or when stdin closes (the supervisor is gone).
"""

import asyncio
import logging
import os
import signal
import sys

import msgspec
import uvloop

from extproc.app import Worker
from extproc.logs import log_to_stderr
from extproc.settings import SidecarSettings, decode_settings
from extproc.supervisor import WorkerReady
from extproc.transport.address import AddressError
from ingest_client.spool.schema import SpoolRefused

_log = logging.getLogger(__name__)


def main() -> int:
    """Run the worker; returns the exit code."""
    index = int(sys.argv[1])
    settings = decode_settings(sys.stdin.buffer.readline())
    log_to_stderr(f"worker-{index}", settings.log_level)
    try:
        uvloop.run(_serve(settings, index))
    except (AddressError, SpoolRefused, OSError) as error:
        # A refusal is no bug: one line that says what to do, no traceback.
        _log.error("the worker cannot run: %s", error)
        return 1
    return 0


async def _serve(settings: SidecarSettings, index: int) -> None:
    worker = Worker(settings, index)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    # Ctrl-C reaches the whole process group; the supervisor tells us when.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_reader(sys.stdin.fileno(), stopping.set)
    await worker.start()
    ready = WorkerReady(index, os.getpid(), str(worker.address), str(worker.admin_socket))
    sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
    sys.stdout.buffer.flush()
    await worker.run(stopping)


if __name__ == "__main__":
    sys.exit(main())
