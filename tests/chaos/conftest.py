"""The real Envoy and Steno's own services, for the tests that kill them."""

from tests.e2e.conftest import (
    ingest,
    logs,
    provider,
    pytest_runtest_makereport,
    short_tmp,
    start_envoy,
)

__all__ = ["ingest", "logs", "provider", "pytest_runtest_makereport", "short_tmp", "start_envoy"]
