"""Turn ids, log lines, merged metrics: the sidecar's smaller parts."""

import json
import logging
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from capture.outcomes import Outcome, State
from extproc.logs import JsonLines
from extproc.metrics import WorkerMetrics
from extproc.settings import decode_settings, encode_settings, need_a_restart
from extproc.transport.address import AddressError, parse_address, worker_address
from extproc.transport.base import TransportCounters
from extproc.turn_ids import TurnIds
from ingest_client.ledger import Ledger
from steno.commands.extproc import sidecar_settings
from steno.settings.load import load


@given(st.lists(st.integers(min_value=0, max_value=2**47 * 1_000_000), min_size=1, max_size=50))
def test_turn_ids_never_repeat_and_never_sort_backwards(clock: list[int]) -> None:
    """Also when the clock stands still or goes back."""
    ids = TurnIds()
    made = [ids.next(wall_ns) for wall_ns in clock for _ in range(3)]
    assert made == sorted(set(made))
    assert all(uuid.UUID(each).version == 7 and uuid.UUID(each).variant == uuid.RFC_4122 for each in made)


def test_a_turn_id_carries_its_milliseconds() -> None:
    assert uuid.UUID(TurnIds().next(1_790_000_000_123_456_789)).int >> 80 == 1_790_000_000_123


@pytest.mark.parametrize("hostile", ["a\nb", 'x"}\r\n{"level":"error"', "\x1b[2J\x00", "\u2028"])
def test_no_value_can_forge_a_log_line(hostile: str) -> None:
    record = logging.makeLogRecord({"msg": hostile, "levelname": "INFO", "tenant": hostile})
    line = JsonLines("worker-0").format(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["tenant"] == hostile


def test_a_log_line_carries_the_exception() -> None:
    error = ValueError("why")
    record = logging.makeLogRecord({"msg": "m", "levelname": "ERROR", "exc_info": (ValueError, error, None)})
    assert "ValueError: why" in json.loads(JsonLines("s").format(record))["exception"]


def test_every_metric_row_exists_from_the_start_and_the_balance_is_shown() -> None:
    ledger = Ledger()
    metrics = WorkerMetrics(ledger, TransportCounters)
    ledger.observe()
    ledger.end(Outcome.POLICY)
    samples = [
        sample
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    ]
    ended = {each.labels["outcome"] for each in samples if each.name == "steno_exchanges_ended_total"}
    states = {each.labels["state"]: each.value for each in samples if each.name == "steno_exchanges"}
    outcomes = {
        each.labels["outcome"]: each.value for each in samples if each.name == "steno_exchange_outcomes"
    }
    assert ended == set(Outcome)
    assert outcomes == {outcome.value: float(outcome is Outcome.POLICY) for outcome in Outcome}
    assert states == {state.value: float(state is State.EXCLUDED) for state in State}
    assert [each.value for each in samples if each.name == "steno_ledger_imbalance"] == [0]


def test_settings_reach_a_worker_unchanged() -> None:
    settings = sidecar_settings(load("extproc", {}, {}))
    assert decode_settings(encode_settings(settings)) == settings


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("listen", "unix:/s"), ("transport", "http2"), ("admin_listen", "127.0.0.1:1"), ("workers", "2"),
        ("data_dir", "/other"), ("access_log_listen", "127.0.0.1:1"), ("access_log_grace", "1s"),
        ("memory_only", "true"),
    ],
)  # fmt: skip
def test_what_the_supervisor_holds_needs_a_restart_and_is_named(name: str, text: str) -> None:
    running = sidecar_settings(load("extproc", {}, {}))
    wanted = sidecar_settings(load("extproc", {f"extproc.{name}": text}, {}))
    assert need_a_restart(running, wanted) == [f"extproc.{name}"]


def test_what_a_worker_reads_needs_none() -> None:
    running = sidecar_settings(load("extproc", {}, {}))
    flags = {"extproc.drain": "1s", "extproc.log_level": "debug", "extproc.ingest_url": "http://other"}
    assert need_a_restart(running, sidecar_settings(load("extproc", flags, {}))) == []


@pytest.mark.parametrize(
    ("listen", "addresses"),
    [
        ("127.0.0.1:50051", ["127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:50053"]),
        ("unix:/s", ["unix:/s", "unix:/s.1", "unix:/s.2"]),
        ("127.0.0.1:0", ["127.0.0.1:0"] * 3),
    ],
)
def test_each_worker_has_an_address_of_its_own(listen: str, addresses: list[str]) -> None:
    assert [str(worker_address(parse_address(listen), index)) for index in range(3)] == addresses


@pytest.mark.parametrize("listen", ["127.0.0.1:65535", "unix:/" + "s" * 105])
def test_a_worker_without_room_for_its_address_is_refused(listen: str) -> None:
    worker_address(parse_address(listen), 0)
    with pytest.raises(AddressError):
        worker_address(parse_address(listen), 1)
