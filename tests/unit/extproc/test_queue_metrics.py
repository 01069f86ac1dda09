"""What is shown of spool and delivery."""

import random
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from extproc.queue_metrics import COUNTED, DeliveryMetrics, SpoolMetrics
from ingest_client.delivery.clock import SystemClock
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.delivery import Delivery
from ingest_client.delivery.settings import DeliverySettings, EndpointSettings
from ingest_client.sink import Record
from ingest_client.spool.spool import Spool


def test_every_number_that_delivery_counts_is_shown() -> None:
    assert set(COUNTED) == {field.name for field in fields(DeliveryCounters)} - {"attempts"}


async def test_a_turn_that_waits_is_seen_and_so_is_its_endpoint(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path)
    settings = DeliverySettings(endpoints=(EndpointSettings(url="http://127.0.0.1:9"),))
    registry = CollectorRegistry()
    registry.register(SpoolMetrics(spool))
    registry.register(DeliveryMetrics(Delivery(spool, settings, SystemClock(), random.random)))
    await spool.keep(Record(turn_id="t", tenant="a", body=b"{}", created_at_ns=5_000_000_000))
    page = generate_latest(registry).decode()
    await spool.close(60)
    for line in (
        "steno_spool_turns 1.0",
        "steno_spool_disk_trouble 0.0",
        'steno_delivery_endpoint{status="gone",url="http://127.0.0.1:9"} 0.0',
        "steno_delivery_accepted_total 0.0",
        "steno_delivery_held_turns 0.0",
        'steno_delivery_endpoint_in_flight{unit="turns",url="http://127.0.0.1:9"} 0.0',
        'steno_delivery_endpoint_accepted_total{url="http://127.0.0.1:9"} 0.0',
        'steno_delivery_endpoint_paused_tenants{url="http://127.0.0.1:9"} 0.0',
    ):
        assert line in page
