"""What the bench of ingest found: a line at once, and a table for ``docs/ingest.md`` at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.ingest_load import percentile
from bench.tables import table

TARGETS = {
    "batched (50 a request, 4 connections)": "≥ 2,000 and 1,500/s",
    "derivation of a backlog": "≥ 500/s",
    "single POSTs, 32 connections, derivation off": "≥ 800/s",
    "400/s steady (half of 800), derivation on": "p99 ≤ 50 ms",
    "batched at 10,000 stored": "flat",
    "slowest list at 1,000,000 stored": "≤ 100 ms",
}
"""What issue 7 asks for, by the row that shows it."""


@dataclass(frozen=True)
class Run:
    """So many turns in so many seconds, and what they took of the CPU; latencies, where they count."""

    turns: int
    took_s: float
    cpu_s: float
    latencies_s: Sequence[float] = ()


@dataclass
class Results:
    """Cells by row and engine, in the order in which the rows came."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def tell(self, engine: str, what: str, run: Run, limit: float | None = None) -> None:
        """Print a run, and keep it for the table. ``limit``: turns a second of the plain script beside it."""
        rate = run.turns / run.took_s
        words = [f"{rate:,.0f}/s" + (f" ({rate / limit:.0%} of the plain script)" if limit else "")]
        if run.latencies_s:
            found = [percentile(list(run.latencies_s), share) for share in (0.5, 0.99)]
            words.append(f"p50 {found[0]:.0f}, p99 {found[1]:.0f} ms")
        words.append(f"{run.cpu_s / run.turns * 1e3:.2f} ms CPU")
        print(f"{engine:10} {what:52} {', '.join(words)}", flush=True)
        self.add(engine, what, ", ".join(words).replace(" of the plain script", "").removesuffix(" CPU"))

    def add(self, engine: str, what: str, cell: str) -> None:
        """One cell."""
        self.rows.setdefault(what, {})[engine] = cell

    def table(self, engines: Sequence[str]) -> str:
        """All of it in Markdown."""
        rows = [
            [what, TARGETS.get(what, ""), *(cells.get(engine, "") for engine in engines)]
            for what, cells in self.rows.items()
        ]
        return table(["", "target", *engines], rows)
