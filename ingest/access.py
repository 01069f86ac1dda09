"""Who may write and read for which tenants.

Without credentials the service is open, and then listens on loopback only unless told
otherwise; every tenant name is then allowed and ``default`` is what a turn without one gets.
"""

from dataclasses import dataclass
from typing import Final

DEFAULT_TENANT: Final = "default"
ANY: Final = "*"


class AccessError(Exception):
    """The credential is not good for this (403); the text says for what."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Somebody who may write for ``tenants`` (``*``: for all)."""

    name: str
    tenants: frozenset[str]

    def tenant(self, wanted: str) -> str:
        """The tenant a turn is stored under; ``wanted`` is ``meta.tenant``, or empty."""
        if not wanted:
            return self._default()
        if ANY in self.tenants or wanted in self.tenants:
            return wanted
        raise AccessError(f'this credential may not write for tenant "{wanted}"')

    def _default(self) -> str:
        if len(self.tenants) == 1 and ANY not in self.tenants:
            return next(iter(self.tenants))
        if ANY in self.tenants or DEFAULT_TENANT in self.tenants:
            return DEFAULT_TENANT
        raise AccessError("this credential is good for several tenants: name one in meta.tenant")


OPEN: Final = Writer("open", frozenset((ANY,)))
"""Everybody, when no credentials are configured."""
