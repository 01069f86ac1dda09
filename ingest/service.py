"""What the handlers share: the parts of one running service."""

from collections.abc import Mapping
from dataclasses import dataclass

from ingest.access import Access
from ingest.bodies import ByteBudget
from ingest.deriver import Deriver
from ingest.events import Hub
from ingest.intake import Intake
from ingest.metrics import Metrics
from ingest.retention import Retention
from ingest.settings import IngestSettings
from ingest.store.store import Store
from ingest.throttle import Throttle


@dataclass(frozen=True, slots=True)
class Service:
    """Made by :mod:`ingest.app`, and by nobody else."""

    settings: IngestSettings
    store: Store
    metrics: Metrics
    intake: Intake
    access: Access
    throttle: Throttle
    budget: ByteBudget
    deriver: Deriver
    hub: Hub
    retention: Retention
    openapi: Mapping[str, object]
