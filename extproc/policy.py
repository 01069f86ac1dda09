"""What may be captured of an exchange: a snapshot, pinned when its request headers arrive.

A policy that changes while an exchange runs does not change that exchange.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from capture.classify import RequestHead
from ingest_client.payload import MAX_BODY_BYTES

DEFAULT_TENANT: Final = "default"

REQUEST_BUDGET_BYTES: Final = MAX_BODY_BYTES - 1024 * 1024
"""Largest request kept: what fits an ingest body beside 1 MiB of everything else
(``behaviour.md`` §4)."""

RESPONSE_BUDGET_BYTES: Final = 512 * 1024 * 1024
"""Response bytes read into the reducer of one exchange; the rest is read on and dropped."""

ANSWER_BUDGET_BYTES: Final = MAX_BODY_BYTES - 1024 * 1024
"""Of what an answer is reduced to: more than an ingest body takes is of no use to anybody. A stream of tokens
is twenty to fifty times what it reduces to, so that this says little of the bytes read.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One tenant's rules at one moment.

    ``errors``: answers with a status other than 200 become turns too. ``quarantine_raw``:
    what cannot be made a turn is kept as it came, not as redacted text.
    """

    tenant: str = DEFAULT_TENANT
    capture: bool = True
    errors: bool = False
    quarantine_raw: bool = False
    request_budget_bytes: int = REQUEST_BUDGET_BYTES
    response_budget_bytes: int = RESPONSE_BUDGET_BYTES
    answer_budget_bytes: int = ANSWER_BUDGET_BYTES


class PolicySource(Protocol):
    """Where the rules come from. Asked once an exchange; must answer at once."""

    def snapshot(self, head: RequestHead) -> Policy:
        """The policy for an exchange with this request head."""
        ...


@dataclass(frozen=True, slots=True)
class OnePolicy:
    """The same rules for everybody: one tenant."""

    policy: Policy = Policy()

    def snapshot(self, head: RequestHead) -> Policy:
        """The one policy."""
        del head
        return self.policy
