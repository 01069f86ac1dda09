"""Bearer token and TLS files of one endpoint, read again when they change.

Kubernetes and certificate managers replace such files in place, often through a symbolic
link, so a change is a change of (inode, size, modification time). What cannot be read
leaves the previous state in use and is reported once per change; what could never be
read holds the endpoint.
"""

import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.settings import EndpointSettings

log: Final = logging.getLogger("steno.delivery")

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_LOOK_EVERY_S: Final = 1.0
_MAX_TOKEN_BYTES: Final = 64 * 1024


class CredentialsUnreadable(Exception):  # noqa: N818 - a state of the world, not an error of ours
    """A configured file has never been readable; the message names it, never its content."""


_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(slots=True)
class Credentials:
    """What proves us to an endpoint, and the endpoint to us. Looks at the files at most once a second."""

    settings: EndpointSettings
    counters: DeliveryCounters
    generation: int = 0
    """Grows whenever the TLS context was made anew: older connections are not to be used again."""
    _token: str | None = None
    _context: ssl.SSLContext | None = None
    _token_stamp: _Stamp = ()
    _tls_stamp: _Stamp = ()
    _looked_at_s: float | None = field(default=None)
    _trouble: dict[str, str] = field(default_factory=dict[str, str])

    def refresh(self, now_s: float) -> None:
        """Read changed files. Raises :class:`CredentialsUnreadable` while nothing usable was ever read."""
        if self._looked_at_s is None or now_s - self._looked_at_s >= _LOOK_EVERY_S:
            self._looked_at_s = now_s
            self._refresh_token()
            self._refresh_context()
        if self.settings.token_file is not None and self._token is None:
            raise CredentialsUnreadable(self._trouble["token"])
        if self._secure and self._context is None:
            raise CredentialsUnreadable(self._trouble["tls"])

    @property
    def token(self) -> str | None:
        """The bearer token, without white space around it."""
        return self._token

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context of an https endpoint."""
        return self._context

    @property
    def _secure(self) -> bool:
        return self.settings.url.startswith("https:")

    def _refresh_token(self) -> None:
        path = self.settings.token_file
        if path is None:
            return
        stamp = _stamp((path,))
        if stamp == self._token_stamp:
            return
        self._token_stamp = stamp
        try:
            with path.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeError) as error:
            self._failed("token", f"token_file {path} cannot be read: {type(error).__name__}")
            return
        if _TOKEN.fullmatch(token) is None:
            self._failed("token", f"token_file {path} holds no token: expected one word of printable ASCII")
            return
        self._token = token
        self._mended("token")

    def _refresh_context(self) -> None:
        if not self._secure:
            return
        files = [
            file
            for file in (self.settings.ca_file, self.settings.cert_file, self.settings.key_file)
            if file is not None
        ]
        stamp = _stamp(files)
        if self._context is not None and stamp == self._tls_stamp:
            return
        self._tls_stamp = stamp
        try:
            self._context = make_context(self.settings)
        except (OSError, ssl.SSLError, ValueError) as error:
            self._failed("tls", f"TLS files cannot be used: {type(error).__name__}: {error}")
            return
        self.generation += 1
        self._mended("tls")

    def _failed(self, what: str, reason: str) -> None:
        if self._trouble.get(what) != reason:
            log.error("credentials for %s: %s", self.settings.url, reason)
        self._trouble[what] = reason
        self.counters.credential_failures += 1

    def _mended(self, what: str) -> None:
        if self._trouble.pop(what, None) is not None:
            log.warning("credentials for %s: %s is readable again", self.settings.url, what)
        self.counters.credential_reloads += 1


def make_context(settings: EndpointSettings) -> ssl.SSLContext:
    """A context that verifies certificate and name, at least TLS 1.2, with our own certificate if given."""
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.cert_file is not None:
        key = None if settings.key_file is None else str(settings.key_file)
        # An encrypted key would ask on the terminal; an empty answer makes it an error instead.
        context.load_cert_chain(str(settings.cert_file), key, password=lambda: "")
    return context


def _stamp(paths: Sequence[Path]) -> _Stamp:
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)
