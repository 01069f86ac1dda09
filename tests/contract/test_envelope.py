"""The envelope and thread corpora: what request headers say about the caller."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from capture.envelope import Session, read_envelope, read_session
from tests.paths import CORPORA, needs_shared

ENVELOPES = sorted((CORPORA / "envelope" / "cases").glob("*.json"))
THREADS = sorted((CORPORA / "thread" / "cases").glob("*.json"))

# The one recorded deviation from this corpus, the reference sidecar's own: metadata
# that is no object is dropped by a sidecar (ingest refuses it).
DIFFERENCES = {"error-metadata-not-object": "a sidecar drops the field instead of losing the turn"}


@needs_shared
@pytest.mark.parametrize("case", ENVELOPES, ids=lambda path: path.stem)
def test_headers_read_as_the_envelope_corpus_says(case: Path) -> None:
    vector = json.loads(case.read_text())
    session = read_session(vector["headers"])
    expected = dict(vector["envelope"])
    expected["harness_id"] = expected.get("harness_id") or "unknown"
    expected["harness_metadata"] = expected.get("harness_metadata") or {}
    if vector.get("error", {}).get("disposition") == "reject-400" and vector["name"] in DIFFERENCES:
        expected["harness_metadata"] = {}
    assert asdict(session) == asdict(Session()) | expected


@needs_shared
@pytest.mark.parametrize("case", THREADS, ids=lambda path: path.stem)
def test_headers_name_the_thread_as_the_corpus_says(case: Path) -> None:
    vector = json.loads(case.read_text())
    assert read_envelope(vector["headers"]).thread_id == vector["thread_id"]


def test_a_session_block_needs_an_x_tapes_header_whatever_identity_says() -> None:
    assert read_envelope({"x-paper-auth-subject": "s"}).session is None
    assert read_envelope({"x-tapes-anything": ""}).session == Session()


def test_the_corpora_are_there_when_shared_is() -> None:
    """An empty parametrisation would pass silently."""
    assert not CORPORA.is_dir() or (len(ENVELOPES) >= 23 and len(THREADS) >= 8)
