"""JSON as providers really send it: decoded strictly and fast, or else tolerantly.

msgspec is the fast path. It refuses unpaired surrogate escapes, invalid UTF-8,
over-large exponents and a byte-order mark; those bodies are still worth reading,
so they take the standard library's decoder with the damage replaced by U+FFFD
(the contract's own repair, ``wire.md`` §2 and §7). Repeated members: last wins.
"""

import json
from typing import Final, NoReturn, cast

import msgspec

_FAST: Final = msgspec.json.Decoder()
_BOM: Final = b"\xef\xbb\xbf"


class JsonError(ValueError):
    """The text is not one JSON value, or is nested deeper than can be read."""


def decode(text: bytes | str) -> object:
    """Decode one JSON value. Raises :class:`JsonError`, and nothing else."""
    try:
        return _FAST.decode(text)
    except RecursionError as error:
        raise JsonError("nested too deeply") from error
    except (msgspec.MsgspecError, UnicodeError):
        return _decode_tolerantly(text)


def strict_text(text: bytes, value: object) -> bytes:
    """A JSON text of ``value`` that every reader takes: ``text`` itself, which ``value`` was
    decoded from, unless strict decoding refuses it; then the repaired value, written anew.
    """
    try:
        _FAST.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.json.encode(value)
    return text


def _decode_tolerantly(text: bytes | str) -> object:
    if isinstance(text, bytes):
        text = text.removeprefix(_BOM).decode("utf-8", "replace")
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
        return scrub(value)
    except RecursionError as error:
        raise JsonError("nested too deeply") from error
    except ValueError as error:
        raise JsonError(str(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON")


def scrub(value: object) -> object:
    """Replace every unpaired surrogate in a decoded value by U+FFFD."""
    if isinstance(value, str):
        return scrub_text(value)
    if isinstance(value, list):
        return [scrub(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {scrub_text(name): scrub(item) for name, item in cast("dict[str, object]", value).items()}
    return value


def scrub_text(text: str) -> str:
    """Replace unpaired surrogates by U+FFFD; text without any is returned as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # UTF-16 joins the pairs that two separate escapes spelled.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
