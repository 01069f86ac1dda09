"""The latency benchmark runs and reports (T3); its numbers are for a quiet machine, and no test's business."""

import asyncio
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.envoy import MARKS, Report, chunks_of, inserted, merged, percentile, verdict
from bench.envoy_clients import Times
from bench.envoy_rig import Measured, Way
from tests.paths import PROJECT


@pytest.mark.timeout(600)
async def test_every_way_through_envoy_is_timed_and_reported(tmp_path: Path) -> None:
    drawing = tmp_path / "plot.svg"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.envoy", "--rounds=1", "--streams=4", "--chunks=10", "--seconds=0.5"),
        f"--plot={drawing}",
        stdout=subprocess.PIPE,
        cwd=PROJECT,
    )
    report = (await process.communicate())[0].decode()
    assert process.returncode == 0
    assert report.startswith("4 streams at once, 1 rounds: 40 chunks and ")
    assert "- turns without an end: 0\n" in report
    assert "nan" not in report
    for way in Way:
        row = next(line for line in report.splitlines() if line.startswith(f"| {way.value} |"))
        assert len(row.split("|")) == 14
    assert report.count("allowed") == 10
    assert len(ET.parse(drawing).findall("{*}polyline")) == len(Way)


def test_what_a_way_adds_is_the_difference_to_both_runs_without_the_filter() -> None:
    one, other, way = ([phase([low, low + 1, low + 2])] for low in (10.0, 14.0, 20.0))
    report = Report(
        {Way.NONE: merged(one), Way.AGAIN: merged(other), Way.GRPCIO: merged(way)}, merged([*one, *other])
    )
    assert percentile(report.plain.chunk_us, 50) == 12.0
    assert report.added_us(Way.GRPCIO, 50, chunks_of) == 21.0 - 12.0
    assert report.added_us(Way.GRPCIO, 99, chunks_of) == 22.0 - 16.0
    assert report.spread_us(50, chunks_of) == 4.0
    assert report.results[Way.GRPCIO].sidecar_cores == 0.25


def phase(chunk_us: list[float]) -> Measured:
    return Measured(Times(chunk_us), Times(), envoy_cpu_s=0.1, sidecar_cpu_s=0.5, wall_s=2.0)


def test_a_report_takes_the_place_of_the_one_before() -> None:
    page = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    once = inserted(page, "new\n")
    assert once == f"before\n{MARKS[0]}\n\nnew\n\n{MARKS[1]}\nafter\n"
    assert inserted(once, "new\n") == once


def test_a_run_that_is_noisier_than_its_target_gives_no_verdict() -> None:
    assert verdict(130.0, target=100.0, spread=40.0) == "holds"
    assert verdict(150.0, target=100.0, spread=40.0) == "DOES NOT HOLD"
    assert "cannot tell" in verdict(0.0, target=100.0, spread=101.0)
