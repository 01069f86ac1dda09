"""What a process loads that it may not need."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["extproc.worker", "extproc.supervisor"])
def test_grpc_is_loaded_only_where_it_is_spoken(module: str) -> None:
    """The http2 transport needs no gRPC, nor does a supervisor that reads no access log: 10 MiB of each."""
    code = f"import sys, {module}; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
