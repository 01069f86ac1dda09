"""Envoy's messages become events, and answers become Envoy's messages."""

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

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
    HeaderMap,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingMode,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from extproc.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from extproc.wire import (
    Serving,
    Undecodable,
    decode,
    decode_health_check,
    encode,
    encode_health,
)

sides = pytest.mark.parametrize("side", list(Side))


def headers_message(*headers: HeaderValue) -> HttpHeaders:
    return HttpHeaders(headers=HeaderMap(headers=headers))


def answered(answer: Answer) -> ProcessingResponse:
    return ProcessingResponse.FromString(encode(answer))


def test_request_headers_keep_their_order_and_repetitions_and_lose_their_capitals() -> None:
    message = ProcessingRequest(
        request_headers=HttpHeaders(
            headers=HeaderMap(
                headers=[
                    HeaderValue(key=":path", raw_value=b"/v1/messages"),
                    HeaderValue(key="Accept", raw_value=b"a"),
                    HeaderValue(key="accept", raw_value=b"b"),
                ]
            ),
            end_of_stream=True,
        )
    )
    assert decode(message.SerializeToString()) == Headers(
        side=Side.REQUEST,
        headers=((":path", "/v1/messages"), ("accept", "a"), ("accept", "b")),
        end_of_stream=True,
        observe=False,
    )


def test_response_headers_are_of_the_response() -> None:
    message = ProcessingRequest(response_headers=headers_message(), observability_mode=True)
    assert decode(message.SerializeToString()) == Headers(
        Side.RESPONSE, (), end_of_stream=False, observe=True
    )


def test_a_raw_value_outweighs_the_older_text_value_which_counts_alone_otherwise() -> None:
    message = ProcessingRequest(
        request_headers=headers_message(
            HeaderValue(key="both", value="text", raw_value=b"raw"), HeaderValue(key="old", value="text")
        )
    )
    event = decode(message.SerializeToString())
    assert isinstance(event, Headers)
    assert event.headers == (("both", "raw"), ("old", "text"))


@given(value=st.binary(min_size=1))
def test_no_byte_of_a_header_value_is_lost(value: bytes) -> None:
    message = ProcessingRequest(request_headers=headers_message(HeaderValue(key="k", raw_value=value)))
    event = decode(message.SerializeToString())
    assert isinstance(event, Headers)
    assert event.headers[0][1].encode("utf-8", "surrogateescape") == value


@given(data=st.binary(), end=st.booleans(), observe=st.booleans())
def test_a_body_message_of_either_side_is_its_bytes_and_its_end(
    data: bytes, end: bool, observe: bool
) -> None:
    body = HttpBody(body=data, end_of_stream=end)
    request = ProcessingRequest(request_body=body, observability_mode=observe)
    response = ProcessingRequest(response_body=body, observability_mode=observe)
    assert decode(request.SerializeToString()) == Body(Side.REQUEST, data, end, observe)
    assert decode(response.SerializeToString()) == Body(Side.RESPONSE, data, end, observe)


def test_an_empty_body_message_with_the_end_of_stream_is_still_a_body_message() -> None:
    message = ProcessingRequest(response_body=HttpBody(end_of_stream=True))
    assert decode(message.SerializeToString()) == Body(Side.RESPONSE, b"", end_of_stream=True, observe=False)


def test_trailers_of_either_side_are_told_apart() -> None:
    request = ProcessingRequest(request_trailers=HttpTrailers(), observability_mode=True)
    response = ProcessingRequest(response_trailers=HttpTrailers())
    assert decode(request.SerializeToString()) == Trailers(Side.REQUEST, observe=True)
    assert decode(response.SerializeToString()) == Trailers(Side.RESPONSE, observe=False)


@pytest.mark.parametrize(
    ("number", "mode"),
    [
        (ProcessingMode.NONE, BodyMode.NONE),
        (ProcessingMode.STREAMED, BodyMode.STREAMED),
        (ProcessingMode.BUFFERED, BodyMode.BUFFERED),
        (ProcessingMode.BUFFERED_PARTIAL, BodyMode.BUFFERED_PARTIAL),
        (ProcessingMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED),
        (ProcessingMode.GRPC, BodyMode.FULL_DUPLEX_STREAMED),
    ],
)
def test_the_first_message_says_the_body_modes(
    number: ProcessingMode.BodySendMode.ValueType, mode: BodyMode
) -> None:
    message = ProcessingRequest(
        request_headers=headers_message(),
        protocol_config=ProtocolConfiguration(
            request_body_mode=number, response_body_mode=ProcessingMode.BUFFERED
        ),
    )
    event = decode(message.SerializeToString())
    assert isinstance(event, Headers)
    assert event.modes == BodyModes(request=mode, response=BodyMode.BUFFERED)


def test_a_mode_from_the_future_is_answered_like_the_one_that_gives_bytes_back() -> None:
    # protocol_config {request_body_mode: 77}, ahead of any generated enum
    event = decode(
        ProcessingRequest(request_headers=headers_message()).SerializeToString() + b"\x5a\x02\x08\x4d"
    )
    assert isinstance(event, Headers)
    assert event.modes == BodyModes(request=BodyMode.FULL_DUPLEX_STREAMED, response=BodyMode.NONE)


def test_modes_may_come_with_a_body_where_headers_are_skipped() -> None:
    message = ProcessingRequest(
        response_body=HttpBody(body=b"x"),
        protocol_config=ProtocolConfiguration(response_body_mode=ProcessingMode.STREAMED),
    )
    event = decode(message.SerializeToString())
    assert isinstance(event, Body)
    assert event.modes == BodyModes(request=BodyMode.NONE, response=BodyMode.STREAMED)


def test_attributes_are_flattened_to_text() -> None:
    values = Struct()
    values.update(
        {
            "request.id": "abc",
            "response.code": 200,
            "ratio": 0.5,
            "connection.mtls": True,
            "xds.route_metadata": {"tenant": "zürich"},
            "names": ["a", 1],
            "upstream.address": None,
        }
    )
    message = ProcessingRequest(
        request_headers=headers_message(), attributes={"envoy.filters.http.ext_proc": values}
    )
    event = decode(message.SerializeToString())
    assert isinstance(event, Headers)
    assert event.attributes == {
        "request.id": "abc",
        "response.code": "200",
        "ratio": "0.5",
        "connection.mtls": "true",
        "xds.route_metadata": '{"tenant": "zürich"}',
        "names": '["a", 1.0]',
        "upstream.address": "",
    }


@given(number=st.integers(min_value=0, max_value=2**49))
def test_a_whole_attribute_number_has_no_fraction_and_no_exponent(number: int) -> None:
    values = Struct()
    values["n"] = number
    event = decode(
        ProcessingRequest(request_headers=headers_message(), attributes={"f": values}).SerializeToString()
    )
    assert isinstance(event, Headers)
    assert event.attributes == {"n": str(number)}


def test_a_message_of_no_known_kind_is_named_so() -> None:
    unknown_kind = b"\xa2\x06\x02hi"  # field 100, length-delimited
    assert decode(unknown_kind) is Undecodable.UNKNOWN_KIND
    assert decode(b"") is Undecodable.UNKNOWN_KIND


def test_bytes_that_are_no_message_are_named_so() -> None:
    assert decode(b"\xff\xff\xff") is Undecodable.MALFORMED


@given(noise=st.binary())
def test_decoding_never_raises(noise: bytes) -> None:
    assert decode(noise) is not None


@sides
def test_headers_pass_unchanged(side: Side) -> None:
    answer = answered(AnswerHeaders(side))
    assert answer.WhichOneof("response") == f"{side}_headers"
    headers = answer.request_headers if side is Side.REQUEST else answer.response_headers
    assert headers.HasField("response")
    assert not headers.response.HasField("header_mutation")


@sides
def test_headers_pass_without_those_to_be_removed(side: Side) -> None:
    answer = answered(AnswerHeaders(side, remove=("x-steno-tenant", "x-tapes-agent")))
    assert answer.WhichOneof("response") == f"{side}_headers"
    headers = answer.request_headers if side is Side.REQUEST else answer.response_headers
    assert list(headers.response.header_mutation.remove_headers) == ["x-steno-tenant", "x-tapes-agent"]


@sides
def test_a_body_passes_unchanged(side: Side) -> None:
    answer = answered(AnswerBody(side))
    assert answer.WhichOneof("response") == f"{side}_body"
    body = answer.request_body if side is Side.REQUEST else answer.response_body
    assert body.HasField("response")
    assert not body.response.HasField("body_mutation")


@given(side=st.sampled_from(Side), data=st.binary(), end=st.booleans())
def test_an_echo_gives_back_exactly_the_bytes_and_the_end(side: Side, data: bytes, end: bool) -> None:
    answer = answered(EchoBody(side, data, end))
    assert answer.WhichOneof("response") == f"{side}_body"
    body = answer.request_body if side is Side.REQUEST else answer.response_body
    assert body.response.body_mutation.WhichOneof("mutation") == "streamed_response"
    assert body.response.body_mutation.streamed_response.body == data
    assert body.response.body_mutation.streamed_response.end_of_stream == end


@sides
def test_trailers_pass_unchanged(side: Side) -> None:
    answer = answered(AnswerTrailers(side))
    assert answer.WhichOneof("response") == f"{side}_trailers"
    trailers = answer.request_trailers if side is Side.REQUEST else answer.response_trailers
    assert not trailers.HasField("header_mutation")


def test_a_health_check_names_its_service_or_is_malformed() -> None:
    assert decode_health_check(HealthCheckRequest(service="s").SerializeToString()) == "s"
    assert decode_health_check(b"") == ""
    assert decode_health_check(b"\xff") is None


@pytest.mark.parametrize("serving", list(Serving))
def test_a_health_status_keeps_its_name_on_the_wire(serving: Serving) -> None:
    status = HealthCheckResponse.FromString(encode_health(serving)).status
    assert HealthCheckResponse.ServingStatus.Name(status).lower() == serving.value
