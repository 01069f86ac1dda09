"""What an operator may choose about delivery. Every default carries its reason."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit


class DeliverySettingsError(ValueError):
    """A setting that cannot work, with its name and what would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One ingest service. ``url`` is its base: scheme, host, optional port and path prefix.

    ``token_file`` holds a bearer token, read again when it changes. ``ca_file`` replaces
    the system's certificate authorities; ``cert_file`` and ``key_file`` are our own
    certificate for mutual TLS. TLS files are read again when they change, too.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could never be sent to, or would leak credentials into logs."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise DeliverySettingsError(
                f"ingest url {_shown(self.url)!r}: expected http://HOST or https://HOST"
            )
        if parts.username is not None or parts.password is not None:
            raise DeliverySettingsError("ingest url: credentials do not belong there, use token_file")
        if parts.query or parts.fragment:
            raise DeliverySettingsError(
                f"ingest url {_shown(self.url)!r}: expected neither query nor fragment"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise DeliverySettingsError(f"ingest url {_shown(self.url)!r}: {error}") from error
        if port == 0:
            raise DeliverySettingsError(f"ingest url {_shown(self.url)!r}: port 0 cannot be connected to")
        if any(character <= " " or character == "\x7f" for character in self.url):
            raise DeliverySettingsError("ingest url: it holds white space or control characters")
        if self.key_file is not None and self.cert_file is None:
            raise DeliverySettingsError("key_file needs cert_file beside it")


def _shown(url: str) -> str:
    """The url without anything that could be a secret."""
    return url.split("?", 1)[0].split("#", 1)[0].rsplit("@", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How turns are delivered. Durations in seconds, sizes in bytes."""

    endpoints: tuple[EndpointSettings, ...]
    requests_per_endpoint: int = 32
    """In flight at once. A tenant gets at most half of what is left, so one alone has 16: enough for 160
    requests/s at 100 ms of latency, and more only where batches do not help. Tenants whose turns hang
    can never take the last of them from the others until six hang at once."""
    in_flight_bytes: int = 32 * 1024 * 1024
    """Bodies claimed and not yet settled, over all endpoints (beyond it by one turn at most)."""
    in_flight_turns: int = 4096
    """The same in turns: small ones cost more than their bytes."""
    ready_turns_per_tenant: int = 128
    """Claimed ahead of need: two full batches, so that claiming and sending overlap."""
    quantum_bytes: int = 64 * 1024
    """What a tenant may send per round: a few ordinary turns."""
    gather_s: float = 0.2
    """From one claim to the next, while fewer than a batch wait: a claim, a request and an acknowledgement
    cost for several turns what they cost for one. The first turn after a quiet while is sent at once."""
    batch_turns: int = 64
    """Preferred size of a batch where the endpoint does not name its own. 1 turns batches off."""
    batch_bytes: int = 1024 * 1024
    """The same in bytes: a tenth of a second on a 100 Mbit/s line."""
    alone_after_failures: int = 2
    """A turn whose batch failed this often travels alone: it may be the one that breaks them."""
    compress: bool = True
    """Compress where the endpoint has said (``Accept-Encoding`` in an answer) that it accepts it."""
    compress_min_bytes: int = 1024
    """Below this a coding saves no packet."""
    connect_timeout_s: float = 5.0
    answer_timeout_s: float = 30.0
    """From the first byte sent to the last byte of the answer, plus the body at ``slowest_upload``."""
    slowest_upload: int = 256 * 1024
    """Bytes per second below which an upload is given up."""
    max_answer_bytes: int = 64 * 1024
    """Of an answer, head and framing included, no more is read."""
    keepalive_s: float = 4.0
    """An idle connection is closed before servers do it (a common default there is 5 s)."""
    connection_age_s: float = 300.0
    """Connections are renewed, so that a change behind a name is noticed."""
    retry_base_s: float = 0.5
    retry_cap_s: float = 60.0
    """Backoff of a turn: there is no limit by count, the spool's quotas end it."""
    breaker_threshold: int = 5
    """Failures in a row that close the road to an endpoint (or, for a tenant's turns, at an endpoint)."""
    breaker_base_s: float = 1.0
    breaker_cap_s: float = 30.0
    """How long it stays closed: half a minute after ingest is back, turns flow."""
    hold_base_s: float = 5.0
    hold_cap_s: float = 60.0
    """How long an endpoint is left alone that needs a person (401, 404, a redirect)."""
    retry_after_cap_s: float = 300.0
    """The longest ``Retry-After`` that is believed: an endpoint cannot park turns for a day by mistake."""
    heartbeat_s: float = 10.0
    heartbeat_anxious_s: float = 2.0
    """Between heartbeats while an endpoint is not well, so that its return is noticed soon."""
    gone_after_s: float = 30.0
    """Without any answer for this long an endpoint is gone."""
    relearn_s: float = 600.0
    """What an endpoint was found not to support, or to find too large, is tried again after this."""
    poll_s: float = 0.5
    """How often, at least, delivery looks whether something may be sent that could not be before."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if not self.endpoints:
            raise DeliverySettingsError("endpoints: expected at least one ingest url")
        urls = [endpoint.url for endpoint in self.endpoints]
        if len(set(urls)) < len(urls):
            raise DeliverySettingsError("endpoints: the same ingest url is listed twice")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise DeliverySettingsError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise DeliverySettingsError(
                    f"{name}: expected more than 0 seconds, got {getattr(self, name)}"
                )


_AT_LEAST_ONE: Final = (
    "requests_per_endpoint",
    "in_flight_bytes",
    "in_flight_turns",
    "ready_turns_per_tenant",
    "quantum_bytes",
    "batch_turns",
    "batch_bytes",
    "alone_after_failures",
    "slowest_upload",
    "max_answer_bytes",
    "breaker_threshold",
)
_POSITIVE: Final = (
    "connect_timeout_s",
    "answer_timeout_s",
    "keepalive_s",
    "connection_age_s",
    "retry_base_s",
    "retry_cap_s",
    "breaker_base_s",
    "breaker_cap_s",
    "hold_base_s",
    "hold_cap_s",
    "retry_after_cap_s",
    "heartbeat_s",
    "heartbeat_anxious_s",
    "gone_after_s",
    "relearn_s",
    "poll_s",
)
