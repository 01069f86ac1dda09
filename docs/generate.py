"""Writes the parts of the documentation that are made from code; ``--check`` only compares.

``docs/reference.md``: commands, settings, metrics, outcomes, dialects, and the phases of
an exchange as a diagram.
"""

import argparse
import asyncio
import io
import random
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric

from capture.dialects.catalog import CATALOG
from capture.outcomes import Outcome
from capture.routes import ROUTES
from extproc.assemblers import Assembler
from extproc.budget import Budget
from extproc.captured import Instant
from extproc.checkpoints import Checkpointer
from extproc.metrics import WorkerMetrics
from extproc.open_metrics import OpenMetrics
from extproc.phases import TRANSITIONS
from extproc.queue_metrics import DeliveryMetrics, SpoolMetrics
from extproc.reconcile.tally import Tally
from extproc.shelf import Shelf
from extproc.transport.base import TransportCounters
from ingest_client.delivery.clock import SystemClock
from ingest_client.delivery.delivery import Delivery
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings
from ingest_client.ledger import Ledger
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.spool import Spool
from steno.cli import COMMANDS, main
from steno.settings.table import ROWS

REFERENCE: Final = Path(__file__).with_name("reference.md")


def reference() -> str:
    """The whole reference page."""
    parts = [
        "# Reference",
        "Made from the code by `make docs`; `make check` compares it. Do not edit.",
        "## Commands",
        *_commands(),
        "## Settings",
        "A flag beats the environment, which beats the file (`--config FILE`, or `STENO_CONFIG`).",
        *_settings(),
        "## Outcomes",
        "How an exchange can end other than as a delivered turn. The balance that always holds:",
        "    observed = open + spooled + delivered + dead_lettered + quarantined + lost + excluded",
        _table(
            ("outcome", "state", "decided by"),
            ((f"`{each.value}`", each.state.value, each.owner.value) for each in Outcome),
        ),
        "## Metrics of the sidecar",
        "Samples of a worker have its number as the label `worker`; `steno_access_log_…` has none.",
        _metrics(),
        "## Dialects",
        _dialects(),
        "## Phases of an exchange",
        _phases(),
    ]
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterable[str]:
    yield _code(_help([]))
    for command in COMMANDS:
        yield f"### steno {command}"
        yield _code(_help([command]))


def _help(command: Sequence[str]) -> str:
    shown = io.StringIO()
    with redirect_stdout(shown), suppress(SystemExit):
        main([*command, "--help"])
    return shown.getvalue().strip()


def _settings() -> Iterable[str]:
    for section in dict.fromkeys(row.section for row in ROWS):
        yield f"### {section}"
        yield _table(
            ("setting", "flag and environment", "accepts", "default", "what it does, and why this default"),
            (
                (
                    f"`{row.path}`",
                    f"`{row.flag}` `{row.variable}`" + (f" `{row.also}`" if row.also else ""),
                    row.kind.expected,
                    f"`{row.default}`" if row.default else "none",
                    f"{row.help} ({row.reason})",
                )
                for row in ROWS
                if row.section == section
            ),
        )


async def _families() -> list[Metric]:
    """Every family of a worker's page, from a worker's own parts, and the access log's."""
    registry = WorkerMetrics(Ledger(), TransportCounters).registry
    spool = await Spool.open(Path(), SpoolSettings(memory_only=True))
    endpoints = (EndpointSettings(url="http://127.0.0.1:8090"),)
    delivery = Delivery(spool, DeliverySettings(endpoints=endpoints), SystemClock(), random.random)
    registry.register(SpoolMetrics(spool))
    registry.register(DeliveryMetrics(delivery))
    checkpointer = Checkpointer(checkpoints=spool, sink=spool, name=str, clock=lambda: Instant(0, 0))
    parts = (Budget(), Shelf(None), Assembler(), checkpointer)
    registry.register(OpenMetrics(*parts, waiting_bytes=int))
    families = [*registry.collect(), *Tally().registry.collect()]
    await spool.close(1.0)
    return families


def _metrics() -> str:
    return _table(
        ("metric", "type", "labels", "meaning"),
        (
            (
                f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
                family.type,
                ", ".join(sorted({name for sample in family.samples for name in sample.labels} - {"le"})),
                family.documentation,
            )
            for family in asyncio.run(_families())
        ),
    )


def _dialects() -> str:
    return _table(
        ("dialect", "a streamed answer is", "paths that end in (as patterns)"),
        (
            (
                f"`{dialect.value}`",
                entry.stream.value,
                " ".join(
                    f"`{route.path.pattern.replace('|', chr(92) + '|')}`"
                    for route in ROUTES
                    if route.dialect is dialect
                ),
            )
            for dialect, entry in CATALOG.items()
        ),
    )


def _phases() -> str:
    lines = [
        f"    {before.value} --> {after.value}: {step.value}" for (before, step), after in TRANSITIONS.items()
    ]
    return "\n".join(
        ["```mermaid", "stateDiagram-v2", "    [*] --> idle", *lines, "    closed --> [*]", "```"]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def run(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with ``--check`` say whether they are true."""
    parser = argparse.ArgumentParser(description="Write the generated documentation.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when a page is stale")
    made = reference()
    if parser.parse_args(arguments).check:
        if REFERENCE.read_text(encoding="utf-8") != made:
            print(f"{REFERENCE.name} is stale: run `make docs`", file=sys.stderr)
            return 1
        return 0
    REFERENCE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run())
