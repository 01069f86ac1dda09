"""Reading a spool page by page, as ``steno spool`` does, with a bar on a terminal."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from ingest_client.spool.offline import Instance
from ingest_client.spool.tools import Json, Selection
from steno.progress import Bar


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
    total = done = 0
    if progress and sys.stderr.isatty():
        total = cast("int", instance.access.call("count", selection)["count"])
    bar = Bar(progress)
    after: int | None = selection.after
    while after is not None:
        page = instance.access.call(operation, replace(selection, after=after), body)
        yield page
        after = cast("int | None", page["next"])
        done += _size(page)
        if total:
            bar(done, total)
    if done < total:
        bar.end()


def _size(page: Json) -> int:
    for name in ("records", "requeued"):
        if name in page:
            return len(cast("list[object]", page[name]))
    return cast("int", page.get("checked", page.get("purged", 0)))
