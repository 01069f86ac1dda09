"""Access log messages as Envoy writes them, and as it never would."""

import math

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import UInt32Value
from hypothesis import given
from hypothesis import strategies as st

from extproc.pb.access_log_pb2 import (
    POST,
    AccessLogCommon,
    AccessLogType,
    DownstreamEnd,
    DownstreamPeriodic,
    HttpAccessLogEntry,
    HttpRequestProperties,
    HttpResponseProperties,
    NotSet,
    ResponseFlags,
    StreamAccessLogsMessage,
)
from extproc.reconcile.decoding import decode_entries
from extproc.reconcile.entry import Served


def entry(kind: AccessLogType.ValueType = DownstreamEnd, **said: float | bool) -> HttpAccessLogEntry:
    """An entry; ``said`` is the capture filter's own account."""
    account = Struct()
    account.update(said)
    packed = AnyMessage()
    packed.Pack(account)
    return HttpAccessLogEntry(
        common_properties=AccessLogCommon(
            start_time=Timestamp(seconds=1000, nanos=5),
            duration=Duration(seconds=2),
            time_to_first_upstream_tx_byte=Duration(nanos=100),
            response_flags=ResponseFlags(downstream_connection_termination=True),
            filter_state_objects={"steno": packed} if said else {},
            access_log_type=kind,
        ),
        request=HttpRequestProperties(
            request_method=POST,
            authority="api.test",
            path="/v1/messages",
            request_id="r-1",
            request_body_bytes=10,
        ),
        response=HttpResponseProperties(
            response_code=UInt32Value(value=200),
            response_body_bytes=20,
            response_code_details="via_upstream",
        ),
    )


def message(*entries: HttpAccessLogEntry) -> bytes:
    """A serialised message."""
    return StreamAccessLogsMessage(
        http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
    ).SerializeToString()


def test_everything_that_reconciliation_reads_is_there() -> None:
    assert decode_entries(message(entry(failed_open=True, bytes_sent=30)), "steno") == [
        Served(
            request_id="r-1",
            start_ns=1000 * 10**9 + 5,
            duration_ns=2 * 10**9,
            method="POST",
            host="api.test",
            path="/v1/messages",
            status=200,
            details="via_upstream",
            flags=("downstream_connection_termination",),
            request_bytes=10,
            response_bytes=20,
            forwarded=True,
            failed_open=True,
            capture_bytes=30,
        )
    ]


def test_only_finished_requests_count() -> None:
    unfinished = entry()
    unfinished.common_properties.intermediate_log_entry = True
    entries = decode_entries(message(entry(), entry(DownstreamPeriodic), entry(NotSet), unfinished), "steno")
    assert entries is not None
    assert len(entries) == 2


def test_a_request_that_reached_no_upstream_is_not_forwarded() -> None:
    local = entry()
    local.common_properties.ClearField("time_to_first_upstream_tx_byte")
    (found,) = decode_entries(message(local), "steno") or []
    assert not found.forwarded


def test_without_the_capture_filters_account_nothing_is_said_of_it() -> None:
    strange = entry()
    strange.common_properties.filter_state_objects["steno"].Pack(Timestamp())
    for each in (entry(), strange):
        (found,) = decode_entries(message(each), "steno") or []
        assert (found.failed_open, found.capture_bytes) == (None, None)


def test_numbers_that_are_none_are_left_out() -> None:
    for number in (math.nan, math.inf):
        (found,) = decode_entries(message(entry(bytes_sent=number)), "steno") or []
        assert found.capture_bytes is None


def test_a_request_id_is_cut_and_a_missing_one_is_empty() -> None:
    long, none = entry(), entry()
    long.request.request_id, none.request.request_id = "x" * 500, "-"
    entries = decode_entries(message(long, none), "steno") or []
    assert [each.request_id for each in entries] == ["x" * 128, ""]


@given(st.binary(max_size=200))
def test_any_bytes_are_entries_or_unreadable(data: bytes) -> None:
    found = decode_entries(data, "steno")
    assert found is None or all(isinstance(each, Served) for each in found)


@given(st.integers(0, 400), st.integers(0, 255))
def test_damaged_messages_are_entries_or_unreadable(at: int, value: int) -> None:
    """One byte of a real message changed: nothing escapes as an exception."""
    data = bytearray(message(entry(failed_open=False, bytes_sent=3)))
    data[at % len(data)] = value
    found = decode_entries(bytes(data), "steno")
    assert found is None or all(isinstance(each, Served) for each in found)
