"""How the text of a setting becomes its value."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from extproc.transport.address import AddressError, parse_address

_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(Protocol):
    """Reads one setting. ``expected`` ends the sentence "NAME: expected …"."""

    @property
    def expected(self) -> str:
        """What is accepted, for messages and the documentation."""
        ...

    def read(self, given: object) -> object:
        """The value; raises ValueError when ``given`` (text, or YAML's value) is none."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Any text; ``choices`` closes the set."""

    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What is accepted."""
        return f"one of {', '.join(self.choices)}" if self.choices else "text"

    def read(self, given: object) -> str:
        """The text."""
        if not isinstance(given, str | int | float) or isinstance(given, bool):
            raise ValueError(self.expected)  # noqa: TRY004 - every kind answers with one exception
        text = str(given)
        if self.choices and text not in self.choices:
            raise ValueError(self.expected)
        return text


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. ``may_be_empty``: nothing listens then."""

    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        """What is accepted."""
        return "HOST:PORT, [IPV6]:PORT or unix:PATH" + (", or empty" if self.may_be_empty else "")

    def read(self, given: object) -> str:
        """The address as it was written."""
        if given == "" and self.may_be_empty:
            return ""
        try:
            parse_address(str(given))
        except AddressError as error:
            raise ValueError(self.expected) from error
        return str(given)


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts: a YAML list, or one text with commas."""

    @property
    def expected(self) -> str:
        """What is accepted."""
        return "a list, or texts with commas between them"

    def read(self, given: object) -> tuple[str, ...]:
        """The texts, without empty ones."""
        parts = given.split(",") if isinstance(given, str) else given
        if not isinstance(parts, list):
            raise ValueError(self.expected)  # noqa: TRY004 - every kind answers with one exception
        texts = [part.strip() for part in cast("list[object]", parts) if isinstance(part, str)]
        if len(texts) < len(cast("list[object]", parts)):
            raise ValueError(self.expected)
        return tuple(text for text in texts if text)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """What is accepted."""
        return f"a whole number from {self.minimum} to {self.maximum}"

    def read(self, given: object) -> int:
        """The number."""
        text = str(given).strip()
        if isinstance(given, bool) or not text.isdecimal() or not self.minimum <= int(text) <= self.maximum:
            raise ValueError(self.expected)
        return int(text)


@dataclass(frozen=True, slots=True)
class Workers:
    """A number of processes; ``auto`` is one for each core this process may use."""

    @property
    def expected(self) -> str:
        """What is accepted."""
        return "auto, or " + Whole(1, 256).expected

    def read(self, given: object) -> int:
        """The number."""
        try:
            return len(os.sched_getaffinity(0)) if given == "auto" else Whole(1, 256).read(given)
        except ValueError:
            raise ValueError(self.expected) from None


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, plain or with a binary unit."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """What is accepted."""
        return f"bytes from {size_text(self.minimum)} to {size_text(self.maximum)} (such as 64MiB)"

    def read(self, given: object) -> int:
        """The number of bytes."""
        found = _SIZE.fullmatch(str(given).strip())
        if found is None or isinstance(given, bool):
            raise ValueError(self.expected)
        count = int(found[1]) * _UNITS[(found[2] or "").lower()]
        if not self.minimum <= count <= self.maximum:
            raise ValueError(self.expected)
        return count


@dataclass(frozen=True, slots=True)
class Span:
    """A time in seconds, plain or with a unit."""

    minimum_s: float
    maximum_s: float

    @property
    def expected(self) -> str:
        """What is accepted."""
        return f"seconds from {self.minimum_s:g} to {self.maximum_s:g} (or such as 500ms, 5m, 7d)"

    def read(self, given: object) -> float:
        """The number of seconds."""
        found = _SPAN.fullmatch(str(given).strip())
        if found is None or isinstance(given, bool):
            raise ValueError(self.expected)
        seconds = float(found[1]) * _SECONDS[(found[2] or "").lower()]
        if not self.minimum_s <= seconds <= self.maximum_s:
            raise ValueError(self.expected)
        return seconds


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off."""

    @property
    def expected(self) -> str:
        """What is accepted."""
        return "true or false"

    def read(self, given: object) -> bool:
        """The truth."""
        match given:
            case bool():
                return given
            case str() if given.lower() in ("true", "1", "yes", "on"):
                return True
            case str() if given.lower() in ("false", "0", "no", "off"):
                return False
            case _:
                raise ValueError(self.expected)


@dataclass(frozen=True, slots=True)
class File:
    """A path; ``must_exist`` for files that are read at start."""

    must_exist: bool = True

    @property
    def expected(self) -> str:
        """What is accepted."""
        return "a readable file" if self.must_exist else "a path"

    def read(self, given: object) -> Path | None:
        """The path; None when it was left empty."""
        if not isinstance(given, str):
            raise ValueError(self.expected)  # noqa: TRY004 - every kind answers with one exception
        if not given:
            return None
        if self.must_exist and not Path(given).is_file():
            raise ValueError(self.expected)
        return Path(given)


def size_text(count: int) -> str:
    """Bytes as a person writes them: the largest unit that divides the number."""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"
