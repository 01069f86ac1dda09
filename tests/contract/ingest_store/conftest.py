"""Fixtures for the tests of the ingest service."""

from tests.unit.ingest.conftest import patient
from tests.unit.ingest.engines import database_url

__all__ = ["database_url", "patient"]
