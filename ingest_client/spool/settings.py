"""The spool's limits, each with the reason for its default."""

from dataclasses import dataclass
from enum import StrEnum, unique

MIB = 1 << 20


@unique
class FullPolicy(StrEnum):
    """What gives way when a quota in bytes is reached."""

    SHED_NEW = "shed_new"
    DROP_OLDEST = "drop_oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Limits and habits of one spool. Seconds and bytes as the names say; 0 means no limit for quotas."""

    memory_only: bool = False
    """Keep nothing on disk: for those who prefer loss to storage."""
    synchronous: str = "FULL"
    """SQLite's; NORMAL survives a crash of the process but not of the machine."""
    group_window_s: float = 0.005
    """A turn waits no longer than this for company in its transaction."""
    patience_s: float = 0.25
    """What costs no turn when it is lost waits so long for a turn to share its commit; 0: not at all. What
    was delivered this long before a crash is delivered again, and what was only counted is not known."""
    group_items: int = 256
    group_bytes: int = 8 * MIB
    """A group this large is committed at once."""
    queue_items: int = 4096
    queue_bytes: int = 64 * MIB
    """What may wait for the disk before new turns are shed: a slow disk must not eat the memory."""
    quota_bytes: int = 8 << 30
    """On disk: days of an outage for most, and seldom a whole volume."""
    tenant_quota_bytes: int = 0
    quota_age_s: float = 7 * 86_400.0
    """A turn older than a week is not waited for."""
    tenant_quota_age_s: tuple[tuple[str, float], ...] = ()
    """Tenants with an age limit of their own."""
    full_policy: FullPolicy = FullPolicy.SHED_NEW
    reserve_bytes: int = 4 * MIB
    """Enough for thousands of deletions to pass through the WAL."""
    zstd_level: int = 1
    """1 takes most of the gain at a fifth of the time of 3; 0 stores plain."""
    stale_after_s: float = 300.0
    """An open exchange without a heartbeat for so long is finalised as interrupted."""
    longest_delay_s: float = 86_400.0
    """No retry waits longer: a due time beyond is a clock that stepped back."""
    wal_soft_bytes: int = 4 * MIB
    """The WAL is checkpointed at this size when the thread is idle,"""
    wal_hard_bytes: int = 32 * MIB
    """and at this size in any case."""
    adopt_every_s: float = 10.0
    """How often to look for spools of dead processes."""
