"""``steno reduce``: what recorded exchanges reduce to, one JSON line each.

The first thing to use when a capture looks wrong. What reduces is imported when the
first input is read, so that help and usage errors come at once.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec

if TYPE_CHECKING:
    from steno.recorded import Recorded

_HELP: Final = {
    "content_type": "the response's content type (default: by the file's extension)",
    "content_encoding": "the response's content coding, still to be undone",
    "path": "the path of the request, as /v1/messages",
    "host": "the host of the request, as api.anthropic.com",
}

_EPILOG: Final = """\
PATH is a file that holds a response body (say the rest with the options), a case folder
(meta.json, request.json, response.*), or a folder of those at any depth. Each gives one
line on stdout, {"case": PATH, …} with one of

  "turn"      the provider-neutral view
  "excluded"  why there is no turn: an outcome's name
  "error"     why none could be made

The exit code is 0 when every input was read; else 1, and stderr names the others.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a file, a case folder, or a folder of those"
    )
    for name, purpose in _HELP.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default="", metavar="VALUE", help=purpose)
    parser.add_argument("--request", metavar="FILE", help="the request body of a bare file")
    parser.add_argument("--status", type=int, default=200, help="the response's status (default: 200)")
    parser.add_argument("--pretty", action="store_true", help="indent the JSON, for people")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    try:
        failed = sum(not _told(parsed, case, folder) for case, folder in _inputs(parsed.paths))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 1 if failed else 0


def _told(parsed: argparse.Namespace, case: str, folder: Path | None) -> bool:
    """Write the line of one input. False when it could not be read."""
    from steno.recorded import UnreadableError, read_case, shown  # noqa: PLC0415 - see the module's text

    pretty = cast("bool", parsed.pretty)
    try:
        recorded = read_case(folder) if folder is not None else _bare(parsed, case)
    except UnreadableError as error:
        _write({"case": case, "error": str(error)}, pretty=pretty)
        print(f"steno reduce: {case}: {error}", file=sys.stderr)
        return False
    _write({"case": case, **shown(recorded)}, pretty=pretty)
    return True


def _inputs(paths: list[str]) -> Iterator[tuple[str, Path | None]]:
    """Each input's name as given, with its folder (None: it is a bare file, or nothing)."""
    for given in paths:
        if not Path(given).is_dir():
            yield given, None
            continue
        found = False
        for folder in _case_folders(given):
            found = True
            yield folder, Path(folder)
        if not found:  # reading it says what is missing
            yield given, Path(given)


def _case_folders(top: str) -> Iterator[str]:
    for folder, below, files in os.walk(top):
        below.sort()
        if "meta.json" in files:
            yield folder


def _bare(parsed: argparse.Namespace, case: str) -> "Recorded":
    from steno.recorded import read_file  # noqa: PLC0415 - see the module's text

    given = {name: cast("str", getattr(parsed, name)) for name in _HELP}
    request = cast("str | None", parsed.request)
    return read_file(Path(case), given, cast("int", parsed.status), Path(request) if request else None)


def _write(line: dict[str, object], *, pretty: bool) -> None:
    try:
        text = msgspec.json.encode(line)
    except RecursionError:
        text = msgspec.json.encode({"case": line["case"], "error": "the turn is nested too deeply to show"})
    if pretty:
        text = msgspec.json.format(text, indent=2)
    sys.stdout.buffer.write(text + b"\n")
