"""The OpenAPI document is true: schemathesis calls every operation with good and bad values."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

from ingest.openapi import document
from ingest.routes import ROUTES
from tests.paths import PROJECT

SERVE = """
import sys
from ingest.app import run
from ingest.settings import IngestSettings
run(IngestSettings(listen="127.0.0.1:0", database_url=sys.argv[1]))
"""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_every_route_is_in_the_document() -> None:
    paths = cast("dict[str, dict[str, object]]", document("1")["paths"])
    assert {(row.path, row.method.lower()) for row in ROUTES} == {
        (path, method) for path, methods in paths.items() for method in methods
    }


def test_schemathesis_finds_no_lie(tmp_path: Path) -> None:
    """Everything but the event stream, which never ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE, f"sqlite:///{tmp_path}/x.db"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert child.stdout is not None
    try:
        url = child.stdout.readline().split()[-1]
        arguments = ["run", f"{url}/openapi", "--checks", CHECKS, "--max-examples", "15", "--seed", "7"]
        arguments += ["--phases", "examples,coverage,fuzzing", "--exclude-path", "/v1/events"]
        arguments += ["--request-timeout", "10", "--no-color"]
        found = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            cwd=tmp_path,
        )
    finally:
        os.kill(child.pid, signal.SIGTERM)
        child.wait(20)
        child.stdout.close()
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", found.stdout)
    assert counted is not None
    assert int(counted[1]) == int(counted[2]) > 500
