"""A bar on standard error, where that is a terminal."""

import sys
import time
from typing import Final

_BAR: Final = 30
_DRAW_S: Final = 0.2


class Bar:
    """Draws how far a piece of work has come; ``what`` is done, such as ``turns written``."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """So much is done, of so much (0: nobody knows). Ends its line when all is done."""
        now = time.monotonic()
        ended = bool(total) and done >= total
        if not self._shown or (now - self._drawn < _DRAW_S and not ended):
            return
        self._drawn = now
        seconds = now - self._began
        share = min(1.0, done / total) if total else 0.0
        bar = f"[{'#' * int(share * _BAR):{_BAR}}] {done}/{total}" if total else f"{done}"
        print(
            f"\r{bar} {self._what} in {seconds:.0f} s", end="\n" if ended else "", file=sys.stderr, flush=True
        )

    def say(self, line: str) -> None:
        """A line of its own on standard error, where the bar stood; the bar is drawn again below it."""
        print(f"\r\x1b[K{line}" if self._shown else line, file=sys.stderr)
        self._drawn = 0.0

    def end(self) -> None:
        """End the line of work whose end nobody knew."""
        if self._shown and self._drawn:
            print(file=sys.stderr)
