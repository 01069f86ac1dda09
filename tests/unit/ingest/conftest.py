"""Fixtures for the tests of the ingest service."""

from collections.abc import Generator

import pytest

from ingest import administering, condition, reading
from tests.unit.ingest.engines import database_url

__all__ = ["database_url", "patient"]


@pytest.fixture(autouse=True)
def patient() -> Generator[None]:
    """What an answer waits for, it waits for longer than users like to: a busy machine changes no answer.

    A test of one of these limits sets its own.
    """
    with pytest.MonkeyPatch.context() as waiting:
        waiting.setattr(reading, "_CATCH_UP_S", 20.0)
        waiting.setattr(administering, "_SETTLE_S", 20.0)
        waiting.setattr(condition, "_PROBE_S", 20.0)
        waiting.setattr(condition, "_BACKLOG_S", 20.0)
        yield
