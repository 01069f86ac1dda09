"""TLS: who may connect, and a certificate that changes while the service runs."""

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest import app
from ingest.app import StartError, listen, serve
from ingest.settings import IngestSettings
from tests.patience import becomes, eventually, listens
from tests.unit.ingest.running import turn
from tests.unit.ingest_client.delivery.certificates import Authority, Pair, needs_openssl

pytestmark = needs_openssl


@asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncGenerator[str]:
    """A service in this process, until the block ends. It listens only once signals are its own to answer."""
    sock = listen("127.0.0.1:0")
    host, port = sock.getsockname()
    settings["database_url"] = f"sqlite:///{directory}/x.db"
    running = asyncio.ensure_future(serve(IngestSettings(**settings), sock))
    await becomes(lambda: _up(running, host, port), expected=True)
    try:
        yield f"https://localhost:{port}"
    finally:
        if not running.done():  # nobody else would take the signal, and it would end the whole run
            os.kill(os.getpid(), signal.SIGTERM)
        await running


async def _up(running: "asyncio.Future[None]", host: str, port: int) -> bool:
    assert not running.done(), running
    return await listens(host, port)


def trusting(authority: Authority, shown: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


async def post(url: str, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(base_url=url, verify=context, timeout=30) as client:
        return (await client.post("/v1/ingest", json=turn())).status_code


async def post_if_trusted(url: str, context: ssl.SSLContext) -> int:
    """The same, and 0 where the two do not trust each other."""
    try:
        return await post(url, context)
    except httpx.TransportError:
        return 0


async def test_a_client_without_a_certificate_of_the_authority_is_refused(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair = ours.issue()
    async with serving(tmp_path, tls_certificate=pair.cert, tls_key=pair.key, tls_client_ca=ours.cert) as url:
        assert await post(url, trusting(ours, ours.issue("DNS:sidecar"))) == 202
        for shown in (None, theirs.issue("DNS:sidecar")):
            with pytest.raises(httpx.TransportError):
                await post(url, trusting(ours, shown))


async def test_a_new_certificate_is_used_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_RELOAD_S", 0.05)
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def install(pair: Pair) -> None:
        shutil.copy(pair.key, key)
        shutil.copy(pair.cert, cert)

    install(old.issue())
    async with serving(tmp_path, tls_certificate=cert, tls_key=key) as url:
        assert await post(url, trusting(old)) == 202
        cert.write_text("broken")
        await eventually(lambda: "the old one stays" in caplog.text)
        assert await post(url, trusting(old)) == 202, "a bad one changes nothing"
        install(new.issue())
        await becomes(lambda: post_if_trusted(url, trusting(new)), 202)


async def test_the_middle_of_a_rotation_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The new certificate is there and its key is not yet: the old pair goes on answering."""
    monkeypatch.setattr(app, "_RELOAD_S", 0.05)
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    before, after = old.issue(), new.issue()
    shutil.copy(before.cert, cert)
    shutil.copy(before.key, key)
    async with serving(tmp_path, tls_certificate=cert, tls_key=key) as url:
        shutil.copy(after.cert, cert)
        await eventually(lambda: "the old one stays" in caplog.text)
        assert await post(url, trusting(old)) == 202
        shutil.copy(after.key, key)
        await becomes(lambda: post_if_trusted(url, trusting(new)), 202)


async def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("broken")
    settings = IngestSettings(
        listen="127.0.0.1:0",
        database_url=f"sqlite:///{tmp_path}/x.db",
        tls_certificate=tmp_path / "tls.crt",
    )
    with pytest.raises(StartError, match="TLS"):
        await serve(settings)
