"""What an operator may choose about the sidecar. ``steno.settings`` has the table of names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from capture.classify import Classifier
from extproc.budget import BudgetLimits
from ingest_client.delivery.settings import DeliverySettings
from ingest_client.spool.settings import SpoolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """PEM files of the ext_proc listener. With ``client_ca`` Envoy must show a certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """Settings of one sidecar: its supervisor and all its workers.

    Worker ``i`` listens on the port of ``listen`` plus ``i``, or on its socket path with
    ``.i``; worker 0 on ``listen`` itself. ``access_log_listen`` is empty where the supervisor
    does not read Envoy's access log.
    """

    listen: str
    admin_listen: str
    data_dir: Path
    workers: int
    drain_s: float
    queue_turns: int
    queue_bytes: int
    budget: BudgetLimits
    capture_errors: bool
    quarantine_raw: bool
    log_level: str
    transport: str
    rest_s: float = 0.05
    classifier: Classifier = field(default_factory=Classifier)
    tls: TlsSettings | None = None
    access_log_listen: str = ""
    access_log_grace_s: float = 30.0
    handover_s: float = 600.0
    connection_age_s: float = 60.0
    spool: SpoolSettings
    delivery: DeliverySettings


def encode_settings(settings: SidecarSettings) -> bytes:
    """The settings as one line of JSON, for a worker's stdin."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode_settings(line: bytes) -> SidecarSettings:
    """Read what :func:`encode_settings` wrote."""
    return msgspec.json.decode(line, type=SidecarSettings, dec_hook=lambda kind, text: kind(text))


_FIXED: Final = ("listen", "transport", "admin_listen", "data_dir", "workers", "access_log_listen")


def need_a_restart(running: SidecarSettings, wanted: SidecarSettings) -> list[str]:
    """The settings (their YAML paths) that differ and that new workers alone cannot bring about."""
    fixed = [f"extproc.{name}" for name in _FIXED if getattr(running, name) != getattr(wanted, name)]
    if running.access_log_grace_s != wanted.access_log_grace_s:
        fixed.append("extproc.access_log_grace")
    if running.spool.memory_only != wanted.spool.memory_only:
        fixed.append("extproc.memory_only")
    return fixed
