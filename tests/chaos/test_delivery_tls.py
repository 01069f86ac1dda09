"""T15: TLS and mutual TLS towards ingest: what must be refused is refused, and rotation loses nothing."""

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ingest_client.delivery import EndpointSettings
from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.classify import Reason
from tests.chaos.kept_queue import KeptQueue
from tests.patience import kept_port
from tests.unit.ingest_client.delivery.certificates import Authority, Pair, needs_openssl
from tests.unit.ingest_client.delivery.peer import Request, Talk, peer, serving
from tests.unit.ingest_client.delivery.running import delivering, eventually, patient

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that delivery trusts."""
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("theirs"), "theirs")


def install(pair: Pair, directory: Path) -> EndpointSettings:
    """Put our certificate and key where delivery reads them, replaced in one step each."""
    for source, name in ((pair.cert, "tls.crt"), (pair.key, "tls.key")):
        shutil.copy(source, directory / f"new.{name}")
        (directory / f"new.{name}").replace(directory / name)
    return EndpointSettings(
        url="https://localhost", cert_file=directory / "tls.crt", key_file=directory / "tls.key"
    )


def errors(queue: KeptQueue) -> set[tuple[Reason, str]]:
    found = [attempt for row in queue.rows.values() for attempt in row.attempts]
    return {(attempt.reason, attempt.error) for attempt in found if isinstance(attempt, Attempt)}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong authority", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("wrong name", "Hostname mismatch"),
    ],
)
async def test_a_server_that_cannot_prove_itself_gets_nothing(
    queue: KeptQueue, ours: Authority, theirs: Authority, fault: str, words: str
) -> None:
    """No byte of a turn goes to it; the endpoint is held, loudly, with the reason; the turn stays."""
    served = {
        "wrong authority": lambda: theirs.issue().serving(),
        "expired": lambda: ours.issue(expired=True).serving(),
        "wrong name": lambda: ours.issue("DNS:elsewhere.test").serving(),
    }[fault]()
    async with peer(ssl_context=served) as ingest:
        url = f"https://localhost:{ingest.port}"
        settings = patient(endpoints=(EndpointSettings(url=url, ca_file=ours.cert),))
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await eventually(lambda: delivery.counters.attempts[Reason.TLS_FAILED] >= 2)
            [endpoint] = delivery.snapshot().endpoints
        assert ingest.requests == []
    assert queue.states() == {"pending": 1}
    assert delivery.counters.holds == 1
    assert endpoint.status == "not_ready"
    assert endpoint.hold is not None
    assert words in endpoint.hold
    assert {reason for reason, _ in errors(queue)} == {Reason.TLS_FAILED}


async def test_a_server_that_speaks_plain_text_gets_nothing(queue: KeptQueue, ours: Authority) -> None:
    """An http service behind an https url: nothing but a TLS greeting is ever sent to it."""
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65_536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with serving(plain) as port:
        settings = patient(endpoints=(EndpointSettings(url=f"https://localhost:{port}", ca_file=ours.cert),))
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await eventually(lambda: delivery.counters.attempts[Reason.TLS_FAILED] >= 1)
    assert heard
    assert b"request_id" not in heard
    assert queue.states() == {"pending": 1}


async def test_turns_go_to_a_server_that_proves_itself_and_knows_us(
    queue: KeptQueue, ours: Authority, tmp_path: Path
) -> None:
    """Custom authority, our own certificate: both sides verified, turns delivered."""
    us = install(ours.issue("DNS:sidecar"), tmp_path)
    async with peer(ssl_context=ours.issue().serving(client_ca=ours.cert)) as ingest:
        settings = patient(
            endpoints=(
                EndpointSettings(
                    url=ingest.url, ca_file=ours.cert, cert_file=us.cert_file, key_file=us.key_file
                ),
            )
        )
        async with delivering(queue, settings):
            await queue.put(queue.turn(seq, size=20_000) for seq in range(50))
            await queue.until("acknowledged", 50)


async def test_without_our_certificate_a_strict_server_takes_nothing(
    queue: KeptQueue, ours: Authority
) -> None:
    """Mutual TLS asked for and not given: nothing is accepted, nothing is lost."""
    async with peer(ssl_context=ours.issue().serving(client_ca=ours.cert)) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, ca_file=ours.cert),))
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await eventually(lambda: delivery.counters.put_off >= 2)
        assert ingest.requests == []
    assert queue.states() == {"pending": 1}
    assert {reason for reason, _ in errors(queue)} <= {Reason.TLS_FAILED, Reason.CONNECTION_LOST}


async def test_rotation_under_load_loses_nothing(
    queue: KeptQueue, ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    """Both sides change authority while turns flow: new files are taken up, every turn arrives once acked."""
    us = install(ours.issue("DNS:sidecar"), tmp_path)
    trusted = tmp_path / "ca.pem"
    shutil.copy(ours.cert, trusted)

    async def slowly(_: Request, talk: Talk) -> None:
        await asyncio.sleep(0.002)
        await talk.answer(202)

    before = ours.issue().serving(client_ca=ours.cert)
    after = theirs.issue().serving(client_ca=theirs.cert)
    arrived: set[str] = set()
    async with AsyncExitStack() as stack:
        port = stack.enter_context(kept_port())
        async with peer(slowly, ssl_context=before, port=port) as first:
            endpoint = EndpointSettings(
                url=first.url, ca_file=trusted, cert_file=us.cert_file, key_file=us.key_file
            )
            settings = patient(endpoints=(endpoint,), batch_turns=1)
            delivery = await stack.enter_async_context(delivering(queue, settings))
            feeding = asyncio.create_task(_feed(queue, 300))
            await queue.until("acknowledged", 50)
        async with peer(slowly, ssl_context=after, port=port) as second:
            install(theirs.issue("DNS:sidecar"), tmp_path)
            shutil.copy(theirs.cert, tmp_path / "new.pem")
            (tmp_path / "new.pem").replace(trusted)
            await feeding
            await queue.until("acknowledged", 300, timeout_s=60)
            assert second.posts
    for served in (first, second):
        arrived |= {turn_id for request in served.posts for turn_id in request.turn_ids()}
    assert arrived == {row.turn.turn_id for row in queue.rows.values()}
    assert delivery.counters.credential_reloads >= 2


async def _feed(queue: KeptQueue, turns: int) -> None:
    for seq in range(turns):
        await queue.put([queue.turn(seq)])
        await asyncio.sleep(0.005)


async def test_a_broken_rotation_keeps_what_worked(queue: KeptQueue, ours: Authority, tmp_path: Path) -> None:
    """Files that cannot be read leave the old ones in use: reported, and delivery goes on."""
    trusted = tmp_path / "ca.pem"
    shutil.copy(ours.cert, trusted)
    async with peer(ssl_context=ours.issue().serving()) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, ca_file=trusted),), keepalive_s=0.05)
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await queue.until("acknowledged", 1)
            trusted.write_text("this is no certificate")
            await asyncio.sleep(1.1)  # the files are looked at once a second
            await queue.put([queue.turn(2)])
            await queue.until("acknowledged", 2)
            await eventually(lambda: delivery.counters.credential_failures >= 1)


async def test_the_bearer_token_is_sent_and_taken_up_when_it_changes(
    queue: KeptQueue, tmp_path: Path
) -> None:
    """The token comes from a file, white space trimmed; a new one is used without a restart."""
    token = tmp_path / "token"
    token.write_text("first-token-123\n")

    async def strict(request: Request, talk: Talk) -> None:
        await talk.answer(202 if request.fields.get("authorization") == "Bearer second-token" else 401)

    async with peer(strict) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, token_file=token),))
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await eventually(lambda: delivery.counters.attempts[Reason.UNAUTHORIZED] >= 1)
            token.write_text("second-token")
            await queue.until("acknowledged", 1)
        sent = {request.fields["authorization"] for request in ingest.posts}
    assert sent == {"Bearer first-token-123", "Bearer second-token"}


async def test_a_token_that_cannot_be_read_holds_the_endpoint_and_never_shows(
    queue: KeptQueue, tmp_path: Path
) -> None:
    """No token file: nothing is sent at all, somebody is told; once it is there, turns flow."""
    token = tmp_path / "token"

    async def echo(request: Request, talk: Talk) -> None:
        await talk.answer(422, f"refused {request.fields['authorization']}".encode())

    async with peer(echo) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, token_file=token),))
        async with delivering(queue, settings) as delivery:
            await queue.put([queue.turn(1)])
            await eventually(lambda: delivery.counters.attempts[Reason.CREDENTIALS_UNREADABLE] >= 1)
            assert ingest.requests == []
            token.write_text("hunter2!hunter2!")
            await queue.until("dead_letter", 1)
            state = repr(delivery.snapshot())
    assert "hunter2" not in queue.rows[1].reason + state
    assert "[redacted]" in queue.rows[1].reason
