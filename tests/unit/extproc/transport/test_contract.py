"""What every transport owes: events in order, right answers, exactly one end, no harm."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import grpc
import grpc.aio
import pytest

from extproc.events import (
    AnswerBody,
    AnswerHeaders,
    Body,
    BodyMode,
    BodyModes,
    Finish,
    Headers,
    Side,
    StreamEnd,
    Trailers,
)
from extproc.pb.ext_proc_pb2 import HttpBody, ProcessingMode, ProcessingRequest
from extproc.transport.base import Command, Message, StreamHandler
from extproc.transport.stream import PassThrough
from extproc.wire import PROCESS_SERVICE, Serving, Undecodable, encode_health
from tests.patience import eventually
from tests.unit.extproc.transport.conftest import Serve
from tests.unit.extproc.transport.peer import (
    Peer,
    Recorder,
    answer,
    answers_of,
    both,
    events_of,
    exchange,
    status,
)

UNKNOWN_KIND = b"\xa2\x06\x02hi"
OBSERVED_CHUNK = ProcessingRequest(
    response_body=HttpBody(body=b"x" * 200), observability_mode=True
).SerializeToString()


async def test_events_arrive_in_order_and_observability_mode_is_never_answered(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        for message in exchange(observe=True):
            await call.write(message)
        assert await answer(call) is None
        assert await status(call) is grpc.StatusCode.OK
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert stream.events == [
        Headers(Side.REQUEST, (), end_of_stream=False, observe=True),
        Body(Side.REQUEST, b"a", end_of_stream=False, observe=True),
        Body(Side.REQUEST, b"b", end_of_stream=False, observe=True),
        Trailers(Side.REQUEST, observe=True),
        Headers(Side.RESPONSE, (), end_of_stream=False, observe=True),
        Body(Side.RESPONSE, b"ab", end_of_stream=False, observe=True),
        Trailers(Side.RESPONSE, observe=True),
    ]
    assert stream.ends == [StreamEnd.EOF]
    counters = transport.counters
    assert (counters.streams_opened, counters.streams_open, counters.messages, counters.answers) == (
        1,
        0,
        8,
        0,
    )
    assert counters.message_bytes == sum(map(len, exchange(observe=True)))
    assert counters.streams_ended == {StreamEnd.EOF: 1}


async def test_answers_to_an_observing_peer_are_not_written_even_if_a_handler_gives_some(
    serve: Serve,
) -> None:
    recorder = Recorder(lambda: lambda event: [AnswerHeaders(event.side), Finish()])
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=True)[0])
        assert await answer(call) is None
        assert await status(call) is grpc.StatusCode.OK
        assert transport.counters.answers == 0


KINDS = ["headers", "body", "body", "trailers"]


@pytest.mark.parametrize(
    "mode",
    [
        ProcessingMode.STREAMED,
        ProcessingMode.BUFFERED,
        ProcessingMode.BUFFERED_PARTIAL,
        ProcessingMode.FULL_DUPLEX_STREAMED,
    ],
)
async def test_each_message_gets_the_answer_of_its_kind_at_once(
    serve: Serve, mode: ProcessingMode.BodySendMode.ValueType
) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        call = peer.call()
        kinds: list[str | None] = []
        for message in exchange(observe=False, modes=both(mode)):
            await call.write(message)
            got = await answer(call)
            assert got is not None
            kinds.append(got.WhichOneof("response"))
            body = got.request_body if got.HasField("request_body") else got.response_body
            echoed = body.response.body_mutation.streamed_response.body
            sent = ProcessingRequest.FromString(message)
            expected = sent.request_body.body or sent.response_body.body
            assert echoed == (expected if mode == ProcessingMode.FULL_DUPLEX_STREAMED else b"")
        assert await answer(call) is None
        assert await status(call) is grpc.StatusCode.OK
    assert kinds == [f"request_{kind}" for kind in KINDS] + [f"response_{kind}" for kind in KINDS]
    assert transport.counters.answers == 8


async def test_modes_of_the_first_message_reach_the_handler(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=False, modes=both(ProcessingMode.STREAMED))[0])
        await answer(call)
        call.cancel()
    assert recorder.streams[0].events[0].modes == BodyModes(BodyMode.STREAMED, BodyMode.STREAMED)


async def test_several_answers_to_one_message_are_written_in_order_and_none_after_finish(
    serve: Serve,
) -> None:
    side = Side.RESPONSE
    commands: Sequence[Command] = [AnswerHeaders(side), AnswerBody(side), Finish(), AnswerBody(side)]
    async with serve(Recorder(lambda: lambda _: commands)) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=False)[0])
        got = [await answer(call) for _ in range(3)]
        assert [each and each.WhichOneof("response") for each in got] == [
            "response_headers",
            "response_body",
            None,
        ]
        assert await status(call) is grpc.StatusCode.OK


async def test_finish_ends_the_rpc_while_the_peer_still_has_more_to_send(serve: Serve) -> None:
    recorder = Recorder(lambda: lambda _: [Finish()])
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=True)[0])
        assert await status(call) is grpc.StatusCode.OK
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert stream.ends == [StreamEnd.EOF]
    assert len(stream.events) == 1


async def test_initial_metadata_names_the_stream_even_if_no_message_comes(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call(("x-steno-request-id", "r1"), ("twice", "a"), ("twice", "b"))
        await call.done_writing()
        assert await status(call) is grpc.StatusCode.OK
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert stream.initial_metadata["x-steno-request-id"] == "r1"
    assert stream.initial_metadata["twice"].replace(" ", "") == "a,b"
    assert (stream.events, stream.ends) == ([], [StreamEnd.EOF])


async def test_a_peer_that_cancels_ends_the_stream_once(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=True)[0])
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.events))
        call.cancel()
        await stream.until(lambda each: bool(each.ends))
    assert len(stream.ends) == 1
    assert stream.ends[0] in {StreamEnd.CANCELLED, StreamEnd.EOF}
    assert transport.counters.streams_open == 0


async def test_a_peer_whose_connection_goes_away_ends_the_stream_once(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport:
        async with Peer(transport.address) as peer:
            await peer.call().write(exchange(observe=True)[0])
            stream = await recorder.stream()
            await stream.until(lambda each: bool(each.events))
        await stream.until(lambda each: bool(each.ends))
    assert len(stream.ends) == 1


class FailingAt:
    """Passes messages through until the one of that number (from 0), and raises from there on."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._pass = PassThrough()

    def __call__(self, event: Message) -> Sequence[Command]:
        self._left -= 1
        if self._left < 0:
            raise ZeroDivisionError("a bug above the seam")
        return self._pass.receive(event)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("mode", [ProcessingMode.STREAMED, ProcessingMode.FULL_DUPLEX_STREAMED])
async def test_a_handler_that_raises_costs_the_capture_and_never_the_traffic(
    serve: Serve, caplog: pytest.LogCaptureFixture, number: int, mode: ProcessingMode.BodySendMode.ValueType
) -> None:
    messages = exchange(observe=False, modes=both(mode))
    good, faulty = Recorder(), Recorder(lambda: FailingAt(number))
    answers: list[list[bytes]] = []
    for recorder in (good, faulty):
        async with serve(recorder) as transport, Peer(transport.address) as peer:
            call = peer.call()
            for message in messages:
                await call.write(message)
            answers.append([got.SerializeToString() async for got in answers_of(call)])
            assert await status(call) is grpc.StatusCode.OK
            stream = await recorder.stream()
            await stream.until(lambda each: bool(each.ends))
    assert answers[0] == answers[1]
    assert stream.ends == [StreamEnd.ERROR]
    assert len(stream.events) == number + 1
    assert transport.counters.handler_errors == 1
    (record,) = (each for each in caplog.records if each.name == "extproc.transport.stream")
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_handler_that_raises_in_observability_mode_is_not_heard_of_by_the_peer(serve: Serve) -> None:
    recorder = Recorder(lambda: FailingAt(1))
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        for message in exchange(observe=True):
            await call.write(message)
        assert await answer(call) is None
        assert await status(call) is grpc.StatusCode.OK
    assert recorder.streams[0].ends == [StreamEnd.ERROR]


class Closed:
    """An acceptor that can make no handler."""

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        raise ZeroDivisionError("a bug above the seam")


async def test_a_stream_without_a_handler_is_answered_all_the_same(serve: Serve) -> None:
    async with serve(Closed()) as transport, Peer(transport.address) as peer:
        call = peer.call()
        for message in exchange(observe=False, modes=both(ProcessingMode.FULL_DUPLEX_STREAMED)):
            await call.write(message)
        assert len([each async for each in answers_of(call)]) == 8
        assert await status(call) is grpc.StatusCode.OK
        await eventually(lambda: transport.counters.handler_errors == 1)


async def test_a_handler_that_fails_at_the_end_fails_alone(serve: Serve) -> None:
    class FailingEnd(PassThrough):
        def ended(self, end: StreamEnd) -> None:
            raise ZeroDivisionError("a bug above the seam")

    class Failing:
        def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
            return FailingEnd()

    async with serve(Failing()) as transport, Peer(transport.address) as peer:
        for _ in range(2):
            call = peer.call()
            await call.done_writing()
            assert await status(call) is grpc.StatusCode.OK
        await eventually(lambda: transport.counters.handler_errors == 2)
        await eventually(lambda: transport.counters.streams_open == 0)


async def test_an_undecodable_message_of_an_observing_peer_is_counted_and_passed_over(serve: Serve) -> None:
    recorder = Recorder()
    first, *_, last = exchange(observe=True)
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        for message in (first, UNKNOWN_KIND, b"\xff\xff", OBSERVED_CHUNK, last):
            await call.write(message)
        assert await status(call) is grpc.StatusCode.OK
        assert transport.counters.undecodable == {Undecodable.UNKNOWN_KIND: 1, Undecodable.MALFORMED: 1}
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert len(stream.events) == 3
    assert stream.ends == [StreamEnd.EOF]


async def test_an_undecodable_message_of_a_peer_that_waits_ends_the_rpc_so_that_it_goes_on_alone(
    serve: Serve,
) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(exchange(observe=False)[0])
        assert await answer(call) is not None
        await call.write(UNKNOWN_KIND)
        assert await answer(call) is None
        assert await status(call) is grpc.StatusCode.OK
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.ends))
    assert stream.ends == [StreamEnd.ERROR]
    assert transport.counters.undecodable == {Undecodable.UNKNOWN_KIND: 1}


async def test_a_message_far_over_grpcs_own_limit_arrives_whole_and_is_echoed(serve: Serve) -> None:
    data = bytes(range(256)) * 4096 * 9
    messages = exchange(observe=False, modes=both(ProcessingMode.FULL_DUPLEX_STREAMED), chunks=(data,))
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        for message in messages[:2]:
            await call.write(message)
        await answer(call)
        got = await answer(call)
        assert got is not None
        assert got.request_body.response.body_mutation.streamed_response.body == data
        call.cancel()
    assert recorder.streams[0].events[1] == Body(Side.REQUEST, data, end_of_stream=False, observe=False)


async def test_a_burst_of_streams_is_served_whole(serve: Serve) -> None:
    count = 1_500
    recorder = Recorder()
    messages = exchange(observe=True)

    async def one(peer: Peer) -> grpc.StatusCode:
        call = peer.call()
        for message in messages:
            await call.write(message)
        return await call.code()

    async with serve(recorder) as transport, Peer(transport.address) as peer:
        codes = await asyncio.gather(*(one(peer) for _ in range(count)))
        assert codes == [grpc.StatusCode.OK] * count
        await eventually(lambda: transport.counters.streams_ended.total() == count)
    assert [stream.events for stream in recorder.streams] == [events_of(messages)] * count


async def test_an_unknown_method_is_unimplemented(serve: Serve) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        call = peer.call(path="/envoy.service.ext_proc.v3.ExternalProcessor/Other")
        assert await status(call) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", PROCESS_SERVICE])
async def test_a_health_check_tells_the_truth_of_the_moment(serve: Serve, service: str) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        assert await peer.check(service) == encode_health(Serving.NOT_SERVING)
        transport.health.serving = True
        assert await peer.check(service) == encode_health(Serving.SERVING)
        transport.health.serving = False
        assert await peer.check(service) == encode_health(Serving.NOT_SERVING)


async def test_a_health_check_for_another_service_finds_none(serve: Serve) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await peer.check("another")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_health_watch_hears_every_change_and_does_not_hold_up_a_stop(serve: Serve) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        call = peer.watch()
        assert await call.read() == encode_health(Serving.NOT_SERVING)
        transport.health.serving = True
        assert await call.read() == encode_health(Serving.SERVING)
        transport.health.serving = False
        assert await call.read() == encode_health(Serving.NOT_SERVING)
        async with asyncio.timeout(20):
            await transport.stop(60)


async def test_a_watch_of_an_unknown_service_says_so_and_stays(serve: Serve) -> None:
    async with serve(Recorder()) as transport, Peer(transport.address) as peer:
        call = peer.watch("another")
        assert await call.read() == encode_health(Serving.SERVICE_UNKNOWN)
        call.cancel()


async def test_stop_lets_an_open_stream_end_within_the_grace(serve: Serve) -> None:
    recorder = Recorder()
    messages = exchange(observe=True)
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        call = peer.call()
        await call.write(messages[0])
        stream = await recorder.stream()
        await stream.until(lambda each: bool(each.events))
        stopping = asyncio.ensure_future(transport.stop(90))
        await asyncio.sleep(0.2)
        for message in messages[1:]:
            await call.write(message)
        assert await status(call) is grpc.StatusCode.OK
        async with asyncio.timeout(30):
            await stopping
    assert stream.events == events_of(messages)
    assert stream.ends == [StreamEnd.EOF]


async def test_stop_cancels_what_is_open_after_the_grace_and_leaves_nothing_unended(serve: Serve) -> None:
    recorder = Recorder()
    async with serve(recorder) as transport, Peer(transport.address) as peer:
        calls = [peer.call() for _ in range(5)]
        for call in calls:
            await call.write(exchange(observe=True)[0])
        for number in range(5):
            await (await recorder.stream(number)).until(lambda each: bool(each.events))
        async with asyncio.timeout(30):
            await transport.stop(0.1)
        assert [len(stream.ends) for stream in recorder.streams] == [1] * 5
        assert transport.counters.streams_open == 0
