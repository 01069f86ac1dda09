"""Reads settings: flag, else environment, else file, else default. Every problem is told at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

from steno.errors import CommandError
from steno.settings.table import ROWS, Row


class SettingsError(CommandError):
    """The settings cannot be used. The text lists every problem, one a line."""

    exit_code = 2


def load(section: str, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, object]:
    """Read a section's settings by their YAML path.

    ``flags``: path → text given on the command line (None when not given). The file is
    named by the flag ``config`` or by STENO_CONFIG. Raises :class:`SettingsError`.
    """
    problems: list[str] = []
    given = _from_file(flags.get("config") or environment.get("STENO_CONFIG"), problems)
    values: dict[str, object] = {}
    for row in ROWS:
        if row.section != section:
            continue
        source, text = _chosen(row, flags, environment, given)
        try:
            values[row.path] = row.kind.read(text)
        except ValueError:
            problems.append(f"{source}: expected {row.kind.expected}, got {text!r}")
    problems += [
        f"{name}: unknown setting (see `steno {section} --help`)"
        for name in given
        if name not in {row.path for row in ROWS}
    ]
    if problems:
        raise SettingsError("these settings cannot be used:\n  " + "\n  ".join(problems))
    return values


def _chosen(
    row: Row, flags: Mapping[str, str | None], environment: Mapping[str, str], given: Mapping[str, object]
) -> tuple[str, object]:
    """The setting's value and where it comes from, by its name there."""
    flag = flags.get(row.path)
    if flag is not None:
        return row.flag, flag
    for variable in filter(None, (row.variable, row.also)):
        if variable in environment:
            return variable, environment[variable]
    if row.path in given:
        return row.path, given[row.path]
    return row.path, row.default


def _from_file(name: str | None, problems: list[str]) -> dict[str, object]:
    """The file's settings, flattened to their paths."""
    if not name:
        return {}
    try:
        document: object = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{name}: cannot be read: {error.strerror}")
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{name}: is not YAML: {error}")
        return {}
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.append(f"{name}: expected sections (extproc:, ingest:) with their settings")
        return {}
    return _flat("", cast("dict[object, object]", document))


def _flat(prefix: str, members: dict[object, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in members.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat |= _flat(f"{path}.", cast("dict[object, object]", value))
        else:
            flat[path] = value
    return flat


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ
