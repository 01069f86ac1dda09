"""Envoy's side of a sidecar: ``deploy/envoy.yaml`` with the sidecar's own addresses, whole or in parts.

The shipped file is the template, comments included: what Envoy is told about windows, breakers and
ejection is written there and nowhere else. Its places are found through its YAML structure.
"""

import ipaddress
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, TypeAlias, cast

import yaml

from extproc.transport.address import Address, TcpAddress

_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - looked for, not bound
_LOOPBACK: Final = "127.0.0.1"
_ITEM: Final = "        - endpoint: {address: %s}\n"
Path: TypeAlias = tuple[str | int, ...]
"""Of a member by its name, of a list's item by its number or by its member ``name``."""

_CLUSTERS: Final[Path] = ("static_resources", "clusters")
_MANAGER: Final[Path] = (
    *("static_resources", "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config"),
)
_FILTERS: Final = ("steno", "envoy.filters.http.header_mutation")


@unique
class Part(StrEnum):
    """What is wanted of the configuration."""

    CLUSTERS = "clusters"
    FILTERS = "filters"
    ACCESS_LOG = "access-log"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyTls:
    """How Envoy speaks TLS to the sidecar: files on Envoy's side.

    ``name``: what the sidecar's certificate must be for; empty: any that ``ca`` vouches for.
    """

    ca: str
    name: str
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The sidecar as Envoy reaches it. ``access_log`` None: it does not read Envoy's access log."""

    workers: Sequence[Address]
    access_log: Address | None = None
    tls: EnvoyTls | None = None


def reached_at(address: Address, host: str) -> Address:
    """A listener's address as Envoy reaches it: at ``host``, where given, and never at 0.0.0.0."""
    if not isinstance(address, TcpAddress):
        return address
    return TcpAddress(host or (_LOOPBACK if address.host in _ANYWHERE else address.host), address.port)


def envoy_config(shipped: str, wanted: Wanted, part: Part) -> str:
    """The part of ``shipped`` (the text of ``deploy/envoy.yaml``), for this sidecar."""
    text = _adapted(shipped, wanted)
    if part is Part.WHOLE:
        return text
    root = _compose(text)
    if part is Part.CLUSTERS:
        names = ["steno"] if wanted.access_log is None else ["steno", "steno-ledger"]
        return _list("clusters", text, [_at(root, (*_CLUSTERS, name)) for name in names])
    if part is Part.FILTERS:
        items = [_at(root, (*_MANAGER, "http_filters", name)) for name in _FILTERS]
        return _list("http_filters", text, items)
    return _list("access_log", text, [_at(root, (*_MANAGER, "access_log", "steno-ledger"))])


def _adapted(text: str, wanted: Wanted) -> str:
    """The whole file with the sidecar's addresses; without the access log where that is not read."""
    text = _reach(text, "steno", wanted.workers, wanted.tls)
    if wanted.access_log is not None:
        return _reach(text, "steno-ledger", [wanted.access_log], None)
    for path in ((*_CLUSTERS, "steno-ledger"), (*_MANAGER, "access_log")):
        lines = text.splitlines(keepends=True)
        first, end = _lines(text, _at(_compose(text), path), key=path[-1] == "access_log")
        text = "".join(lines[:first] + lines[end:])
    return text


def _reach(text: str, cluster: str, addresses: Sequence[Address], tls: EnvoyTls | None) -> str:
    """Give a cluster its endpoints, its kind of discovery, and TLS."""
    path: Path = (*_CLUSTERS, cluster)
    lines = text.splitlines(keepends=True)
    root = _compose(text)
    assignment, _ = _lines(text, _at(root, (*path, "load_assignment")), key=True)
    endpoints = _at(root, (*path, "load_assignment", "endpoints", 0, "lb_endpoints"))
    first, end = endpoints.start_mark.line, _lines(text, endpoints)[1]
    kind = _at(root, (*path, "type")).start_mark.line
    lines[first:end] = [_ITEM % _address(each) for each in addresses]
    lines[assignment:assignment] = _transport_socket(tls) if tls is not None else []
    if any(isinstance(each, TcpAddress) and _ip(each.host) is None for each in addresses):
        lines[kind] = lines[kind].replace("STATIC", "STRICT_DNS")
    return "".join(lines)


def _address(address: Address) -> str:
    """In Envoy's words. JSON is YAML, and quotes whatever stands in a path."""
    if isinstance(address, TcpAddress):
        return f"{{socket_address: {{address: {_text(address.host)}, port_value: {address.port}}}}}"
    return f"{{pipe: {{path: {_text(address.path)}}}}}"


def _transport_socket(tls: EnvoyTls) -> list[str]:
    validation = f"trusted_ca: {{filename: {_text(tls.ca)}}}"
    if tls.name:
        kind = "DNS" if _ip(tls.name) is None else "IP_ADDRESS"
        validation += (
            f", match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{exact: {_text(tls.name)}}}}}]"
        )
    own = (
        f"          tls_certificates: [{{certificate_chain: {{filename: {_text(tls.certificate)}}}, "
        f"private_key: {{filename: {_text(tls.key)}}}}}]\n"
    )
    context = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return [
        "    transport_socket:\n",
        "      name: envoy.transport_sockets.tls\n",
        "      typed_config:\n",
        f'        "@type": {context}\n',
        *([f"        sni: {_text(tls.name)}\n"] if tls.name and _ip(tls.name) is None else []),
        "        common_tls_context:\n",
        "          alpn_protocols: [h2]\n",
        f"          validation_context: {{{validation}}}\n",
        *([own] if tls.certificate else []),
    ]


def _text(value: str) -> str:
    """A YAML scalar: plain where that can be nothing else."""
    plain = value.replace(".", "").replace("-", "").replace("/", "").replace("_", "").isalnum()
    return value if plain and value.isascii() else json.dumps(value, ensure_ascii=False)


def _ip(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# -- places in the text --------------------------------------------------------


def _compose(text: str) -> yaml.Node:
    return cast("yaml.Node", yaml.compose(text, Loader=yaml.SafeLoader))


def _at(node: yaml.Node, path: Path) -> yaml.Node:
    """The node at a path. KeyError when the shipped file has no such place: our bug."""
    for step in path:
        node = _step(node, step)
    return node


def _step(node: yaml.Node, step: str | int) -> yaml.Node:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return cast("yaml.Node", value)
    elif isinstance(step, int):
        return cast("yaml.Node", node.value[step])
    else:
        for item in node.value:
            if _step(item, "name").value == step:
                return cast("yaml.Node", item)
    raise KeyError(step)


def _lines(text: str, node: yaml.Node, *, key: bool = False) -> tuple[int, int]:
    """The first line of a block and the line behind it; comments right above it are its own.

    ``key``: the node is a member's value, and its name stands on the line before.
    """
    lines = text.splitlines()
    first, end = node.start_mark.line - key, node.end_mark.line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return first, end


def _list(name: str, text: str, items: Sequence[yaml.Node]) -> str:
    """Some items of a list, as a member of that name."""
    lines = text.splitlines(keepends=True)
    blocks = [textwrap.dedent("".join(lines[slice(*_lines(text, item))])) for item in items]
    return f"{name}:\n" + "\n".join(blocks)
