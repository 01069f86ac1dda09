"""``steno extproc``: run the sidecar."""

import argparse
import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec
import yaml

from capture.classify import Classifier, Override
from capture.turn import Dialect
from extproc.budget import BudgetLimits
from extproc.generation import WorkerError
from extproc.logs import log_to_stderr
from extproc.settings import SidecarSettings, TlsSettings
from extproc.supervisor import Supervisor
from extproc.transport.address import AddressError
from ingest_client.delivery.settings import DeliverySettings, DeliverySettingsError, EndpointSettings
from ingest_client.spool.settings import SpoolSettings
from steno.settings.flags import add_flags, read_flags
from steno.settings.load import SettingsError

_log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser, "extproc")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    def read() -> SidecarSettings:
        return sidecar_settings(read_flags(parsed, "extproc"))

    settings = read()
    log_to_stderr("supervisor", settings.log_level)
    try:
        asyncio.run(serve(settings, read))
    except (WorkerError, AddressError) as error:
        _log.error("the sidecar cannot run: %s", error)
        return 1
    return 0


async def serve(settings: SidecarSettings, read: Callable[[], SidecarSettings]) -> None:
    """Run the sidecar until SIGTERM or SIGINT. Raises when it cannot start.

    SIGHUP: ``read`` the settings again (it raises SettingsError) and replace every worker.
    """
    supervisor = Supervisor(settings, time.monotonic)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, supervisor.stop)
    loop.add_signal_handler(signal.SIGHUP, _replace, supervisor, read)
    await supervisor.start()
    _log.info(
        "sidecar is up",
        extra={
            "listen": supervisor.addresses,
            "admin": supervisor.admin_address,
            "access_log": supervisor.access_log_address or None,
        },
    )
    await supervisor.run()
    _log.info("sidecar has stopped")


def _replace(supervisor: Supervisor, read: Callable[[], SidecarSettings]) -> None:
    """SIGHUP: new workers with the settings as they are now, or a log line that says why not."""
    try:
        settings = read()
    except SettingsError as error:
        supervisor.refuse(str(error))
        return
    log_to_stderr("supervisor", settings.log_level)
    supervisor.replace(settings)


def sidecar_settings(values: Mapping[str, object]) -> SidecarSettings:
    """Make the sidecar's settings of the table's values. Raises SettingsError."""

    def value(name: str) -> object:
        return values[f"extproc.{name}"]

    def file(name: str) -> Path | None:
        return cast("Path | None", value(name))

    problems: list[str] = []
    delivery = _delivery(values, problems)
    certificate, key, client_ca = file("tls_cert_file"), file("tls_key_file"), file("tls_client_ca_file")
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        problems.append("extproc.tls_cert_file: goes with tls_key_file, and tls_client_ca_file needs both")
    classifier = Classifier(
        _backends(file("backends_file"), problems), _overrides(file("routes_file"), problems)
    )
    if problems or delivery is None:
        raise SettingsError("these settings cannot be used:\n  " + "\n  ".join(problems))
    return SidecarSettings(
        listen=cast("str", value("listen")),
        admin_listen=cast("str", value("admin_listen")),
        data_dir=file("data_dir") or Path(),
        workers=cast("int", value("workers")),
        drain_s=cast("float", value("drain")),
        queue_turns=cast("int", value("queue_turns")),
        queue_bytes=cast("int", value("queue_bytes")),
        budget=BudgetLimits(
            max_bytes=cast("int", value("memory_budget")),
            max_exchanges=cast("int", value("open_exchanges")),
            tenant_share=cast("int", value("tenant_share")) / 100,
        ),
        capture_errors=cast("bool", value("capture_errors")),
        quarantine_raw=cast("bool", value("quarantine_raw")),
        log_level=cast("str", value("log_level")),
        transport=cast("str", value("transport")),
        rest_s=cast("float", value("rest")),
        classifier=classifier,
        access_log_listen=cast("str", value("access_log_listen")),
        access_log_grace_s=cast("float", value("access_log_grace")),
        handover_s=cast("float", value("handover")),
        connection_age_s=cast("float", value("connection_age")),
        tls=TlsSettings(certificate=certificate, key=key, client_ca=client_ca)
        if certificate is not None and key is not None
        else None,
        spool=SpoolSettings(
            memory_only=cast("bool", value("memory_only")),
            quota_bytes=cast("int", value("spool_quota")),
            quota_age_s=cast("float", value("spool_max_age")),
            stale_after_s=cast("float", value("interrupted_after")),
        ),
        delivery=delivery,
    )


def _delivery(values: Mapping[str, object], problems: list[str]) -> DeliverySettings | None:
    def file(name: str) -> Path | None:
        return cast("Path | None", values[f"extproc.ingest_{name}_file"])

    try:
        return DeliverySettings(
            endpoints=tuple(
                EndpointSettings(
                    url=url,
                    token_file=file("token"),
                    ca_file=file("ca"),
                    cert_file=file("cert"),
                    key_file=file("key"),
                )
                for url in cast("tuple[str, ...]", values["extproc.ingest_url"])
            )
        )
    except DeliverySettingsError as error:
        problems.append(f"extproc.ingest_url: {error}")
        return None


def _backends(path: Path | None, problems: list[str]) -> dict[str, str]:
    name = "extproc.backends_file"
    document = _yaml(path, name, problems)
    members = cast("dict[object, object]", document) if isinstance(document, dict) else {}
    if not isinstance(document, dict | None) or not all(isinstance(value, str) for value in members.values()):
        problems.append(f"{name}: {path}: expected lines of `backend: provider`")
    return {str(backend): str(provider) for backend, provider in members.items()}


def _overrides(path: Path | None, problems: list[str]) -> tuple[Override, ...]:
    name = "extproc.routes_file"
    document = _yaml(path, name, problems)
    try:
        return msgspec.convert(document or [], tuple[Override, ...])
    except msgspec.ValidationError as error:
        dialects = ", ".join(dialect.value for dialect in Dialect)
        problems.append(
            f"{name}: {path}: expected a list of path, dialect, provider (and host, vendor): {error}."
            f" Dialects: {dialects}"
        )
        return ()


def _yaml(path: Path | None, name: str, problems: list[str]) -> object:
    if path is None:
        return None
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{name}: {path} cannot be read: {error}")
        return None
    return document
