"""Protobuf ↔ events: the only module that touches generated message types.

``decode`` turns one ``ProcessingRequest`` into an event, ``encode`` one answer into a
``ProcessingResponse``; both in their serialised form, because that is what every
transport has in its hands. Decoding never raises on what a peer sent: bytes that are
not such a message, or a kind of message that is not known here, come back as a value
for the caller to count.
"""

import json
from collections.abc import Mapping
from enum import StrEnum, unique
from functools import lru_cache
from typing import assert_never

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from extproc.events import (
    Answer,
    AnswerBody,
    AnswerHeaders,
    AnswerTrailers,
    Body,
    BodyMode,
    BodyModes,
    EchoBody,
    Headers,
    Side,
    Trailers,
)
from extproc.pb.ext_proc_pb2 import (
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
    TrailersResponse,
)
from extproc.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse

PROCESS_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
PROCESS_METHOD = "Process"
HEALTH_SERVICE = "grpc.health.v1.Health"


@unique
class Undecodable(StrEnum):
    """Why a message became no event. The values are metric labels."""

    MALFORMED = "malformed"
    UNKNOWN_KIND = "unknown_kind"


@unique
class Serving(StrEnum):
    """The answers of ``grpc.health.v1``."""

    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


_USUAL_NAME = 64
"""Longer names than this many characters are nobody's usual ones."""

_REQUEST = Side.REQUEST
_RESPONSE = Side.RESPONSE

# A mode from the future, and GRPC (its messages have flags that events do not carry), is
# treated as the one mode in which a body must be given back lest its bytes be lost.
_MODES: Mapping[int, BodyMode] = {
    ProcessingMode.NONE: BodyMode.NONE,
    ProcessingMode.STREAMED: BodyMode.STREAMED,
    ProcessingMode.BUFFERED: BodyMode.BUFFERED,
    ProcessingMode.BUFFERED_PARTIAL: BodyMode.BUFFERED_PARTIAL,
    ProcessingMode.FULL_DUPLEX_STREAMED: BodyMode.FULL_DUPLEX_STREAMED,
}

_SERVING: Mapping[Serving, HealthCheckResponse.ServingStatus.ValueType] = {
    Serving.SERVING: HealthCheckResponse.SERVING,
    Serving.NOT_SERVING: HealthCheckResponse.NOT_SERVING,
    Serving.SERVICE_UNKNOWN: HealthCheckResponse.SERVICE_UNKNOWN,
}


def decode(message: bytes) -> Headers | Body | Trailers | Undecodable:
    """The event that a serialised ``ProcessingRequest`` describes.

    Never raises on peer data. Runs once for every body chunk: the body kinds come first,
    and what only a stream's first message has is looked for only where it can be.
    """
    try:
        request = ProcessingRequest.FromString(message)
    except DecodeError:
        return Undecodable.MALFORMED
    match request.WhichOneof("request"):
        case "response_body":  # by far most messages: no call more than they need
            body = request.response_body
            observe = request.observability_mode
            return Body(
                _RESPONSE, body.body, body.end_of_stream, observe, None if observe else _modes(request)
            )
        case "request_body":
            return _body(_REQUEST, request.request_body, request)
        case "request_headers":
            return _headers(_REQUEST, request.request_headers, request)
        case "response_headers":
            return _headers(_RESPONSE, request.response_headers, request)
        case "request_trailers":
            return Trailers(_REQUEST, request.observability_mode, _modes(request))
        case "response_trailers":
            return Trailers(_RESPONSE, request.observability_mode, _modes(request))
        case None:
            return Undecodable.UNKNOWN_KIND


def _body(side: Side, body: HttpBody, request: ProcessingRequest) -> Body:
    """One body message."""
    observe = request.observability_mode
    modes = None if observe else _modes(request)
    return Body(side, body.body, body.end_of_stream, observe, modes)


def _headers(side: Side, message: HttpHeaders, request: ProcessingRequest) -> Headers:
    """One headers message, with the attributes that came along."""
    return Headers(
        side=side,
        headers=tuple((_name(each.key), _value(each)) for each in message.headers.headers),
        end_of_stream=message.end_of_stream,
        observe=request.observability_mode,
        modes=_modes(request),
        attributes=_attributes(request.attributes),
    )


def _name(key: str) -> str:
    """A header's name in lower case."""
    return _usual(key) if len(key) <= _USUAL_NAME else key.lower()


@lru_cache(maxsize=512)
def _usual(key: str) -> str:
    """The names in use are few: each is kept once, not once for every open exchange.

    ``sys.intern`` would keep what a hostile peer makes up for ever, in CPython 3.12.
    """
    return key.lower()


def _value(header: HeaderValue) -> str:
    """A header's value; ``raw_value`` is what Envoy sends, ``value`` its older form."""
    return header.raw_value.decode("utf-8", "surrogateescape") if header.raw_value else header.value


def _modes(request: ProcessingRequest) -> BodyModes | None:
    """The body modes, where the message says them (a stream's first, when answers are read)."""
    if not request.HasField("protocol_config"):
        return None
    config: ProtocolConfiguration = request.protocol_config
    return BodyModes(request=_mode(config.request_body_mode), response=_mode(config.response_body_mode))


def _mode(number: int) -> BodyMode:
    """A ``BodySendMode`` by its number."""
    return _MODES.get(number, BodyMode.FULL_DUPLEX_STREAMED)


def _attributes(by_filter: Mapping[str, Struct]) -> dict[str, str]:
    """All attributes, name to text. One filter sends them, so its name says nothing."""
    return {name: _text(value) for struct in by_filter.values() for name, value in struct.fields.items()}


def _text(value: Value) -> str:
    """An attribute's value as text: numbers without a needless ``.0``, the rest as JSON."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return f"{value.number_value:.15g}"
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "struct_value" | "list_value":
            return json.dumps(MessageToDict(value), ensure_ascii=False, sort_keys=True)
        case "null_value" | None:
            return ""


def encode(answer: Answer) -> bytes:
    """The serialised ``ProcessingResponse`` that gives ``answer`` to Envoy: of the kind it waits for."""
    request = answer.side is _REQUEST
    match answer:
        case AnswerBody():
            return _PASS_BODY[request]
        case EchoBody():
            return _echo(request, answer)
        case AnswerHeaders():
            return _without(request, answer.remove) if answer.remove else _PASS_HEADERS[request]
        case AnswerTrailers():
            return _PASS_TRAILERS[request]
        case _:  # pragma: no cover
            assert_never(answer)


def _echo(request: bool, answer: EchoBody) -> bytes:
    """Forward exactly these bytes. Filled in place: nested constructors cost twice as much."""
    response = ProcessingResponse()
    body = response.request_body if request else response.response_body
    echoed = body.response.body_mutation.streamed_response
    echoed.body = answer.data
    echoed.end_of_stream = answer.end_of_stream
    echoed.SetInParent()  # an empty last message must still be there
    return response.SerializeToString()


def _without(request: bool, names: tuple[str, ...]) -> bytes:
    """Let the headers pass, without those named."""
    response = ProcessingResponse()
    headers = response.request_headers if request else response.response_headers
    headers.response.header_mutation.remove_headers.extend(names)
    return response.SerializeToString()


# The answers that never vary, by "is it the request's side?".
_PASS_HEADERS: Mapping[bool, bytes] = {
    True: ProcessingResponse(request_headers=HeadersResponse(response=CommonResponse())).SerializeToString(),
    False: ProcessingResponse(
        response_headers=HeadersResponse(response=CommonResponse())
    ).SerializeToString(),
}
_PASS_BODY: Mapping[bool, bytes] = {
    True: ProcessingResponse(request_body=BodyResponse(response=CommonResponse())).SerializeToString(),
    False: ProcessingResponse(response_body=BodyResponse(response=CommonResponse())).SerializeToString(),
}
_PASS_TRAILERS: Mapping[bool, bytes] = {
    True: ProcessingResponse(request_trailers=TrailersResponse()).SerializeToString(),
    False: ProcessingResponse(response_trailers=TrailersResponse()).SerializeToString(),
}


def decode_health_check(message: bytes) -> str | None:
    """The service that a serialised ``HealthCheckRequest`` asks about; None when malformed."""
    try:
        return HealthCheckRequest.FromString(message).service
    except DecodeError:
        return None


def encode_health(serving: Serving) -> bytes:
    """A serialised ``HealthCheckResponse``."""
    return HealthCheckResponse(status=_SERVING[serving]).SerializeToString()
