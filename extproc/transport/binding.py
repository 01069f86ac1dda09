"""Having an address for oneself, and handing it over.

TCP: a restart without loss needs two generations on one port for a moment, so both set
SO_REUSEPORT, and then the kernel no longer says that a port is taken: a second program
would silently get a share of the connections. ``claim`` says it instead, with a lock in
the data directory (against another Steno of the same data) and a probe (against
everybody else). The supervisor claims once; the generations of its workers bind under it.
While two of them listen the kernel would share connections out among both; ``prefer_newest``
has it give them all to the newer one, so that nothing waits at a socket that is about to close.

Unix sockets: gRPC removes a socket's path when it binds and when it stops, so two
generations must not share a path. Each binds one of its own, and renames it onto the
public one, which thereby always exists and always leads to the newest generation.
"""

import ctypes
import errno
import fcntl
import itertools
import os
import re
import socket
import struct
from pathlib import Path
from typing import Final, TextIO

from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""Linux's number (socket(7)); Python has no name for it."""
_BPF_RETURN: Final = 0x06
_generation = itertools.count(1)


class AddressClaim:
    """An address that is ours until ``release`` or the end of the process."""

    def __init__(self, address: Address, lock: TextIO) -> None:
        self.address = address
        self._lock = lock

    def release(self) -> None:
        """Let others have it. May be called again."""
        self._lock.close()


def claim(address: Address, directory: Path) -> AddressClaim:
    """Make sure that nobody listens at ``address``, and keep other Stenos of ``directory`` off it.

    Raises ``AddressError``. Port 0 is never taken; its claim is only a name.
    """
    lock = _lock(address, directory)
    try:
        probe(address)
    except AddressError:
        lock.close()
        raise
    return AddressClaim(address, lock)


def _lock(address: Address, directory: Path) -> TextIO:
    """The locked file that stands for ``address``; its text is the owner's process id."""
    name = re.sub(r"[^\w.-]", "_", str(address))
    file = (directory / f"listen-{name}.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise AddressError(
            f"cannot listen on {address}: process {owner} does so already with the data directory"
            f" {directory}; stop it first, or choose another address"
            f" (to restart a sidecar's workers without losing a turn: kill -HUP {owner})"
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def probe(address: Address) -> None:
    """Raise ``AddressError`` when ``address`` cannot be bound, most likely because it is taken."""
    if isinstance(address, UnixAddress):
        _probe_unix(address)
    else:
        _probe_tcp(address)


def _probe_tcp(address: TcpAddress) -> None:
    """Bind without SO_REUSEPORT, which fails beside any listener, and let go again."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, sockaddr in found:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(sockaddr)
                listener.listen(1)
    except OSError as error:
        raise AddressError(_unavailable(address, error)) from error


def _probe_unix(address: UnixAddress) -> None:
    """Knock: a socket file that nobody answers at is a leftover, and ours to replace."""
    if not Path(address.path).parent.is_dir():
        raise AddressError(f"cannot listen on {address}: its directory does not exist; create it first")
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address.path)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
                return
            raise AddressError(_unavailable(address, error)) from error
    raise AddressError(
        f"cannot listen on {address}: another program answers there; stop it first, or choose another path"
    )


def _unavailable(address: Address, error: OSError) -> str:
    """What is wrong with an address, and what to do about it."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {address}: another program has that port;"
            " stop it first, or choose another address"
        )
    return f"cannot listen on {address}: {error.strerror or error}"


def prefer_newest(address: TcpAddress) -> bool:
    """Have new connections to the port that this process listens on go to the newest listener.

    Must be called by the first generation; it holds for those that come while one listens. False
    where the kernel has no such rule (Linux has): connections are then shared out meanwhile.
    """
    # gRPC does not show its listening sockets, so all open files are looked at.
    steered = [_steer(descriptor, address.port) for descriptor in _open_files()]
    return any(steered)


def _steer(descriptor: int, port: int) -> bool:
    """Attach the rule if the descriptor is a socket that listens on the port.

    The rule is a filter of one instruction that says "the second socket of the group", in the
    order in which they began to listen; where there is no second one, the kernel takes the first.
    """
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        if not _listens(found, port):
            return False
        second = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 1))
        program = struct.pack("HL", 1, ctypes.addressof(second))
        found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
    except OSError:
        return False
    finally:
        found.detach()  # the descriptor is its owner's
    return True


def _listens(found: socket.socket, port: int) -> bool:
    return (
        found.family in {socket.AF_INET, socket.AF_INET6}
        and found.getsockname()[1] == port
        and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _open_files() -> list[int]:
    """The numbers of this process's open files; none where the kernel does not tell."""
    try:
        return [int(file.name) for file in Path("/proc/self/fd").iterdir()]
    except OSError:
        return []


class GenerationSocket:
    """A generation's own socket path, to be published under the address that Envoy knows."""

    def __init__(self, public: UnixAddress) -> None:
        self._public = Path(public.path)
        self.own = UnixAddress(f"{public.path}.{os.getpid()}-{next(_generation)}")
        self._identity: tuple[int, int] | None = None

    def publish(self) -> None:
        """Rename the bound socket onto the public path, in one step."""
        own = Path(self.own.path)
        status = own.stat()
        self._identity = (status.st_dev, status.st_ino)
        own.rename(self._public)

    def withdraw(self) -> None:
        """Remove the public path, unless a newer generation has taken it over."""
        try:
            status = self._public.stat()
        except FileNotFoundError:
            return
        if (status.st_dev, status.st_ino) == self._identity:
            self._public.unlink()
