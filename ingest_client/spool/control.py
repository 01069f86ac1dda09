"""The control socket: how the command line reaches the spool of a running process.

A request is one frame, four bytes of length and JSON ``{"op", "selection", "body"}``; the answer is one too,
``{"ok": …}`` or ``{"error": …}``. The socket lies in the instance's private folder: who may
open that may do all this with the files anyway.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Final

import msgspec

from ingest_client.spool.tools import Json, Selection, ToolError, as_arguments, parse

SOCKET: Final = "control.sock"
_LENGTH: Final = struct.Struct(">I")
_MAX_FRAME: Final = 256 << 20
"""Larger than the largest body as base64; what claims to be more is not ours."""

_LONGEST_PATH: Final = 100
"""Of a socket's address (unix(7)): a longer one is reached through its folder's descriptor."""

Answer = Callable[[str, Selection, str | None], Awaitable[Json]]


class Control:
    """The server's side, on the event loop."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        """``answer`` runs an operation and returns its result; it raises ToolError or OSError."""
        self._folder = folder
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        with _address(self._folder) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - may be a path through a descriptor
            self._server = await asyncio.start_unix_server(self._serve, path)
            os.chmod(path, 0o600)  # noqa: PTH101

    async def stop(self) -> None:
        """Stop listening, and hang up."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.close()
            with contextlib.suppress(OSError):
                (self._folder / SOCKET).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                frame = await _read_frame(reader)
                writer.write(_frame(await self._reply(frame)))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, ToolError):
            pass  # hung up, or never spoke our language
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _reply(self, frame: bytes) -> Json:
        try:
            request = msgspec.json.decode(frame, type=_Request)
            return {"ok": await self._answer(request.op, parse(request.selection), request.body)}
        except (ToolError, OSError, msgspec.MsgspecError) as error:
            return {"error": str(error) or type(error).__name__}


class _Request(msgspec.Struct):
    op: str
    selection: dict[str, object]
    body: str | None = None


class Remote:
    """The command line's side: blocking calls to a running process."""

    def __init__(self, folder: Path, timeout_s: float = 30.0) -> None:
        """Connect. Raises OSError where nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            with _address(folder) as path:
                self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def call(self, operation: str, selection: Selection, body: str | None = None) -> Json:
        """Run an operation there. Raises ToolError with its reason, also when the process went away."""
        request: Json = {"op": operation, "selection": as_arguments(selection), "body": body}
        try:
            self._socket.sendall(_frame(request))
            (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
            frame = self._receive(length)
        except OSError as error:
            why = str(error) or type(error).__name__
            raise ToolError(f"the sidecar went away meanwhile ({why}): run the command again") from error
        answer = msgspec.json.decode(frame, type=dict[str, dict[str, object] | str])
        result = answer.get("ok")
        if not isinstance(result, dict):
            raise ToolError(str(answer.get("error")))
        return result

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise ConnectionResetError("the process hung up")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MAX_FRAME:
        raise ToolError("the frame is too large")
    return await reader.readexactly(length)


def _frame(message: Json) -> bytes:
    data = msgspec.json.encode(message)
    return _LENGTH.pack(len(data)) + data


@contextlib.contextmanager
def _address(folder: Path) -> Generator[str]:
    """The socket's address, short enough for the kernel."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
