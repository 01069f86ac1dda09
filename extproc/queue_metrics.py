"""Metrics of what comes after capture, read when scraped: the spool and delivery.

Tenants are no label here (their number has no bound); ``steno spool list`` shows them.
Endpoints are, because they are configured.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ingest_client.delivery.delivery import Delivery
from ingest_client.delivery.endpoints import EndpointStatus
from ingest_client.delivery.snapshot import DeliverySnapshot
from ingest_client.spool.spool import Spool

COUNTED: Final = {
    "requests": "POSTs begun, single and batched.",
    "batches": "Batched POSTs begun.",
    "batched_turns": "Turns sent in batches.",
    "request_bytes": "Bytes of bodies as sent.",
    "accepted": "Turns that ingest accepted.",
    "refused": "Turns that ingest refused for good: dead letters.",
    "put_off": "Attempts that ended in a later one.",
    "released": "Turns given back to the spool without an attempt.",
    "holds": "Endpoints newly held: somebody has to look.",
    "breaker_opens": "Times that an endpoint's breaker opened.",
    "heartbeats_answered": "Heartbeats that an endpoint answered.",
    "heartbeats_missed": "Heartbeats that no endpoint answered.",
    "connections": "Connections opened.",
    "stale_connections": "Requests sent again because a kept connection was closed.",
    "credential_reloads": "Credential files read again.",
    "credential_failures": "Credential files that could not be read.",
}
"""Every plain number of ``DeliveryCounters``; a test asserts that none is missing."""


class SpoolMetrics:
    """What waits on disk, and how the disk is."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def collect(self) -> Iterable[Metric]:
        """The spool's families."""
        backlog = self._spool.backlog.values()
        condition = self._spool.condition
        for name, text, value in (
            ("turns", "Turns that wait for delivery.", sum(each.turns for each in backlog)),
            ("bytes", "Bytes of turns that wait.", sum(each.body_bytes for each in backlog)),
            ("tenants", "Tenants with turns that wait.", len(self._spool.backlog)),
            ("disk_trouble", "1 while the disk cannot be written: capture is shed.", bool(condition.trouble)),
            ("wal_bytes", "Size of the write-ahead log.", condition.wal_bytes),
        ):
            yield GaugeMetricFamily(f"steno_spool_{name}", text, value=value)
        for name, text, value in (
            ("commits", "Group commits.", condition.commits),
            ("checkpoints", "WAL checkpoints.", condition.checkpoints),
            ("damaged_records", "Records found damaged and quarantined.", condition.damaged_records),
            ("set_aside", "Spool files set aside for structural damage.", condition.set_aside),
        ):
            yield CounterMetricFamily(f"steno_spool_{name}", text, value=value)


class DeliveryMetrics:
    """What was sent, how it went, and how the endpoints are."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def collect(self) -> Iterable[Metric]:
        """Delivery's families."""
        counters, now = self._delivery.counters, self._delivery.snapshot()
        for name, text in COUNTED.items():
            yield CounterMetricFamily(f"steno_delivery_{name}", text, value=getattr(counters, name))
        attempts = CounterMetricFamily(
            "steno_delivery_attempts", "Attempts ended, per turn and reason.", labels=("reason",)
        )
        for reason, count in counters.attempts.items():
            attempts.add_metric([reason.value], count)
        yield attempts
        for name, text, value in (
            ("held_turns", "Turns claimed from the spool and not settled.", now.held_turns),
            ("held_bytes", "Bytes of those.", now.held_bytes),
            ("ready_turns", "Turns of those that wait for an endpoint.", now.ready_turns),
            ("ready_bytes", "Bytes of those that wait.", now.ready_bytes),
        ):
            yield GaugeMetricFamily(f"steno_delivery_{name}", text, value=value)
        yield from _endpoints(now)


def _endpoints(now: DeliverySnapshot) -> Iterable[Metric]:
    """How each endpoint is, and what it has and had to do."""
    statuses = GaugeMetricFamily(
        "steno_delivery_endpoint", "1 for the status each endpoint has now.", labels=("url", "status")
    )
    in_flight = GaugeMetricFamily(
        "steno_delivery_endpoint_in_flight", "What is on its way to each endpoint.", labels=("url", "unit")
    )
    paused = GaugeMetricFamily(
        "steno_delivery_endpoint_paused_tenants",
        "Tenants that each endpoint takes nothing of now.",
        labels=("url",),
    )
    accepted = CounterMetricFamily(
        "steno_delivery_endpoint_accepted", "Turns that each endpoint accepted.", labels=("url",)
    )
    failed = CounterMetricFamily(
        "steno_delivery_endpoint_failed", "Requests that each endpoint was at fault for.", labels=("url",)
    )
    for endpoint in now.endpoints:
        for status in EndpointStatus:
            statuses.add_metric([endpoint.url, status.value], float(endpoint.status == status.value))
        for unit, count in (
            ("requests", endpoint.requests_in_flight),
            ("turns", endpoint.turns_in_flight),
            ("bytes", endpoint.bytes_in_flight),
        ):
            in_flight.add_metric([endpoint.url, unit], count)
        paused.add_metric([endpoint.url], endpoint.paused_tenants)
        accepted.add_metric([endpoint.url], endpoint.accepted)
        failed.add_metric([endpoint.url], endpoint.failed)
    yield from (statuses, in_flight, paused, accepted, failed)
