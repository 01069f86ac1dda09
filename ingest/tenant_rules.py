"""Rules by tenant in a file of an operator: retention and limits."""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from ingest.access import ANY, is_tenant


class TenantRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule for ``tenant``; ``*``: for each without a rule of its own."""

    tenant: str = ANY


RuleT = TypeVar("RuleT", bound=TenantRule)


class TenantRulesError(ValueError):
    """A file of rules cannot be used; the text says why."""


def read_tenant_rules(path: Path, kind: type[tuple[RuleT, ...]], expected: str) -> tuple[RuleT, ...]:
    """The rules of a YAML (or JSON) file, a list; ``expected`` says of what.

    Raises :class:`TenantRulesError`. What may be a slip is refused: a retention rule that means
    another tenant than it should deletes for good.
    """
    try:
        rules = msgspec.yaml.decode(path.read_bytes(), type=kind)
    except Exception as error:  # its constructors of dates and numbers raise whatever they meet
        raise TenantRulesError(f"expected a list of {expected}: {error}") from error
    for number, rule in enumerate(rules):
        if rule.tenant != ANY and not is_tenant(rule.tenant):
            raise TenantRulesError(f'"{rule.tenant}" is no tenant')
        if rule.tenant in {earlier.tenant for earlier in rules[:number]}:
            raise TenantRulesError(f'tenant "{rule.tenant}" has two rules')
    return rules
