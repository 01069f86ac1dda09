"""About how much memory a structure takes: for budgets, not for accounts.

Walks what was built of an answer: texts, lists, mappings, objects with slots, structs. Of a
long list or mapping a sample is looked at and the rest is taken to be alike, so that
looking takes microseconds, and milliseconds where somebody built for the worst. Shared objects
count once for each way to them.
"""

import sys
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import Final, cast

SAMPLE: Final = 32
"""Items of one container that are looked at."""

_MAX_DEPTH: Final = 12
_FEW_FROM_DEPTH: Final = 7
_FEW: Final = 4
_LEAVES: Final = (str, bytes, bytearray, int, float)


def held_bytes(value: object) -> int:
    """Bytes that ``value`` and what hangs on it take, about."""
    return _size(value, 0)


def _size(value: object, depth: int) -> int:
    if isinstance(value, _LEAVES):
        return sys.getsizeof(value)
    if value is None or depth > _MAX_DEPTH or isinstance(value, type | Enum) or callable(value):
        return 0
    own = sys.getsizeof(value)
    if isinstance(value, dict):
        members = cast("dict[object, object]", value)
        return own + _sampled((part for item in members.items() for part in item), 2 * len(members), depth)
    if isinstance(value, list | tuple | set | frozenset):
        items = cast("list[object] | tuple[object, ...] | set[object] | frozenset[object]", value)
        return own + _sampled(items, len(items), depth)
    parts = [getattr(value, name, None) for name in _slots(cast("type", value.__class__))]
    return own + sum(_size(part, depth + 1) for part in parts)


def _sampled(items: Iterable[object], count: int, depth: int) -> int:
    sample = SAMPLE if depth < _FEW_FROM_DEPTH else _FEW
    if count <= sample:
        return sum(_size(item, depth + 1) for item in items)
    every = count // sample + 1
    looked_at = items[::every] if isinstance(items, list) else list(islice(items, sample))
    return sum(_size(item, depth + 1) for item in looked_at) * count // len(looked_at)


@lru_cache(maxsize=512)
def _slots(kind: type) -> tuple[str, ...]:
    """The names of an object's slots, of a class and those it is made from."""
    names: list[str] = []
    for each in kind.__mro__:
        slots: object = each.__dict__.get("__slots__", ())
        names += (slots,) if isinstance(slots, str) else cast("Iterable[str]", slots)
    return tuple(names)
