"""Retention: its file, where a slip would delete for good, and a sweep when the service leaves."""

import asyncio
import time
from pathlib import Path

import pytest

from ingest.retention import Retention, Rule, read_rules
from ingest.store import deletion
from ingest.tenant_rules import TenantRulesError
from tests.unit.ingest.running import service, turn


def rules_file(directory: Path, text: str) -> Path:
    path = directory / "retention.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {tenants: team-a, accepted_days: 7}", "unknown field `tenants`"),
        ("- {tenant: team-a, accepted_day: 7}", "unknown field `accepted_day`"),
        ("- {tenant: team-a, accepted_days: -7}", ">= 1"),
        ("- {tenant: team-a, accepted_days: 0}", ">= 1"),
        ("- {tenant: team-a, rejected_days: 0}", ">= 1"),
        ("- {tenant: team-a, accepted_days: 99999999999}", "<= 36500"),
        ("- {tenant: a, accepted_days: 9}\n- {tenant: b}\n- {tenant: a}", 'tenant "a" has two rules'),
        ("- {accepted_days: 9}\n- {tenant: '*', accepted_days: 7}", 'tenant "\\*" has two rules'),
        ("- {tenant: 'team a', accepted_days: 7}", '"team a" is no tenant'),
        ("tenant: a", "expected a list"),
        ("", "expected a list"),
        ("- {", "expected a list"),
    ],
)
def test_a_slip_in_the_retention_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """A rule for a tenant that nobody has must not become one for everybody."""
    with pytest.raises(TenantRulesError, match=told):
        read_rules(rules_file(tmp_path, text))


def test_the_documented_rules_are_read(tmp_path: Path) -> None:
    text = '- {tenant: team-a, accepted_days: 90}\n- {tenant: "*", accepted_days: 365, rejected_days: null}'
    assert read_rules(rules_file(tmp_path, text)) == (
        Rule(tenant="team-a", accepted_days=90, rejected_days=30),
        Rule(tenant="*", accepted_days=365, rejected_days=None),
    )


async def test_a_sweep_ends_with_the_batch_at_hand_when_the_service_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first sweep over millions of turns must not hold a stop up until it is killed."""
    monkeypatch.setattr(deletion, "BATCH", 1)
    async with service(tmp_path) as client:
        for tenant in "aabb":
            await client.turn(turn(meta={"tenant": tenant}))
        stopped = asyncio.Event()
        rules = (Rule(accepted_days=1),)
        retention = Retention(client.service.store, rules, lambda _: stopped.set())
        in_two_days_us = time.time_ns() // 1000 + 2 * 86_400_000_000
        assert await retention.sweep(in_two_days_us, stopped) == 1
        assert await client.rows("SELECT count(*) FROM turns") == [(3,)]
        assert await retention.sweep(in_two_days_us) == 3, "the next one goes on"
