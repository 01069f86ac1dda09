"""Who may write, read and administer, and for which tenants.

A key is a bearer token, kept as SHA-256 only, or a name in a client's certificate. Without
a keys file the service is open: it then listens on loopback only (unless told otherwise
explicitly), every tenant name is allowed, and ``default`` is the tenant of a turn that
names none.

The keys file is JSON and is read again when it changes::

    {"keys": [{"name": "sidecar-1", "sha256": "<hex of SHA-256 of the token>",
               "tenants": ["team-a", "team-b"], "roles": ["write"]},
              {"name": "sidecar-2", "certificate": "URI:spiffe://cluster/ns/a/sa/envoy",
               "tenants": ["team-a"], "roles": ["write"]}]}

``tenants`` may be ``["*"]``; roles are ``write``, ``read``, ``admin`` (deletion, export).
``certificate`` is a name in a certificate that TLS has verified, as :mod:`ingest.certificates`
writes it. Where a bearer token is sent it is what counts, without one the certificate is.
A file that cannot be read or understood leaves the last good keys in force.
"""

import logging
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum, unique
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ingest.certificates import normal
from ingest.watched import Watched

_log = logging.getLogger("steno.ingest.access")
DEFAULT_TENANT: Final = "default"
ANY: Final = "*"
TENANT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""A tenant's name, the whole of it."""


@unique
class Role(StrEnum):
    """What a credential is good for."""

    WRITE = "write"
    READ = "read"
    ADMIN = "admin"


class UnauthenticatedError(Exception):
    """No credential, or one that nobody knows (401)."""


class AccessError(Exception):
    """The credential is not good for this (403); the text says for what."""


class TenantNameError(ValueError):
    """That is no tenant name (400)."""


def is_tenant(name: str) -> bool:
    """Whether ``name`` may be a tenant's."""
    return re.fullmatch(TENANT, name) is not None


class Principal(Struct, frozen=True, kw_only=True):
    """Somebody with a credential. ``tenants`` may hold ``*``."""

    name: str
    tenants: frozenset[str]
    roles: frozenset[Role]

    def require(self, role: Role) -> None:
        """Raise :class:`AccessError` unless the credential has ``role``."""
        if role not in self.roles:
            raise AccessError(f"this credential may not {role.value}")

    def require_all(self) -> None:
        """Raise :class:`AccessError` unless the credential is good for every tenant."""
        if ANY not in self.tenants:
            raise AccessError("this credential is not good for every tenant")

    def tenant(self, wanted: str) -> str:
        """The tenant to work on; ``wanted`` is the one asked for, or empty.

        Raises :class:`AccessError` outside the list, :class:`TenantNameError` for no name.
        """
        if not wanted:
            return self._default()
        if not is_tenant(wanted):
            raise TenantNameError(
                "a tenant is 1 to 128 letters, digits, dots, dashes or underscores, a letter or digit first"
            )
        if ANY in self.tenants or wanted in self.tenants:
            return wanted
        raise AccessError(f'this credential is not good for tenant "{wanted}"')

    def _default(self) -> str:
        if len(self.tenants) == 1 and ANY not in self.tenants:
            return next(iter(self.tenants))
        if ANY in self.tenants:
            return DEFAULT_TENANT
        raise AccessError("this credential is good for several tenants: name one")


OPEN: Final = Principal(name="open", tenants=frozenset((ANY,)), roles=frozenset(Role))
"""Everybody, when no credentials are configured."""


class _Key(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    tenants: list[str]
    roles: list[Role]
    sha256: str | None = None
    certificate: str | None = None


class _Keys(Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_Key]


class KeysError(ValueError):
    """The keys file cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Who is who: by the SHA-256 of a token (lower-case hex), and by a name of a certificate."""

    tokens: dict[str, Principal] = field(default_factory=dict[str, Principal])
    certificates: dict[str, Principal] = field(default_factory=dict[str, Principal])

    def __len__(self) -> int:
        return len(self.tokens) + len(self.certificates)


def read_keys(text: bytes) -> Keys:
    """The keys of a keys file. Raises :class:`KeysError`."""
    try:
        rows = msgspec.json.decode(text, type=_Keys).keys
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise KeysError(str(error)) from error
    keys = Keys()
    for row in rows:
        try:
            _add(keys, row)
        except ValueError as error:
            raise KeysError(f'key "{row.name}": {error}') from error
    return keys


def _add(keys: Keys, row: _Key) -> None:
    if not row.tenants or not all(tenant == ANY or is_tenant(tenant) for tenant in row.tenants):
        raise ValueError('tenants must be names or "*"')
    if (row.sha256 is None) == (row.certificate is None):
        raise ValueError("it must have either sha256 or certificate")
    principal = Principal(name=row.name, tenants=frozenset(row.tenants), roles=frozenset(row.roles))
    if row.sha256 is not None:
        if not re.fullmatch(r"[0-9a-f]{64}", row.sha256):
            raise ValueError("sha256 must be 64 lower-case hex digits")
        known, by = keys.tokens, row.sha256
    else:
        known, by = keys.certificates, normal(row.certificate or "")
    if by in known:
        raise ValueError(f'key "{known[by].name}" has the same credential')
    known[by] = principal


class Access:
    """The credentials in force. ``path`` is None when the service is open."""

    def __init__(self, path: Path | None) -> None:
        """Raises OSError and :class:`KeysError` when the file cannot be used."""
        self._path = path
        self._watched = Watched(path) if path else None
        self.keys = read_keys(path.read_bytes()) if path else Keys()

    def principal(self, authorization: str, certificate: AbstractSet[str] = frozenset()) -> Principal:
        """Whoever presents this ``Authorization`` value, or else a certificate of these names.

        Raises :class:`UnauthenticatedError`.
        """
        if self._path is None:
            return OPEN
        if authorization or not certificate:
            return self._bearer(authorization)
        found = {self.keys.certificates[name] for name in certificate if name in self.keys.certificates}
        if len(found) == 1:
            return found.pop()
        shown = ", ".join(sorted(certificate))
        if found:
            raise UnauthenticatedError(f"several keys are for the certificate shown ({shown})")
        raise UnauthenticatedError(f"no bearer token, and no key is for the certificate shown ({shown})")

    def _bearer(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("no bearer token")
        # Looked up by the hash of the secret: comparing tells nothing about the secret.
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = self.keys.tokens.get(digest)
        if found is None:
            raise UnauthenticatedError("unknown bearer token")
        return found

    def reload(self) -> bool:
        """Read the file again if it changed; whether new keys are in force."""
        if self._path is None or self._watched is None or not self._watched.changed():
            return False
        try:
            self.keys = read_keys(self._path.read_bytes())
        except (OSError, KeysError) as error:
            _log.error("the keys file cannot be used, the old keys stay: %s", error)
            return False
        _log.info("%d keys are in force", len(self.keys))
        return True
