"""grpc-go and gRPC core as clients of both transports: nobody can tell which client or which server it was.

Envoy, the third client, is in ``tests/e2e``. Not compared: compressed messages, which gRPC
core's server inflates and ours refuses with UNIMPLEMENTED, as it never offered to.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from extproc.pb.ext_proc_pb2 import ProcessingMode
from extproc.pb.health_pb2 import HealthCheckRequest
from extproc.transport.address import TcpAddress
from extproc.transport.base import Transport
from extproc.wire import HEALTH_SERVICE
from tests.paths import needs
from tests.unit.extproc.transport.conftest import TRANSPORTS
from tests.unit.extproc.transport.peer import PROCESS, Method, Passing, Peer, both, exchange

MODULE = Path(__file__).parent
STREAMED = exchange(observe=False, modes=both(ProcessingMode.STREAMED))
DUPLEX = exchange(observe=False, modes=both(ProcessingMode.FULL_DUPLEX_STREAMED))
LARGE = exchange(
    observe=False, modes=both(ProcessingMode.FULL_DUPLEX_STREAMED), chunks=[bytes(range(256)) * 12_000]
)
OBSERVED = exchange(observe=True)
ASK = [HealthCheckRequest(service=name).SerializeToString() for name in ("", "another")]

needs_go = needs(shutil.which("go") is not None, "Go is absent: the grpc-go client cannot be built")


class Case(msgspec.Struct, frozen=True):
    """One RPC. ``awaits``: how many answers are read after each message."""

    path: str
    messages: list[bytes]
    awaits: list[int]
    half_close: bool = False
    timeout_ms: int = 0
    metadata: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True):
    """What came back."""

    answers: list[bytes]
    code: int


def silent(messages: list[bytes], **more: Any) -> Case:
    return Case(PROCESS, messages, [0] * len(messages), **more)


CASES: dict[str, Case] = {
    "observed": silent(OBSERVED),
    "observed, and the peer ends": silent(OBSERVED[:3], half_close=True),
    "nothing but a head": silent([], half_close=True, metadata={"x-request-id": "r"}),
    "streamed, one by one": Case(PROCESS, STREAMED, [1] * 8),
    "streamed, at once": Case(PROCESS, STREAMED, [0] * 7 + [8]),
    "full duplex": Case(PROCESS, DUPLEX, [1] * 8),
    "full duplex, 3 MB": Case(PROCESS, LARGE, [1] * 6),
    "malformed": Case(PROCESS, [STREAMED[0], b"\xff\xff"], [1, 0]),
    "malformed, observed": silent([OBSERVED[0], b"\xff\xff", OBSERVED[-1]]),
    "a deadline": silent(OBSERVED[:1], timeout_ms=2000),
    "no such method": Case("/envoy.service.ext_proc.v3.ExternalProcessor/Other", [], [], half_close=True),
    "no such service": Case("/x.Y/Z", [], [], half_close=True),
    "health": Case(f"/{HEALTH_SERVICE}/Check", ASK[:1], [0], half_close=True),
    "health of another": Case(f"/{HEALTH_SERVICE}/Check", ASK[1:], [0], half_close=True),
    "health asked wrongly": Case(f"/{HEALTH_SERVICE}/Check", [b"\xff\xff"], [0], half_close=True),
}
# Enough at once for streams to share reads and writes.
ALL = [*CASES.values()] * 8


async def of_go(program: Path, transport: Transport) -> list[Result]:
    """What grpc-go hears."""
    process = await asyncio.create_subprocess_exec(
        program, str(transport.address), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate(msgspec.json.encode(ALL))
    return msgspec.json.decode(said, type=list[Result])


async def of_core(transport: Transport) -> list[Result]:
    """What gRPC core hears."""
    async with Peer(transport.address) as peer, asyncio.timeout(120):
        return await asyncio.gather(*(one(peer, case) for case in ALL))


async def one(peer: Peer, case: Case) -> Result:
    """One RPC through gRPC core."""
    method: Method = peer.channel.stream_stream(case.path)
    call = method(
        metadata=grpc.aio.Metadata(*case.metadata.items()),
        timeout=case.timeout_ms / 1e3 if case.timeout_ms else None,
    )
    answers: list[bytes] = []
    try:
        for message, awaited in zip(case.messages, case.awaits, strict=True):
            await call.write(message)
            answers += [await read(call) for _ in range(awaited)]
        if case.half_close:
            await call.done_writing()
        while True:
            answer = await call.read()
            if not isinstance(answer, bytes):
                break
            answers.append(answer)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the code says it
    return Result(answers, (await call.code()).value[0])


async def read(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> bytes:
    """The next answer; there must be one."""
    got = await call.read()
    assert isinstance(got, bytes)
    return got


@needs_go
@pytest.mark.timeout(900)
async def test_no_client_can_tell_the_transports_apart(tmp_path: Path) -> None:
    """Four pairs of client and server, one table of cases, the same answers and codes."""
    program = tmp_path / "client"
    building = await asyncio.create_subprocess_exec(
        "go", "build", "-o", program, ".", cwd=MODULE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(building.communicate(), 240)
    assert building.returncode == 0, said.decode()
    results: dict[str, list[Result]] = {}
    for name, make in TRANSPORTS.items():
        transport = make(TcpAddress("127.0.0.1", 0), Passing())
        await transport.start()
        try:
            transport.health.serving = True
            results[f"grpc-go with {name}"] = await of_go(program, transport)
            results[f"gRPC core with {name}"] = await of_core(transport)
        finally:
            await transport.stop(0)
    expected = results["gRPC core with grpcio"]
    for pair, found in results.items():
        for number, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            assert got == wanted, (pair, list(CASES)[number % len(CASES)])
    codes = {name: expected[number].code for number, name in enumerate(CASES)}
    assert codes["full duplex, 3 MB"] == codes["observed"] == 0
    assert (codes["a deadline"], codes["no such service"], codes["health of another"]) == (4, 12, 5)
