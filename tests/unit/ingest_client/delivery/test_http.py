"""Connections: which are used again, which never, and what fails how."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest_client.delivery import DeliveryCounters, EndpointSettings
from ingest_client.delivery.classify import Reason
from ingest_client.delivery.connection import ExchangeFailed
from ingest_client.delivery.http import HttpEndpoint
from tests.unit.ingest_client.delivery.certificates import Authority, needs_openssl
from tests.unit.ingest_client.delivery.peer import Request, Talk, peer, serving
from tests.unit.ingest_client.delivery.running import eventually, patient

PATH = "/v1/ingest"


@asynccontextmanager
async def http(url: str, **changes: object) -> AsyncGenerator[HttpEndpoint, None]:
    """An endpoint's requests, closed afterwards."""
    settings = patient(url, **changes)
    endpoint = HttpEndpoint(settings.endpoints[0], settings, DeliveryCounters())
    try:
        yield endpoint
    finally:
        endpoint.close()


async def test_a_connection_is_used_again_after_a_whole_answer() -> None:
    async with peer() as ingest, http(ingest.url) as endpoint:
        for _ in range(5):
            reply = await endpoint.post(PATH, b"{}")
            assert (reply.answer.status, reply.shortfall) == (202, None)
        assert ingest.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 202 A\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 202 A\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["said close", "old version", "an answer too many"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(raw: bytes) -> None:
    async def answer(_: Request, talk: Talk) -> None:
        await talk.write(raw)

    async with peer(answer) as ingest, http(ingest.url) as endpoint:
        for _ in range(3):
            assert (await endpoint.post(PATH, b"{}")).answer.status == 202
        assert ingest.connections == 3


async def test_an_answer_that_was_not_awaited_is_never_taken_for_the_next_ones() -> None:
    """The first request times out; its late answer must not answer the second."""
    given_up, answered = asyncio.Event(), asyncio.Event()

    async def late(request: Request, talk: Talk) -> None:
        if request.body == b"1":
            await given_up.wait()
            with contextlib.suppress(ConnectionError):
                await talk.answer(202)
            answered.set()
        else:
            await talk.answer(422)

    async with peer(late) as ingest, http(ingest.url) as endpoint:
        unhurried, endpoint.delivery = endpoint.delivery, patient(ingest.url, answer_timeout_s=0.1)
        with pytest.raises(ExchangeFailed) as failed:
            await endpoint.post(PATH, b"1")
        assert failed.value.reason is Reason.TIMED_OUT
        endpoint.delivery = unhurried
        given_up.set()
        await eventually(answered.is_set)
        assert (await endpoint.post(PATH, b"2")).answer.status == 422


async def test_bytes_on_a_resting_connection_end_it() -> None:
    """Whatever a peer says unasked is not taken for an answer."""

    async def talkative(_: Request, talk: Talk) -> None:
        await talk.answer(422)
        asyncio.get_running_loop().call_later(0.05, talk.writer.write, b"HTTP/1.1 202 A\r\n\r\n")

    async with peer(talkative) as ingest, http(ingest.url) as endpoint:
        for _ in range(2):
            assert (await endpoint.post(PATH, b"{}")).answer.status == 422
            await eventually(lambda: not any(connection.usable for connection in endpoint._all))
        assert ingest.connections == 2


async def test_a_connection_rests_no_longer_than_allowed() -> None:
    async with peer() as ingest, http(ingest.url, keepalive_s=0.1) as endpoint:
        await endpoint.post(PATH, b"{}")
        await asyncio.sleep(0.15)
        await endpoint.post(PATH, b"{}")
        assert ingest.connections == 2


async def test_a_connection_grows_no_older_than_allowed() -> None:
    """Whether it rests or not; and until then it is used again."""
    async with peer() as ingest, http(ingest.url, connection_age_s=60.0, keepalive_s=3600.0) as endpoint:
        for _ in range(2):
            await endpoint.post(PATH, b"{}")
        assert ingest.connections == 1
        for connection in endpoint._all:
            connection.born_s -= 60.0  # as if a minute had passed
        for _ in range(2):
            await endpoint.post(PATH, b"{}")
        assert ingest.connections == 2


async def test_resting_connections_are_closed_when_told() -> None:
    async with peer() as ingest, http(ingest.url, keepalive_s=0.1) as endpoint:
        await asyncio.gather(*(endpoint.post(PATH, b"{}") for _ in range(5)))
        assert len(endpoint._idle) == 5
        endpoint.close_idle(asyncio.get_running_loop().time() + 1)
        assert (endpoint._idle, endpoint._all) == ([], set())
        assert ingest.connections == 5


async def test_nobody_there_is_unreachable() -> None:
    async with peer() as ingest:
        url = ingest.url
    async with http(url) as endpoint:
        with pytest.raises(ExchangeFailed) as failed:
            await endpoint.post(PATH, b"{}")
    assert failed.value.reason is Reason.UNREACHABLE


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    for host in ("nowhere.invalid", "a" * 70 + ".invalid"):
        async with http(f"http://{host}:8082", connect_timeout_s=1.0) as endpoint:
            with pytest.raises(ExchangeFailed) as failed:
                await endpoint.post(PATH, b"{}")
        assert failed.value.reason is Reason.UNREACHABLE


async def test_a_peer_that_never_accepts_is_given_up_in_time() -> None:
    """The TLS handshake is never answered: the time for connecting ends it, and not the minute of the loop."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(mute) as port, http(f"https://127.0.0.1:{port}", connect_timeout_s=0.2) as endpoint:
        with pytest.raises(ExchangeFailed) as failed:
            await asyncio.wait_for(endpoint.post(PATH, b"{}"), 20)
    assert failed.value.reason is Reason.UNREACHABLE


async def test_a_large_body_is_written_no_faster_than_it_is_read() -> None:
    """20 MB to a peer that reads slowly: what waits in this process stays small."""
    waiting: list[int] = []

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = 20_000_000
        while left:
            left -= len(await reader.read(1_000_000))
            waiting.append(max(c._transport.get_write_buffer_size() for c in endpoint._all if c._transport))
            await asyncio.sleep(0.002)
        writer.write(b"HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with serving(slowly) as port, http(f"http://127.0.0.1:{port}", answer_timeout_s=90.0) as endpoint:
        reply = await endpoint.post(PATH, b"x" * 20_000_000)
    assert reply.answer.status == 202
    assert max(waiting) <= 2 * 256 * 1024


@needs_openssl
async def test_new_tls_files_are_followed_by_new_connections(tmp_path: Path) -> None:
    """A connection made with the old files is not used again after they changed."""
    authority = Authority(tmp_path, "ca")
    async with peer(ssl_context=authority.issue().serving()) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, ca_file=authority.cert),))
        endpoint = HttpEndpoint(settings.endpoints[0], settings, DeliveryCounters())
        await endpoint.post(PATH, b"{}")
        await endpoint.post(PATH, b"{}")
        assert ingest.connections == 1
        os.utime(authority.cert, (1, 1))
        endpoint.credentials._looked_at_s = None  # as if a second had passed
        await endpoint.post(PATH, b"{}")
        assert ingest.connections == 2
        endpoint.close()
