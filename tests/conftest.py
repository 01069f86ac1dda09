"""What holds for every test: where all is required, nothing is skipped, and no property is a stopwatch."""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.paths import REQUIRE_ALL

# Hypothesis fails an example that takes a fifth of a second, and a test whose first examples are slow to
# make. On a busy machine both are true of code that is right; pytest's limit ends what really hangs.
settings.register_profile("steno", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steno")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With STENO_REQUIRE_ALL=1 a skip is a failure, whoever asked for it."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"STENO_REQUIRE_ALL=1, but this was skipped: {reason}"
    return report
