"""Which exchange belongs to which entry, where several share one request id.

Both sides are moments. A pair is possible when the exchange began within a window around the
entry's start; among all ways to pair, the one with the most pairs is taken, and of these the one
whose pairs lie closest together. On a line such an answer never crosses, so one pass over both
sorted lists finds it, in time that grows with the product of their lengths. A crowd (a client with one
id for everything) gets an answer with as many pairs, though not always the closest ones, in one pass
over their sum.
"""

from collections.abc import Sequence
from typing import Final

EARLY_NS: Final = 2_000_000_000
"""So much before Envoy's start an exchange may begin: clocks of two machines differ."""
LATE_NS: Final = 20_000_000_000
"""So much after it: a frozen worker takes streams up late, until Envoy closes them (15 s)."""


_CROWD: Final = 4096
"""Entries times exchanges: about 2 ms of work."""


def assign(entries: Sequence[int], exchanges: Sequence[int]) -> dict[int, int]:
    """Index of entry → index of exchange, of moments in ns, both lists sorted."""
    if len(entries) * len(exchanges) > _CROWD:
        return _first_come(entries, exchanges)
    return _closest(entries, exchanges)


def _first_come(entries: Sequence[int], exchanges: Sequence[int]) -> dict[int, int]:
    """Every entry takes the first exchange left in its window: no answer has more pairs."""
    found: dict[int, int] = {}
    j = 0
    for i, start in enumerate(entries):
        while j < len(exchanges) and exchanges[j] < start - EARLY_NS:
            j += 1
        if j < len(exchanges) and exchanges[j] <= start + LATE_NS:
            found[i] = j
            j += 1
    return found


def _closest(entries: Sequence[int], exchanges: Sequence[int]) -> dict[int, int]:
    # best[j] is (pairs, -distance) for the entries so far against the first j exchanges.
    width = len(exchanges)
    best = [(0, 0)] * (width + 1)
    choices: list[list[int]] = []
    for start in entries:
        row, choice = [(0, 0)], [_SKIP_EXCHANGE]
        for j, began in enumerate(exchanges, 1):
            top, pick = max((best[j], _SKIP_ENTRY), (row[j - 1], _SKIP_EXCHANGE))
            if -EARLY_NS <= began - start <= LATE_NS:
                pairs, nearness = best[j - 1]
                paired = (pairs + 1, nearness - abs(began - start))
                if paired > top:
                    top, pick = paired, _PAIR
            row.append(top)
            choice.append(pick)
        best = row
        choices.append(choice)
    return _trace(choices, width)


_SKIP_ENTRY: Final = 0
_SKIP_EXCHANGE: Final = 1
_PAIR: Final = 2


def _trace(choices: list[list[int]], width: int) -> dict[int, int]:
    found: dict[int, int] = {}
    i, j = len(choices), width
    while i and j:
        match choices[i - 1][j]:
            case 2:  # _PAIR
                i, j = i - 1, j - 1
                found[i] = j
            case 1:  # _SKIP_EXCHANGE
                j -= 1
            case _:
                i -= 1
    return found
