"""JSON in its canonical form (RFC 8785, JCS), for any depth and any number.

Ours, because hashing must succeed for whatever a provider sent. The ``rfc8785``
package, which the tests hold this module against, refuses whole numbers beyond 2^53
and unpaired surrogates, and recurses once a level. Where the RFC has no answer:

* a number too large for a double is ``null``, as ECMAScript writes it;
* an unpaired surrogate is U+FFFD; names that become equal by that: one of them wins.
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from json import JSONEncoder
from typing import Final, cast

from capture.jsontext import scrub_text

_quote: Final = JSONEncoder(ensure_ascii=False).encode
"""A JSON string with exactly the escapes of RFC 8785 §3.2.2.2: ``"``, ``\\`` and controls."""

_SAFE_INTEGER: Final = 2**53
_POSITIONAL_DIGITS: Final = 21
_LEADING_ZEROS: Final = 6


class _Written(str):
    """Text of the result that waits for its turn among the values."""

    __slots__ = ()


def canonical_json(value: object) -> bytes:
    """The canonical UTF-8 text of a decoded JSON value. Never raises for one.

    Tuples count as lists. Raises TypeError for what JSON cannot say.
    """
    pieces: list[str] = []
    waiting: list[object] = [value]  # a stack of our own: depth costs memory, never a crash
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Written):
            pieces.append(item)
        elif isinstance(item, dict):
            waiting.extend(reversed(_members(cast("dict[str, object]", item))))
        elif isinstance(item, (list, tuple)):
            waiting.extend(reversed(_items(cast("Iterable[object]", item))))
        else:
            pieces.append(_scalar(item))
    return scrub_text("".join(pieces)).encode()


_COMMA: Final = _Written(",")


def _members(members: dict[str, object]) -> list[object]:
    if not all(map(str.isascii, members)):
        members = {scrub_text(name): member for name, member in members.items()}
        names = sorted(members, key=_utf16)
    else:
        names = sorted(members)
    written: list[object] = [_Written("{")]
    for name in names:
        written += (_Written(f"{_quote(name)}:"), members[name], _COMMA)
    if members:
        written.pop()
    written.append(_Written("}"))
    return written


def _items(items: Iterable[object]) -> list[object]:
    written: list[object] = [_Written("[")]
    for item in items:
        written += (item, _COMMA)
    if len(written) > 1:
        written.pop()
    written.append(_Written("]"))
    return written


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be")


def _scalar(value: object) -> str:
    match value:
        case str():
            return _quote(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if -_SAFE_INTEGER < value < _SAFE_INTEGER else _number(_as_double(value))
        case float():
            return _number(value)
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON value")


def _as_double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number(value: float) -> str:
    """ECMAScript's Number::toString: the shortest digits that read back as ``value``."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + cast("int", exponent)  # where the decimal point stands within the digits
    return "-" * sign + _placed(text, point)


def _placed(digits: str, point: int) -> str:
    if len(digits) <= point <= _POSITIONAL_DIGITS:
        return digits.ljust(point, "0")
    if 0 < point <= _POSITIONAL_DIGITS:
        return f"{digits[:point]}.{digits[point:]}"
    if -_LEADING_ZEROS < point <= 0:
        return "0." + "0" * -point + digits
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
