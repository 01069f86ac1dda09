"""TLS and mutual TLS. The certificates beside this file are for tests alone: nobody trusts them."""

from pathlib import Path

import grpc
import pytest

from extproc.transport.address import TcpAddress
from extproc.transport.base import ServerTls
from tests.unit.extproc.transport.conftest import MakeTransport
from tests.unit.extproc.transport.peer import Peer, Recorder, exchange, status

CERTIFICATES = Path(__file__).parent / "certificates"


def pem(name: str) -> bytes:
    return (CERTIFICATES / name).read_bytes()


ONE_WAY = ServerTls(pem("server.pem"), pem("server.key"))
MUTUAL = ServerTls(pem("server.pem"), pem("server.key"), client_ca=pem("ca.pem"))
ANONYMOUS = grpc.ssl_channel_credentials(pem("ca.pem"))
KNOWN = grpc.ssl_channel_credentials(pem("ca.pem"), pem("client.key"), pem("client.pem"))


@pytest.mark.parametrize(
    ("tls", "credentials", "code"),
    [
        pytest.param(ONE_WAY, ANONYMOUS, grpc.StatusCode.OK, id="tls"),
        pytest.param(MUTUAL, KNOWN, grpc.StatusCode.OK, id="mutual tls"),
        pytest.param(MUTUAL, ANONYMOUS, grpc.StatusCode.UNAVAILABLE, id="no client certificate"),
        pytest.param(ONE_WAY, None, grpc.StatusCode.UNAVAILABLE, id="plain text"),
    ],
)
async def test_only_a_peer_with_the_right_credentials_is_heard(
    make_transport: MakeTransport,
    tls: ServerTls,
    credentials: grpc.ChannelCredentials | None,
    code: grpc.StatusCode,
) -> None:
    recorder = Recorder()
    transport = make_transport(TcpAddress("127.0.0.1", 0), recorder, tls=tls)
    await transport.start()
    async with Peer(transport.address, credentials) as peer:
        call = peer.call()
        try:
            for message in exchange(observe=True):
                await call.write(message)
        except grpc.RpcError:
            assert code is not grpc.StatusCode.OK
        assert await status(call) is code
    await transport.stop(0)
    assert len(recorder.streams) == (1 if code is grpc.StatusCode.OK else 0)
