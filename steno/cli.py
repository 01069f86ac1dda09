"""``steno``: parse the command line, run one command, exit with its code.

Exit codes: 0 done, 1 the command failed (its last line says why), 2 the command line
or the settings cannot be used.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final, cast

from extproc.transport.address import AddressError
from steno.commands import extproc, ingest, up
from steno.settings.load import SettingsError

_COMMANDS: Final = (up, extproc, ingest)

_EPILOG: Final = """\
Every setting has a flag, an environment variable (STENO_EXTPROC_LISTEN for
`extproc --listen`) and a place in a YAML file (extproc.listen; name the file with
--config or STENO_CONFIG). A flag beats the environment, which beats the file.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``steno``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="steno",
        description="Takes down every LLM turn that passes through Envoy, and never interrupts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"steno {version('steno')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    parsed = parser.parse_args(arguments)
    run = cast("Callable[[argparse.Namespace], int]", parsed.run)
    try:
        return run(parsed)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except AddressError as error:
        print(f"steno: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
