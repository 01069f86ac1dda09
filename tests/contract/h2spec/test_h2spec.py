"""h2spec, a pinned release, against the transport that speaks HTTP/2 itself: every case passes."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from extproc.transport.address import TcpAddress
from extproc.transport.http2.server import Http2Transport
from tests.paths import needs
from tests.unit.extproc.transport.peer import Recorder

MODULE = Path(__file__).parent
PROGRAM = "github.com/summerwind/h2spec/cmd/h2spec"

needs_go = needs(shutil.which("go") is not None, "Go is absent: h2spec cannot be built")


async def output_of(*command: str) -> str:
    """What a program says, whatever it returns."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=MODULE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(240):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return said.decode()


@needs_go
@pytest.mark.timeout(600)
async def test_h2spec_passes_completely_and_skips_nothing(tmp_path: Path) -> None:
    """Generic and HPACK sections included."""
    program = tmp_path / "h2spec"
    built = await output_of("go", "build", "-mod=mod", "-o", str(program), PROGRAM)
    assert program.exists(), built
    transport = Http2Transport(TcpAddress("127.0.0.1", 0), Recorder())
    await transport.start()
    try:
        assert isinstance(transport.address, TcpAddress)
        port = str(transport.address.port)
        said = await output_of(str(program), "-h", "127.0.0.1", "-p", port, "-o", "5")
    finally:
        await transport.stop(0)
    totals = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", said)
    assert totals, said
    tests, passed, skipped, failed = map(int, totals.groups())
    assert (tests > 140, passed, skipped, failed) == (True, tests, 0, 0), said[said.rfind("Failures:") :]
