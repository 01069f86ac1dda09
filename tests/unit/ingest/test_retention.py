"""The retention file: what it says deletes for good, so nothing in it may be a slip."""

from pathlib import Path

import pytest

from ingest.retention import RetentionError, Rule, read_rules


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
    with pytest.raises(RetentionError, match=told):
        read_rules(rules_file(tmp_path, text))


def test_the_documented_rules_are_read(tmp_path: Path) -> None:
    text = '- {tenant: team-a, accepted_days: 90}\n- {tenant: "*", accepted_days: 365, rejected_days: null}'
    assert read_rules(rules_file(tmp_path, text)) == (
        Rule(tenant="team-a", accepted_days=90, rejected_days=30),
        Rule(tenant="*", accepted_days=365, rejected_days=None),
    )
