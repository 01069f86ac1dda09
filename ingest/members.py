"""The members of a JSON object, each as the bytes it was sent in.

A body is taken apart once and its parts are stored as they came, so whatever a
client put into its request survives: repeated members, unpaired surrogate escapes,
numbers beyond any machine type. msgspec does it for well-formed text; what msgspec
refuses takes the standard library's scanner, with invalid UTF-8 as U+FFFD.

Names match without case, an exact match wins, a repeated member counts with its last
value (``contracts/wire.md`` §1).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NoReturn, TypeVar

import msgspec

_FAST: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FAST_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_SCANNER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE: Final = " \t\n\r"
_BOM: Final = b"\xef\xbb\xbf"
T = TypeVar("T")


class MembersError(ValueError):
    """The text is not one JSON object, or is nested deeper than can be read."""


def split(text: bytes) -> dict[str, bytes]:
    """Member name → its value as sent. Raises :class:`MembersError` with the reason."""
    try:
        return {name: bytes(value) for name, value in _FAST.decode(text).items()}
    except RecursionError as error:
        raise MembersError("nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeError):
        return dict(_slowly(text, _members))


def elements(text: bytes) -> list[bytes]:
    """The elements of a JSON array, each as sent. Raises :class:`MembersError` with the reason."""
    try:
        return [bytes(element) for element in _FAST_ARRAY.decode(text)]
    except RecursionError as error:
        raise MembersError("nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeError):
        return _slowly(text, _elements)


def fold(members: Mapping[str, bytes], known: Iterable[str]) -> dict[str, bytes]:
    """The known members under their exact names, however their case was written."""
    names = frozenset(known)
    if not any(name not in names and name.lower() in names for name in members):
        return {name: value for name, value in members.items() if name in names}
    folded = {name.lower(): value for name, value in members.items() if name.lower() in names}
    return folded | {name: value for name, value in members.items() if name in names}


def cased(members: Mapping[str, T], known: frozenset[str]) -> Mapping[str, T]:
    """Decoded members with the known ones under their exact names, and every other as it came."""
    if known.issuperset(members) or not any(name not in known and name.lower() in known for name in members):
        return members
    others = {name: value for name, value in members.items() if name.lower() not in known}
    folded = {name.lower(): value for name, value in members.items() if name.lower() in known}
    return others | folded | {name: value for name, value in members.items() if name in known}


def _slowly(data: bytes, parts: Callable[[str], Iterator[T]]) -> list[T]:
    text = data.removeprefix(_BOM).decode("utf-8", "replace")
    try:
        return list(parts(text))
    except RecursionError as error:
        raise MembersError("nested too deeply") from error
    except MembersError:
        raise
    except (ValueError, IndexError) as error:
        raise MembersError(str(error) or "unexpected end of JSON input") from error


def _members(text: str) -> Iterator[tuple[str, bytes]]:
    at = _expect(text, _skip(text, 0), "{")
    if text[at] != "}":
        while True:
            name, at = _SCANNER.raw_decode(text, at)
            if not isinstance(name, str):
                raise MembersError(f"a member's name must be a string, not {name!r:.40}")
            value, at = _value(text, _expect(text, _skip(text, at), ":"))
            yield name.encode("utf-8", "replace").decode(), value
            if text[at] != ",":
                break
            at = _skip(text, at + 1)
    _end(text, _expect(text, at, "}"))


def _elements(text: str) -> Iterator[bytes]:
    at = _expect(text, _skip(text, 0), "[")
    if text[at] != "]":
        while True:
            value, at = _value(text, at)
            yield value
            if text[at] != ",":
                break
            at = _skip(text, at + 1)
    _end(text, _expect(text, at, "]"))


def _value(text: str, start: int) -> tuple[bytes, int]:
    """The value at ``start`` as sent, and where the next thing begins."""
    _, end = _SCANNER.raw_decode(text, start)
    return text[start:end].encode("utf-8", "surrogatepass"), _skip(text, end)


def _end(text: str, at: int) -> None:
    if at != len(text):
        raise MembersError("characters after the JSON value")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    if at >= len(text):
        raise MembersError("unexpected end of JSON input")
    if text[at] != character:
        raise MembersError(f"expected {character!r} at character {at}, found {text[at]!r}")
    return _skip(text, at + 1)
