"""``steno replay``: send recorded exchanges through a gateway, or exported turns to an ingest, again."""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import aiohttp
import msgspec

from steno.errors import CommandError, system_errors_explained
from steno.progress import Bar
from steno.recorded import UnreadableError
from steno.replaying import NoTurnError, Sending, how_many, sendings

_EPILOG: Final = """\
PATH is a folder with recorded exchanges at any depth (meta.json, request.json): each request
goes to the URL plus its own path. Or it is a file of JSON lines from `steno spool export` or
ingest's /v1/export: each turn goes to the URL plus /v1/ingest, under its own id, so ingest
stores it once however often it is sent.

What `steno spool export` has of the quarantine is no turn: it is skipped, named and counted.

It needs the extra `steno[demo]`. The exit code is 0 when everything was read, sent, and
answered with a status below 400.
"""

_BAD_STATUS: Final = 400


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a folder or a file of JSON lines"
    )
    parser.add_argument("--to", required=True, metavar="URL", help="base URL of the gateway or the ingest")
    parser.add_argument("--rate", type=float, default=10.0, help="requests begun a second (10; 0: no limit)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests open at once (32)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one whole answer (600)")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME: VALUE", help="with every request; repeatable"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object for each request, and a last one"
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    with system_errors_explained():
        try:
            return asyncio.run(_Replay(parsed).run())
        except ExceptionGroup as group:
            refused = group.subgroup(OSError)
            if refused is None:
                raise
            raise _first(refused) from group


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first exception in a group, at any depth."""
    error = group.exceptions[0]
    return _first(cast("ExceptionGroup[Exception]", error)) if isinstance(error, ExceptionGroup) else error


@dataclass(slots=True)
class _Replay:
    """One run of the command."""

    parsed: argparse.Namespace
    sent: int = 0
    failed: int = 0
    skipped: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    began: float = 0.0
    done: int = 0
    total: int = 0
    bar: Bar = field(default_factory=lambda: Bar("done"))

    async def run(self) -> int:
        """Send everything; returns the exit code."""
        if sys.stderr.isatty():
            self.total = sum(map(how_many, cast("list[Path]", self.parsed.paths)))
        self.began = time.monotonic()
        headers = _headers(cast("list[str]", self.parsed.header))
        timeout = aiohttp.ClientTimeout(total=cast("float", self.parsed.timeout))
        places = asyncio.Semaphore(max(1, cast("int", self.parsed.concurrency)))
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as sending,
        ):
            for each in self._all():
                if isinstance(each, NoTurnError):
                    self.skipped += 1
                    self._tell({"skipped": str(each)}, f"skipped: {each}", failed=False)
                    continue
                if isinstance(each, UnreadableError):
                    self._tell({"error": str(each)}, str(each), failed=True)
                    continue
                await self._until_due(self.sent)
                self.sent += 1
                await places.acquire()
                task = sending.create_task(self._send(session, each))
                task.add_done_callback(lambda _: places.release())
        self._sum_up()
        return 1 if self.failed or self.skipped else 0

    def _all(self) -> Iterator[Sending | UnreadableError]:
        for path in cast("list[Path]", self.parsed.paths):
            yield from sendings(path)

    async def _until_due(self, number: int) -> None:
        rate = cast("float", self.parsed.rate)
        if rate > 0:
            await asyncio.sleep(max(0.0, self.began + number / rate - time.monotonic()))

    async def _send(self, session: aiohttp.ClientSession, each: Sending) -> None:
        url = cast("str", self.parsed.to).rstrip("/") + each.path
        started, size = time.monotonic(), 0
        try:
            async with session.post(
                url, data=each.body, headers=each.headers, allow_redirects=False
            ) as answer:
                async for piece in answer.content.iter_any():
                    size += len(piece)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            self._tell({"source": each.source, "error": why}, f"{each.source}: {why}", failed=True)
            return
        self.statuses[answer.status] += 1
        seconds = round(time.monotonic() - started, 3)
        told: dict[str, object] = {
            "source": each.source,
            "status": answer.status,
            "bytes": size,
            "seconds": seconds,
        }
        bad = answer.status >= _BAD_STATUS
        self._tell(told, f"{each.source}: {answer.status}" if bad else "", failed=bad)

    def _tell(self, members: dict[str, object], line: str, *, failed: bool) -> None:
        self.done += 1
        self.failed += failed
        if cast("bool", self.parsed.json):
            print(msgspec.json.encode(members).decode())
        elif line:
            self.bar.say(line)
        self.bar(self.done, self.total if self.done <= self.total else 0)

    def _sum_up(self) -> None:
        seconds = time.monotonic() - self.began
        if self.done != self.total:
            self.bar.end()
        if cast("bool", self.parsed.json):
            statuses = {str(status): n for status, n in sorted(self.statuses.items())}
            total = {
                "sent": self.sent,
                "failed": self.failed,
                "skipped": self.skipped,
                "statuses": statuses,
                "seconds": round(seconds, 3),
            }
            print(msgspec.json.encode(total).decode())
        else:
            print(f"{self.sent} sent in {seconds:.1f} s, {self.failed} failed, {self.skipped} skipped")


def _headers(given: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise CommandError(f"--header {each!r}: say NAME: VALUE")
        headers[name.strip()] = value.strip()
    return headers
