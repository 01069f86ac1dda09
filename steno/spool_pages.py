"""Reading a spool page by page, as ``steno spool`` does, with a bar on a terminal."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, cast

from ingest_client.spool.offline import Instance
from ingest_client.spool.tools import Json, Selection

_BAR: Final = 30


def records(
    instance: Instance, operation: str, selection: Selection, *, progress: str = ""
) -> Iterator[Json]:
    """Every record of an operation's pages."""
    for page in pages(instance, operation, selection, progress=progress):
        yield from cast("list[Json]", page["records"])


def pages(
    instance: Instance, operation: str, selection: Selection, *, body: str | None = None, progress: str = ""
) -> Iterator[Json]:
    """Every page of an operation on one instance, with a bar on a terminal."""
    if instance.access is None:
        return
    total = 0
    if progress and sys.stderr.isatty():
        total = cast("int", instance.access.call("count", selection)["count"])
    began, done = time.monotonic(), 0
    after: int | None = selection.after
    while after is not None:
        page = instance.access.call(operation, replace(selection, after=after), body)
        yield page
        after = cast("int | None", page["next"])
        done += _size(page)
        if total:
            _draw(progress, done, total, time.monotonic() - began)
    if total:
        print(file=sys.stderr)


def _size(page: Json) -> int:
    for name in ("records", "requeued"):
        if name in page:
            return len(cast("list[object]", page[name]))
    return cast("int", page.get("checked", page.get("purged", 0)))


def _draw(what: str, done: int, total: int, seconds: float) -> None:
    share = min(1.0, done / total)
    bar = "#" * int(share * _BAR)
    print(f"\r[{bar:{_BAR}}] {done}/{total} {what} in {seconds:.0f} s", end="", file=sys.stderr, flush=True)
