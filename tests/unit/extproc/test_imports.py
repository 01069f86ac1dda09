"""What a process loads that it may not need."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["extproc.worker", "extproc.supervisor"])
def test_what_is_large_is_loaded_only_where_it_is_used(module: str) -> None:
    """The http2 transport needs no gRPC, nor does a supervisor that reads no access log: 10 MiB of each.
    A general HTTP server or client would be as large (docs/decisions/0011).
    """
    code = f"import sys, {module}; sys.exit(' '.join(sys.modules.keys() & {{'grpc', 'aiohttp', 'httpx'}}) or None)"
    found = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True)
    assert (found.returncode, found.stderr) == (0, b"")
