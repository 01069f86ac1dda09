"""Addresses as an operator writes them: ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH``."""

from dataclasses import dataclass
from typing import TypeAlias

# sockaddr_un holds 108 bytes on Linux, the final NUL among them.
MAX_UNIX_PATH_BYTES = 107
MAX_PORT = 65535


class AddressError(Exception):
    """An address cannot be used; the text names it, says why and what to do."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address without brackets, and a port. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix domain socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read an address; raises ``AddressError`` with the accepted forms when it is none."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:").removeprefix("//"))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise AddressError(f"{text!r} is no address: HOST:PORT (0 to {MAX_PORT}), [IPV6]:PORT or unix:PATH")
    return TcpAddress(host, int(port))


def _unix(path: str) -> UnixAddress:
    """A socket's path, if the kernel can take it."""
    if not path:
        raise AddressError("unix: needs the path of a socket after the colon")
    if len(path.encode("utf-8", "surrogateescape")) > MAX_UNIX_PATH_BYTES:
        raise AddressError(f"unix:{path} is longer than {MAX_UNIX_PATH_BYTES} bytes, the kernel's limit")
    return UnixAddress(path)


def worker_address(listen: Address, index: int) -> Address:
    """Worker ``index``'s address: 0 has ``listen`` itself, the others the next port or ``.index``.

    Raises ``AddressError`` where there is no such port or path. Port 0 stays: any free one.
    """
    if index == 0:
        return listen
    if isinstance(listen, UnixAddress):
        return _unix(f"{listen.path}.{index}")
    port = listen.port + index if listen.port else 0
    if port > MAX_PORT:
        raise AddressError(
            f"{listen} leaves no port for worker {index}: choose a lower one, or fewer workers"
        )
    return TcpAddress(listen.host, port)
