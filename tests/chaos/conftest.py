"""The real Envoy and Steno's own services, for the tests that kill them; a queue whose balance is asserted."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.chaos.kept_queue import KeptQueue, kept_queue
from tests.e2e.conftest import (
    ingest,
    logs,
    provider,
    pytest_runtest_makereport,
    short_tmp,
    start_envoy,
)

__all__ = ["ingest", "logs", "provider", "pytest_runtest_makereport", "short_tmp", "start_envoy"]


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncGenerator[KeptQueue]:
    """Delivery's queue over a spool on disk; after the test its ledger must hold, and say what happened."""
    async with kept_queue(tmp_path / "spool") as kept:
        yield kept
