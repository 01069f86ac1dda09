"""What can be set about the service, with defaults and their reasons."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingest.retention import Rule

MAX_BODY_BYTES: Final = 33_554_432 + 11_184_810 + 4_194_304
"""The contract's limit (``contracts/wire.md`` §1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """Settings of one ingest service.

    ``listen``: HOST:PORT; port 0 lets the system choose. ``database_url``:
    ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql://…``.
    """

    listen: str = "127.0.0.1:8090"
    database_url: str = "sqlite:///steno-ingest.db"
    project: str = ""
    max_body_bytes: int = MAX_BODY_BYTES  # 1024 … the contract's: a sidecar counts on it
    queue_jobs: int = 4096  # 1 … 1,000,000: about a second of writes
    queue_bytes: int = 268_435_456  # 1 MiB …: the contract's 256 MiB
    drain_s: float = 20.0  # 0 … 600, rounded up to whole seconds, at least 1: less than Kubernetes' 30 s
    derive: bool = True
    keys_file: Path | None = None  # None: open to everybody, on loopback only
    limits_file: Path | None = None  # YAML, read again when it changes; None: no limits per tenant
    retention: tuple[Rule, ...] = ()  # accepted turns are kept for good, rejected ones 30 days
    tls_certificate: Path | None = None  # PEM; read again when it changes
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # clients must then show a certificate of this authority
    tls_client_optional: bool = False  # or may come without one, with a key: probes have no certificate
    listen_anywhere: bool = False  # allow an open service beyond loopback, on purpose

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming every such setting and its range."""
        problems = [
            f"{name} must be {low} to {high}"
            for name, (low, high) in RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        for name, needs in _NEEDS.items():
            if getattr(self, name) and not getattr(self, needs):
                problems.append(f"{name} needs {needs}")
        if problems:
            raise ValueError("; ".join(problems))


_NEEDS: Final = {
    "tls_key": "tls_certificate",
    "tls_client_ca": "tls_certificate",
    "tls_client_optional": "tls_client_ca",
}
"""Without what they need these would do nothing, and nobody would notice."""
RANGES: Final[dict[str, tuple[float, float]]] = {
    "max_body_bytes": (1024, 1 << 30),
    "queue_jobs": (1, 1_000_000),
    "queue_bytes": (1 << 20, 1 << 40),
    "drain_s": (0, 600),
}
