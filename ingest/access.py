"""Who may write, read and administer, and for which tenants.

Keys are bearer tokens, kept as SHA-256 only. Without a keys file the service is open:
it then listens on loopback only (unless told otherwise explicitly), every tenant name is
allowed, and ``default`` is the tenant of a turn that names none.

The keys file is JSON and is read again when it changes::

    {"keys": [{"name": "sidecar-1", "sha256": "<hex of SHA-256 of the token>",
               "tenants": ["team-a", "team-b"], "roles": ["write"]}]}

``tenants`` may be ``["*"]``; roles are ``write``, ``read``, ``admin`` (deletion, export).
A file that cannot be read or understood leaves the last good keys in force.
"""

import logging
import re
from collections.abc import Mapping
from enum import StrEnum, unique
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

_log = logging.getLogger("steno.ingest.access")
DEFAULT_TENANT: Final = "default"
ANY: Final = "*"
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


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
        if not _TENANT.fullmatch(wanted):
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
    sha256: str
    tenants: list[str]
    roles: list[Role]


class _Keys(Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_Key]


class KeysError(ValueError):
    """The keys file cannot be used; the text says why."""


def read_keys(text: bytes) -> dict[str, Principal]:
    """SHA-256 of a token (lower-case hex) → its principal. Raises :class:`KeysError`."""
    try:
        keys = msgspec.json.decode(text, type=_Keys).keys
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise KeysError(str(error)) from error
    found: dict[str, Principal] = {}
    for key in keys:
        if not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
            raise KeysError(f'key "{key.name}": sha256 must be 64 lower-case hex digits')
        bad = [tenant for tenant in key.tenants if tenant != ANY and not _TENANT.fullmatch(tenant)]
        if bad or not key.tenants:
            raise KeysError(f'key "{key.name}": tenants must be names or "*"')
        found[key.sha256] = Principal(
            name=key.name, tenants=frozenset(key.tenants), roles=frozenset(key.roles)
        )
    return found


class Access:
    """The credentials in force. ``path`` is None when the service is open."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: Mapping[str, Principal] = {}
        self._seen: tuple[int, int] | None = None
        if path is not None:
            self._keys = read_keys(path.read_bytes())
            self._seen = self._version()

    @property
    def open(self) -> bool:
        """Whether everybody may do everything."""
        return self._path is None

    def principal(self, authorization: str) -> Principal:
        """Whoever presents this ``Authorization`` value. Raises :class:`UnauthenticatedError`."""
        if self._path is None:
            return OPEN
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("no bearer token")
        # Looked up by the hash of the secret: comparing tells nothing about the secret.
        found = self._keys.get(sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest())
        if found is None:
            raise UnauthenticatedError("unknown bearer token")
        return found

    def reload(self) -> bool:
        """Read the file again if it changed; whether new keys are in force."""
        if self._path is None or self._version() == self._seen:
            return False
        self._seen = self._version()
        try:
            self._keys = read_keys(self._path.read_bytes())
        except (OSError, KeysError) as error:
            _log.error("the keys file cannot be used, the old keys stay: %s", error)
            return False
        _log.info("%d keys are in force", len(self._keys))
        return True

    def _version(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat() if self._path else None
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size) if stat else None
