"""Where tests find things, and what they skip without.

Everything under ``../shared`` is used in place. With ``STENO_REQUIRE_ALL=1`` (CI)
a missing part is a failure instead of a skip.
"""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"
CORPORA = SHARED / "contracts" / "corpora"
CORPUS = SHARED / "corpus"

REQUIRE_ALL = os.environ.get("STENO_REQUIRE_ALL") == "1"


def needs(present: bool, reason: str) -> pytest.MarkDecorator:
    """Skip visibly when something outside Python is absent; never where CI requires all."""
    return pytest.mark.skipif(not present and not REQUIRE_ALL, reason=reason)


needs_shared = needs(
    SHARED.is_dir(), "../shared is absent: the contract corpora are not beside this checkout"
)
