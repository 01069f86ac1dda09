"""The processes that are measured: how they start, what CPU and memory they have used."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Self

import psutil

_READY_S: Final = 60.0
_GO_SOURCE: Final = Path(__file__).parent / "go_reference"


def free_port(successors: int = 0) -> int:
    """A loopback port that was free a moment ago, with so many free ones after it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                for each in range(successors):
                    socket.create_server(("127.0.0.1", port + 1 + each)).close()
            except OSError:
                continue
            return port


@dataclass(slots=True)
class Server:
    """A process and its children. ``ports``: where its workers listen."""

    name: str
    process: subprocess.Popen[bytes]
    ports: Sequence[int]
    log: Path
    admin: str = ""
    _others: list[psutil.Process] = field(default_factory=list[psutil.Process])

    def cpu_s(self) -> float:
        """CPU seconds used so far by the process and its children, user and system."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def rss_bytes(self) -> int:
        """Memory in use by the process and its children."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self._pids())

    def worker_rss_bytes(self) -> list[int]:
        """Memory in use by each child (or by the process itself, where it has none)."""
        return [psutil.Process(pid).memory_info().rss for pid in self._pids()[1:] or self._pids()]

    def open_exchanges(self) -> int:
        """How many exchanges a sidecar has open, all its workers together."""
        with urllib.request.urlopen(f"{self.admin}/state", timeout=60) as answer:
            state = json.loads(answer.read())
        return sum(int(worker["state"]["ledger"]["open"]) for worker in state["workers"])

    def stop(self) -> None:
        """SIGTERM, then wait; SIGKILL for one that does not stop."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _pids(self) -> list[int]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]


def _cpu_s(pid: int) -> float:
    """A process's CPU clock (clock_getcpuclockid(3)): nanoseconds, where /proc counts 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)


class Bench:
    """Starts processes under one temporary directory and ends them all. A context manager."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="steno-bench-"))
        self._servers: list[Server] = []
        self.sink_port = 0

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _leave)  # what was started must be ended
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self._servers):
            server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def sink(self) -> Server:
        """An ingest that keeps nothing, for every sidecar started after it."""
        server = self._module("sink", "bench.sink", 1)
        self.sink_port = server.ports[0]
        return server

    def turns_delivered(self) -> int:
        """How many turns the sink has taken."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.sink_port}/", timeout=10) as answer:
            return int(answer.read())

    def bare(self, kind: str) -> Server:
        """One of ``bench.bare``."""
        return self._module(f"{kind} bare", "bench.bare", 1, kind)

    def go(self, binary: Path, mode: str) -> Server:
        """The Go reference in one of its modes."""
        port = free_port()
        return self._start(f"go {mode}", [str(binary), f"-mode={mode}", f"-listen=127.0.0.1:{port}"], [port])

    def steno(self, name: str, *arguments: str, workers: int = 1) -> Server:
        """``steno extproc`` with a spool of its own, delivering to the sink."""
        port, admin_port = free_port(workers - 1), free_port()
        command = [
            sys.executable, "-m", "steno", "extproc", f"--listen=127.0.0.1:{port}",
            f"--admin-listen=127.0.0.1:{admin_port}", f"--ingest-url=http://127.0.0.1:{self.sink_port}",
            f"--data-dir={self.directory / name.replace(' ', '-')}", f"--workers={workers}", "--drain=5s",
            *arguments,
        ]  # fmt: skip
        server = self._start(name, command, range(port, port + workers), ready_line=False)
        server.admin = f"http://127.0.0.1:{admin_port}"
        _until_ready(server)
        return server

    def end(self, server: Server) -> None:
        """Stop one before the others."""
        self._servers.remove(server)
        server.stop()

    def _module(self, name: str, module: str, ports: int, *arguments: str) -> Server:
        port = free_port(ports - 1)
        return self._start(name, [sys.executable, "-m", module, *arguments, str(port)], [port])

    def _start(
        self, name: str, command: Sequence[str], ports: Sequence[int], *, ready_line: bool = True
    ) -> Server:
        log = self.directory / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE if ready_line else errors, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
        server = Server(name, process, ports, log)
        self._servers.append(server)
        if ready_line:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"listening on"):
                raise RuntimeError(f"{name} did not start:\n{log.read_text()}")
        return server


def _until_ready(server: Server) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.admin}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{server.name} did not start:\n{server.log.read_text()}")


def _leave(number: int, frame: object) -> NoReturn:  # noqa: ARG001 -- the signal module's
    """End as an exception does."""
    sys.exit(1)


def build_go() -> Path | None:
    """The Go reference, built into the user's cache directory; None, with a message, where Go is absent."""
    go = shutil.which("go")
    if go is None:
        print("Go is not installed: its reference is left out, and every ratio with it", file=sys.stderr)
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steno-bench"
    binary = cache / "go_reference"
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run([go, "build", "-o", str(binary), "."], cwd=_GO_SOURCE, check=True)
    return binary
