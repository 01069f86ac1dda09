"""An assembler: the process that makes a worker's large turns, started by ``extproc.assemblers`` only.

It assembles large turns, one at a time: decoding, reducing, marshalling and searching tens of
megabytes for credentials holds the interpreter for longer than Envoy's keepalive waits, and the
libraries that do it keep the GIL, so that a thread would not help.

It first says which version it is. Then a job comes on stdin and its answer goes to stdout, as pickles:
both ends are one program, and what a fold holds has no other form. The assembler ends with its stdin
(the worker is gone), and after an answer that left it large.
"""

import logging
import os
import pickle
import resource
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias, cast

from capture.classify import Classification
from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, Unmade, attempt, quarantined
from extproc.captured import Captured
from extproc.logs import log_to_stderr
from ingest_client.sink import Record

_log = logging.getLogger(__name__)

PROTOCOL: Final = 1
"""Counts what is pickled and how it is read, between two releases."""

GREETING_BYTES: Final = 64


def greeting() -> bytes:
    """What an assembler says first: where the package was replaced under a worker, it is another's."""
    try:
        version = metadata.version("steno")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        version = "0"
    return f"steno {version} {PROTOCOL}".encode()[:GREETING_BYTES].ljust(GREETING_BYTES)


GREETING: Final = greeting()
"""This process's own, as of its start."""

MAX_MEMORY_BYTES: Final = 2 << 30
"""Of address space. A body that needs more is quarantined as our own error; the machine is not."""

RECYCLE_BYTES: Final = 160 << 20
"""An assembler that has become larger ends: the allocator would keep what the largest turn took."""

Job: TypeAlias = tuple[Captured, TurnIdentity, Unmade | None]
"""What to assemble; a turn that could not be made in the worker, and is to be written down."""

Made: TypeAlias = tuple[Record | Outcome, Classification]
"""What became of the exchange, and whose it turned out to be."""

Answer: TypeAlias = tuple[Made, bool]
"""What the assembler writes. True: it has grown too large, and ends."""


def assembled(captured: Captured, identity: TurnIdentity) -> Record | Outcome | Unmade:
    """:func:`extproc.assemble.attempt`; what it raises is our own bug and costs no turn: it is kept for a
    person, and reported.
    """
    try:
        return attempt(captured, identity)
    except Exception as error:  # noqa: BLE001 - see above
        _log.exception("turn could not be assembled", extra=facts(captured, identity.turn_id))
        return Unmade(
            outcome=Outcome.REDUCER_ERROR, reason=f"internal error: {type(error).__name__}: see the log"
        )


def facts(captured: Captured, turn_id: str) -> dict[str, object]:
    """What a log line says of an exchange: names, never contents."""
    return {
        "turn_id": turn_id,
        "tenant": captured.policy.tenant,
        "provider": captured.classification.provider,
        "endpoint": captured.classification.endpoint,
        "client_request_id": captured.envelope.request_id[:128],
        "status": captured.status,
        "response_bytes": captured.response_bytes,
    }


def main() -> int:
    """Serve jobs until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    log_to_stderr("assembler", sys.argv[1])
    jobs, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not break into an answer
    answers.write(GREETING)
    answers.flush()
    while jobs.peek(1):
        job = cast("Job", pickle.load(jobs))  # noqa: S301 - our worker's own
        made = made_of(job)
        del job
        answer: Answer = (made, _resident_bytes() > RECYCLE_BYTES)
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
        if answer[1]:
            break
        del made, answer
    return 0


def made_of(job: Job) -> Made:
    """What becomes of the exchange."""
    captured, identity, unmade = job
    made = assembled(captured, identity) if unmade is None else unmade
    if isinstance(made, Unmade):
        made = quarantined(captured, identity, made)
    return made, captured.classification


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
