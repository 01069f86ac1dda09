"""The benches run: a bench that nobody has started for a month tells nothing."""

import asyncio
import sys

import pytest

from tests.paths import PROJECT

ROWS = {
    "bench.transport": ("drain bare", "http2 bare", "http2 full", "http2 full, reply"),
    "bench.paced": ("http2 rested",),
    "bench.memory": ("http2",),
    "bench.scale": ("2",),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", ROWS)
async def test_a_bench_runs_in_its_short_form_and_prints_its_table(module: str) -> None:
    more = ["--transport=http2"] if module == "bench.memory" else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--smoke", *more),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 540)
    finally:
        if process.returncode is None:
            process.terminate()  # it ends what it has started
            await process.wait()
    assert process.returncode == 0, errors.decode()
    rows = [line.split("|")[1].strip() for line in output.decode().splitlines() if line.startswith("|")]
    assert set(ROWS[module]) <= set(rows)
