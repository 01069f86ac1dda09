"""Access log protobuf → :class:`~extproc.reconcile.entry.Served`. No generated type goes further."""

import math
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from extproc.pb.access_log_pb2 import (
    AccessLogCommon,
    DownstreamEnd,
    HttpAccessLogEntry,
    NotSet,
    RequestMethod,
    StreamAccessLogsMessage,
)
from extproc.reconcile.entry import Served
from extproc.reconcile.summary import shortened

ACCESS_LOG_SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
ACCESS_LOG_METHOD: Final = "StreamAccessLogs"

_AT_THE_END: Final = frozenset((DownstreamEnd, NotSet))
"""``NotSet`` is what an Envoy before 1.27 writes."""


def decode_entries(message: bytes, filter_name: str) -> list[Served] | None:
    """The finished requests of one message, entries about requests in progress left out.

    ``filter_name`` is the capture filter's in Envoy's configuration. None when the message
    cannot be read; never raises on what a peer sent.
    """
    try:
        entries = StreamAccessLogsMessage.FromString(message).http_logs.log_entry
    except DecodeError:
        return None
    return [
        _served(entry, filter_name)
        for entry in entries
        if entry.common_properties.access_log_type in _AT_THE_END
        and not entry.common_properties.intermediate_log_entry
    ]


def _served(entry: HttpAccessLogEntry, filter_name: str) -> Served:
    common, request, response = entry.common_properties, entry.request, entry.response
    failed_open, capture_bytes = _capture(common, filter_name)
    return Served(
        request_id=shortened(request.request_id),
        start_ns=common.start_time.ToNanoseconds(),
        duration_ns=common.duration.ToNanoseconds() or common.time_to_last_downstream_tx_byte.ToNanoseconds(),
        method=_method(request.request_method),
        host=request.authority,
        path=request.original_path or request.path,
        status=response.response_code.value,
        details=response.response_code_details,
        flags=tuple(field.name for field, _ in common.response_flags.ListFields()),
        request_bytes=request.request_body_bytes,
        response_bytes=response.response_body_bytes,
        forwarded=common.HasField("time_to_first_upstream_tx_byte") or common.upstream_wire_bytes_sent > 0,
        failed_open=failed_open,
        capture_bytes=capture_bytes,
    )


def _method(number: "RequestMethod.ValueType") -> str:
    """``POST``; empty when Envoy did not say, or says one that is not known here."""
    return RequestMethod.Name(number) if number in RequestMethod.values() and number else ""


def _capture(common: AccessLogCommon, filter_name: str) -> tuple[bool | None, int | None]:
    """The capture filter's own account: whether it failed open, and the bytes that it sent."""
    packed = common.filter_state_objects.get(filter_name)
    said = Struct()
    try:
        if packed is None or not packed.Unpack(said):
            return None, None
    except DecodeError:
        return None, None
    sent = said.fields["bytes_sent"].number_value if "bytes_sent" in said.fields else math.nan
    failed_open = said.fields["failed_open"].bool_value if "failed_open" in said.fields else False
    return failed_open, int(sent) if math.isfinite(sent) else None
