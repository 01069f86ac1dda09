"""What is in the spool, by tenant, and whether one more turn fits. Pure bookkeeping."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ingest_client.spool.api import Backlog
from ingest_client.spool.settings import SpoolSettings


@dataclass(slots=True)
class TenantUsage:
    """One tenant's part. ``waiting`` are pending turns that nobody has claimed."""

    waiting: int = 0
    waiting_bytes: int = 0
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
        pending: int = 0,
        stored_bytes: int = 0,
    ) -> Callable[[], None]:
        """Add to the sums; the returned function takes it back."""
        self._add(tenant, waiting, waiting_bytes, pending, stored_bytes)
        return lambda: self._add(tenant, -waiting, -waiting_bytes, -pending, -stored_bytes)

    def _add(self, tenant: str, waiting: int, waiting_bytes: int, pending: int, stored_bytes: int) -> None:
        part = self.of(tenant)
        part.waiting += waiting
        part.waiting_bytes += waiting_bytes
        part.pending += pending
        part.stored_bytes += stored_bytes
        self.stored_bytes += stored_bytes

    def over_quota(self, settings: SpoolSettings, tenant: str, stored_bytes: int) -> str:
        """Why ``stored_bytes`` more of this tenant do not fit; empty when they do."""
        if settings.quota_bytes and self.stored_bytes + stored_bytes > settings.quota_bytes:
            return f"the spool holds {self.stored_bytes} of {settings.quota_bytes} bytes"
        mine = self.of(tenant).stored_bytes
        if settings.tenant_quota_bytes and mine + stored_bytes > settings.tenant_quota_bytes:
            return f"the tenant's turns hold {mine} of {settings.tenant_quota_bytes} bytes"
        return ""

    def backlog(self) -> dict[str, Backlog]:
        """Every tenant with unclaimed pending turns."""
        return {
            tenant: Backlog(part.waiting, part.waiting_bytes)
            for tenant, part in self.tenants.items()
            if part.waiting
        }
