"""What a heartbeat's answer says; a stranger's says only that it is alive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.endpoints import Readiness
from ingest_client.delivery.heartbeat import Pulse, read_pulse


@pytest.mark.parametrize(
    ("status", "body", "pulse"),
    [
        (200, b'{"status":"ok"}', Pulse(Readiness.READY)),
        (200, b"", Pulse(Readiness.READY)),
        (404, b"no such route", Pulse(Readiness.READY)),
        (401, b"", Pulse(Readiness.READY)),
        (503, b"", Pulse(Readiness.NOT_READY)),
        (502, b"<html>", Pulse(Readiness.NOT_READY)),
        (503, b'{"status":"draining"}', Pulse(Readiness.DRAINING)),
        (200, b'{"status":"draining"}', Pulse(Readiness.DRAINING)),
        (200, b'{"status":"ok","batch":{"turns":50,"bytes":9}}', Pulse(Readiness.READY, 50, 9)),
        (200, b'{"status":"ok","batch":{"turns":"many"}}', Pulse(Readiness.READY)),
    ],
)
def test_a_pulse_is_read(status: int, body: bytes, pulse: Pulse) -> None:
    assert read_pulse(status, body) == pulse


@given(st.integers(200, 599), st.binary())
def test_any_answer_is_read_without_an_error(status: int, body: bytes) -> None:
    assert isinstance(read_pulse(status, body).readiness, Readiness)
