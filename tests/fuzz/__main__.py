"""Run one fuzz target until it fails, or within the bounds given.

    python -m tests.fuzz sse -max_total_time=600
    python -m tests.fuzz json_array -runs=100000 path/to/corpus

Everything after the name goes to libFuzzer (``-help=1`` lists it). New inputs are kept in
the corpus folder, if one is given. A failing input is written to ``crash-…`` in the
current folder: run it again by giving that file's path in place of a folder.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, cast


class Atheris(Protocol):
    """What we use of the fuzzer, which has no types and is not installed everywhere."""

    def instrument_imports(self, include: Iterable[str]) -> AbstractContextManager[None]:
        """Trace the coverage of the packages imported meanwhile."""
        ...

    def Setup(self, argv: list[str], test_one_input: Callable[[bytes], None]) -> list[str]:  # noqa: N802  # theirs
        """Read libFuzzer's options."""
        ...

    def Fuzz(self) -> None:  # noqa: N802  # theirs
        """Run; ends the process."""
        ...


atheris = cast("Atheris", importlib.import_module("atheris"))

with atheris.instrument_imports(include=["capture", "extproc.transport.http2", "hpack"]):
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Set libFuzzer up for the named target; it ends the process itself."""
    if len(sys.argv) == 1 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz TARGET [libFuzzer options]; targets: {' '.join(TARGETS)}")
    target, options = TARGETS[sys.argv[1]], sys.argv[2:]
    if not any(Path(option).is_file() for option in options):
        options.append(seed_folder(target))
    atheris.Setup([sys.argv[0], *options], target.one_input)
    atheris.Fuzz()


def seed_folder(target: Target) -> str:
    """The target's seeds as files. In the place for temporary files, for the system to clean."""
    folder = Path(tempfile.mkdtemp(prefix="steno-fuzz-"))
    for number, seed in enumerate(target.seeds):
        for choice in (0, 1, 255):
            (folder / f"{number}-{choice}").write_bytes(bytes((choice,)) + seed)
    return str(folder)


if __name__ == "__main__":
    main()
