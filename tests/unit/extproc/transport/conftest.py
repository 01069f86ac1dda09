"""Every transport, over every kind of address and on both event loops: what passes here is interchangeable."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest
import uvloop

from extproc.transport.address import Address, TcpAddress, UnixAddress
from extproc.transport.base import ServerTls, StreamAcceptor, Transport
from extproc.transport.grpcio import GrpcioTransport
from extproc.transport.http2.server import Http2Transport


class MakeTransport(Protocol):
    """What every transport's constructor takes."""

    def __call__(
        self,
        address: Address,
        acceptor: StreamAcceptor,
        *,
        tls: ServerTls | None = None,
        reuse_port: bool = False,
    ) -> Transport: ...


# Another transport is one more row.
TRANSPORTS: dict[str, MakeTransport] = {"grpcio": GrpcioTransport, "http2": Http2Transport}

# Workers run uvloop; asyncio's own loop must do too, where there is none.
_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
_ON_BOTH_LOOPS = frozenset({"test_contract", "test_tls", "test_resting"})


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What holds of every transport holds on both event loops."""
    both = item.path.stem in _ON_BOTH_LOOPS
    return _LOOPS if both else {"asyncio": _LOOPS["asyncio"]}


Serve: TypeAlias = Callable[[StreamAcceptor], AbstractAsyncContextManager[Transport]]


@pytest.fixture(params=sorted(TRANSPORTS))
def make_transport(request: pytest.FixtureRequest) -> MakeTransport:
    """The constructor of each transport in turn."""
    return TRANSPORTS[request.param]


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """A free address of each kind in turn."""
    return TcpAddress("127.0.0.1", 0) if request.param == "tcp" else UnixAddress(str(tmp_path / "s"))


@pytest.fixture
def serve(make_transport: MakeTransport, address: Address) -> Serve:
    """A function: serve an acceptor on ``address`` for the length of a block."""

    @contextlib.asynccontextmanager
    async def serving(acceptor: StreamAcceptor) -> AsyncGenerator[Transport]:
        transport = make_transport(address, acceptor)
        await transport.start()
        try:
            yield transport
        finally:
            await transport.stop(0)

    return serving
