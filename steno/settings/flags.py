"""Settings as command-line flags: every row of a section becomes one."""

import argparse
from collections.abc import Mapping
from typing import Final, cast

from steno.settings.load import environment, load
from steno.settings.table import ROWS

_PREFIX: Final = "setting:"


def add_flags(parser: argparse.ArgumentParser, section: str) -> None:
    """Add ``--config`` and a flag for every setting of the section."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings (STENO_CONFIG)")
    for row in ROWS:
        if row.section == section:
            parser.add_argument(
                row.flag,
                dest=_PREFIX + row.path,
                metavar="VALUE",
                help=f"{row.help} Default: {row.default or 'none'} ({row.variable})".replace("%", "%%"),
            )


def read_flags(parsed: argparse.Namespace, section: str) -> dict[str, object]:
    """The section's settings from flags, environment, file and defaults. Raises SettingsError."""
    given = cast("Mapping[str, str | None]", vars(parsed))
    flags = {name.removeprefix(_PREFIX): value for name, value in given.items() if name.startswith(_PREFIX)}
    return load(section, flags | {"config": given.get("config")}, environment())
