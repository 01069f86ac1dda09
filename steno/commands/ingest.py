"""``steno ingest``: run the ingest service; with an action, do something to its store."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from extproc.logs import log_to_stderr
from ingest.retention import Rule, read_rules
from ingest.settings import IngestSettings
from ingest.tenant_rules import TenantRulesError
from steno.commands.ingest_store import add_actions
from steno.errors import not_installed
from steno.settings.flags import add_flags, read_flags
from steno.settings.load import SettingsError

_log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser, "ingest")
    parser.set_defaults(run=_run)
    add_actions(parser)


def _run(parsed: argparse.Namespace) -> int:
    try:  # a web server, which help and the actions do without
        from ingest.app import StartError, run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise not_installed("ingest", error) from error
    values = read_flags(parsed, "ingest")
    log_to_stderr("ingest", cast("str", values["ingest.log_level"]))
    try:
        run(ingest_settings(values))
    except StartError as error:
        _log.error("ingest cannot run: %s", error)
        return 1
    return 0


def ingest_settings(values: Mapping[str, object]) -> IngestSettings:
    """Make the service's settings of the table's values. Raises SettingsError."""
    try:
        return _settings(values)
    except ValueError as error:  # values that are good alone and not together
        raise SettingsError(f"ingest: {error}") from error


def _settings(values: Mapping[str, object]) -> IngestSettings:
    return IngestSettings(
        listen=cast("str", values["ingest.listen"]),
        database_url=cast("str", values["ingest.database_url"]),
        project=cast("str", values["ingest.project"]),
        max_body_bytes=cast("int", values["ingest.max_body"]),
        queue_jobs=cast("int", values["ingest.queue_jobs"]),
        queue_bytes=cast("int", values["ingest.queue_bytes"]),
        drain_s=cast("float", values["ingest.drain"]),
        keys_file=cast("Path | None", values["ingest.keys_file"]),
        tls_certificate=cast("Path | None", values["ingest.tls_cert_file"]),
        tls_key=cast("Path | None", values["ingest.tls_key_file"]),
        tls_client_ca=cast("Path | None", values["ingest.tls_client_ca_file"]),
        tls_client_optional=cast("bool", values["ingest.tls_client_optional"]),
        listen_anywhere=cast("bool", values["ingest.listen_anywhere"]),
        limits_file=cast("Path | None", values["ingest.limits_file"]),
        retention=_retention(cast("Path | None", values["ingest.retention_file"])),
    )


def _retention(path: Path | None) -> tuple[Rule, ...]:
    if path is None:
        return ()
    try:
        return read_rules(path)
    except TenantRulesError as error:
        raise SettingsError(f"ingest.retention_file: {path}: {error}") from error
