"""Every fuzz target, for a bounded number of runs from its seeds. Longer by hand: ``tests/fuzz/__main__.py``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.paths import PROJECT, needs

RUNS = 3000
MAX_SECONDS = 4

needs_atheris = needs(
    importlib.util.find_spec("atheris") is not None, "atheris is not installed: fuzz targets are not run"
)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_pass(name: str) -> None:
    target: Target = TARGETS[name]
    for seed in target.seeds:
        for choice in range(256):
            target.check(choice, seed)


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_bounded_run_finds_nothing(name: str, tmp_path: Path) -> None:
    """libFuzzer exits with 0 only when no input raised; a failing input is shown as it prints it."""
    bounds = [f"-runs={RUNS}", f"-max_total_time={MAX_SECONDS}", "-seed=1", "-print_final_stats=1"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, *bounds],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path)},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    output = run.stdout.decode(errors="replace")
    assert run.returncode == 0, output[-5000:]
    assert "stat::number_of_executed_units" in output
