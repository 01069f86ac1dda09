"""``steno ingest``: run the ingest service."""

import argparse
import asyncio
import logging
from typing import cast

from extproc.logs import log_to_stderr
from ingest.app import StartError, serve
from ingest.settings import IngestSettings
from steno.settings.flags import add_flags, read_flags

_log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser, "ingest")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    values = read_flags(parsed, "ingest")
    log_to_stderr("ingest", cast("str", values["ingest.log_level"]))
    settings = IngestSettings(
        listen=cast("str", values["ingest.listen"]),
        database_url=cast("str", values["ingest.database_url"]),
        project=cast("str", values["ingest.project"]),
        max_body_bytes=cast("int", values["ingest.max_body"]),
        drain_s=cast("float", values["ingest.drain"]),
    )
    try:
        asyncio.run(serve(settings))
    except StartError as error:
        _log.error("ingest cannot run: %s", error)
        return 1
    return 0
