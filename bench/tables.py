"""Results as a Markdown table and as bars in an SVG."""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 720
_LABEL: Final = 210
_VALUE: Final = 80
_BAR: Final = 18
_STEP: Final = 26
_TOP: Final = 34
_OURS: Final = "#1668b0"
_OTHERS: Final = "#999999"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """One bar for each (label, value), on a scale from 0; those of the Go reference and of the limit grey."""
    largest = max((value for _, value in values), default=0.0) or 1.0
    height = _TOP + _STEP * len(values) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="20" font-size="14">{escape(title)}</text>',
    ]
    for number, (label, value) in enumerate(values):
        top = _TOP + _STEP * number
        length = (_WIDTH - _LABEL - _VALUE) * value / largest
        colour = _OTHERS if label.startswith(("go ", "drain")) else _OURS
        parts += [
            f'<text x="{_LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{top + 13}">{value:.3g}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def options(description: str | None) -> argparse.ArgumentParser:
    """The flags that every bench with a table and a plot has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--smoke", action="store_true", help="seconds, to see that it runs; the numbers mean nothing"
    )
    parser.add_argument("--into", type=Path, help="a document to put the table into")
    parser.add_argument("--svg", type=Path, help="where to write the plot")
    return parser


def publish(name: str, said: str, rows: str, into: Path | None) -> None:
    """Print a result, and put it into a document between the lines ``<!-- name begins -->`` and ``ends``."""
    print(said, rows, sep="\n\n")
    if into is None:
        return
    begins, ends = f"<!-- {name} begins -->\n", f"<!-- {name} ends -->\n"
    before, found, rest = into.read_text().partition(begins)
    _, ended, after = rest.partition(ends)
    if not found or not ended:
        raise SystemExit(f"{into} has no place for {name}: {begins!r} and {ends!r}")
    into.write_text(f"{before}{begins}\n{said}\n\n{rows}\n\n{ends}{after}")


def load() -> str:
    """What else the machine did, and the interpreter: a line for every report."""
    return (
        f"Load average over the last minute: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores,"
        f" CPython {platform.python_version()}."
    )
