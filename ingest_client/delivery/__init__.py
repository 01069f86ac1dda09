"""From the spool to ingest, at least once: see ``docs/delivery.md``.

``Delivery`` is the loop; the modules beside it decide (``classify``, ``backoff``,
``breaker``, ``endpoints``, ``learned``, ``fairness``, ``batching``) without doing, and
``http`` does without deciding.
"""

from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.delivery import Delivery
from ingest_client.delivery.settings import DeliverySettings, DeliverySettingsError, EndpointSettings
from ingest_client.delivery.settlement import Final
from ingest_client.delivery.snapshot import DeliverySnapshot, EndpointSnapshot

__all__ = [
    "Delivery",
    "DeliveryCounters",
    "DeliverySettings",
    "DeliverySettingsError",
    "DeliverySnapshot",
    "EndpointSettings",
    "EndpointSnapshot",
    "Final",
]
