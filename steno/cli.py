"""``steno``: parse the command line, run one command, exit with its code.

Exit codes: 0 done, 1 the command failed (its last line says why), 2 the command line
or the settings cannot be used.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Final, cast

from steno.errors import CommandError, not_installed

COMMANDS: Final[Mapping[str, str]] = {
    "up": "run the whole path here, with a real Envoy, and show one turn",
    "extproc": "run the sidecar beside Envoy",
    "ingest": "run the service that stores turns",
    "spool": "look into what waits on disk, and put things right",
    "ledger": "show what became of every exchange",
    "replay": "send recorded exchanges or exported turns again",
    "reduce": "show what recorded exchanges reduce to",
    "config": "print configuration that matches Steno's settings: Envoy's side",
}
"""Each command is a module of ``steno.commands`` with ``configure(parser)``; only the one
that was asked for is imported, because some load a server and some must start at once."""

_EPILOG: Final = """\
Every setting has a flag, an environment variable (STENO_EXTPROC_LISTEN for
`extproc --listen`) and a place in a YAML file (extproc.listen; name the file with
--config or STENO_CONFIG). A flag beats the environment, which beats the file.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``steno``. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parser(given[0] if given else "").parse_args(given)
        return cast("Callable[[argparse.Namespace], int]", parsed.run)(parsed)
    except CommandError as error:
        print(f"steno: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser(asked: str) -> argparse.ArgumentParser:
    """The parser, with the flags of the command that was asked for."""
    parser = argparse.ArgumentParser(
        prog="steno",
        description="Takes down every LLM turn that passes through Envoy, and never interrupts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"steno {version('steno')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        if name == asked:
            _command(name).configure(command)
    return parser


def _command(name: str) -> ModuleType:
    """The command's module. Raises :class:`CommandError` naming the extra that is not installed."""
    try:
        return import_module(f"steno.commands.{name}")
    except ModuleNotFoundError as error:
        raise not_installed(name, error) from error
