"""What is in the spool, by tenant, and whether one more turn fits. Pure bookkeeping."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ingest_client.spool.api import Backlog
from ingest_client.spool.settings import SpoolSettings


@dataclass(slots=True)
class TenantUsage:
    """One tenant's part. ``waiting`` are pending turns that nobody has claimed: what quotas may drop.

    ``waiting_bytes`` are of their bodies, ``waiting_stored_bytes`` of their frames on disk.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    waiting_stored_bytes: int = 0
    pending: int = 0
    stored_bytes: int = 0
    oldest_at_ns: int = 0
    """No pending turn is older. May lag behind deliveries until the next sweep."""

    @property
    def empty(self) -> bool:
        """Nothing of this tenant is left."""
        return not (self.waiting or self.pending or self.stored_bytes)


@dataclass(slots=True)
class Usage:
    """Sums over all rows. Every change can be undone with its transaction."""

    tenants: dict[str, TenantUsage] = field(default_factory=dict[str, TenantUsage])
    stored_bytes: int = 0
    waiting_stored_bytes: int = 0

    def of(self, tenant: str) -> TenantUsage:
        """The tenant's part, made on first use."""
        found = self.tenants.get(tenant)
        if found is None:
            found = self.tenants[tenant] = TenantUsage()
        return found

    def change(
        self,
        tenant: str,
        *,
        waiting: int = 0,
        waiting_bytes: int = 0,
        waiting_stored_bytes: int = 0,
        pending: int = 0,
        stored_bytes: int = 0,
    ) -> Callable[[], None]:
        """Add to the sums; the returned function takes it back."""
        changes = (waiting, waiting_bytes, waiting_stored_bytes, pending, stored_bytes)
        self._add(tenant, changes, 1)
        return lambda: self._add(tenant, changes, -1)

    def _add(self, tenant: str, changes: tuple[int, int, int, int, int], sign: int) -> None:
        waiting, waiting_bytes, waiting_stored_bytes, pending, stored_bytes = changes
        part = self.of(tenant)
        part.waiting += sign * waiting
        part.waiting_bytes += sign * waiting_bytes
        part.waiting_stored_bytes += sign * waiting_stored_bytes
        part.pending += sign * pending
        part.stored_bytes += sign * stored_bytes
        self.stored_bytes += sign * stored_bytes
        self.waiting_stored_bytes += sign * waiting_stored_bytes

    def over_quota(self, settings: SpoolSettings, tenant: str, stored_bytes: int) -> str:
        """Why ``stored_bytes`` more of this tenant do not fit; empty when they do."""
        if settings.quota_bytes and self.stored_bytes + stored_bytes > settings.quota_bytes:
            return f"the spool holds {self.stored_bytes} of {settings.quota_bytes} bytes"
        return self.over_tenant_quota(settings, tenant, stored_bytes)

    def over_tenant_quota(self, settings: SpoolSettings, tenant: str, stored_bytes: int) -> str:
        """The same, of the tenant's own quota alone."""
        mine = self.of(tenant).stored_bytes
        if settings.tenant_quota_bytes and mine + stored_bytes > settings.tenant_quota_bytes:
            return f"the tenant's turns hold {mine} of {settings.tenant_quota_bytes} bytes"
        return ""

    def could_fit(self, settings: SpoolSettings, tenant: str, stored_bytes: int) -> bool:
        """Whether ``stored_bytes`` more would fit if every waiting turn that a quota may drop were gone."""
        part = self.of(tenant)
        mine = part.stored_bytes - part.waiting_stored_bytes + stored_bytes
        all_bytes = self.stored_bytes - self.waiting_stored_bytes + stored_bytes
        return not (
            (settings.quota_bytes and all_bytes > settings.quota_bytes)
            or (settings.tenant_quota_bytes and mine > settings.tenant_quota_bytes)
        )

    def backlog(self) -> dict[str, Backlog]:
        """Every tenant with unclaimed pending turns."""
        return {
            tenant: Backlog(part.waiting, part.waiting_bytes)
            for tenant, part in self.tenants.items()
            if part.waiting
        }
