"""Delivery as ``/state`` shows it: plain values, no secrets, no bodies."""

from dataclasses import dataclass

from ingest_client.delivery.endpoints import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSnapshot:
    """One endpoint now. ``breaker_for_s``: how long its breaker stays open, 0 when it is not."""

    url: str
    status: str
    requests_in_flight: int
    turns_in_flight: int
    bytes_in_flight: int
    breaker: str
    breaker_for_s: float
    hold: str | None
    paused_tenants: int
    silent_for_s: float
    accepted: int
    failed: int
    last_error: str
    last_error_at_ns: int
    batches: str
    batch_turns: int
    coding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySnapshot:
    """All of delivery now. *Held* turns are claimed and not settled; *ready* ones wait for a slot."""

    endpoints: tuple[EndpointSnapshot, ...]
    ready_turns: int
    ready_bytes: int
    held_turns: int
    held_bytes: int
    stopping: bool


def endpoint_snapshot(endpoint: Endpoint, now_s: float) -> EndpointSnapshot:
    """What is worth showing of an endpoint."""
    breaker, hold = endpoint.breaker, endpoint.hold
    return EndpointSnapshot(
        url=endpoint.url,
        status=endpoint.status(now_s).value,
        requests_in_flight=endpoint.load.requests,
        turns_in_flight=endpoint.load.turns,
        bytes_in_flight=endpoint.load.bytes,
        breaker=breaker.state.value,
        breaker_for_s=max(0.0, breaker.until_s - now_s) if breaker.probing else 0.0,
        hold=None if hold is None else f"{hold.reason.value}: {hold.text}".rstrip(": "),
        paused_tenants=sum(endpoint.paused_for(tenant, now_s) for tenant in endpoint.lanes),
        silent_for_s=max(0.0, now_s - endpoint.answered_s),
        accepted=endpoint.accepted,
        failed=endpoint.failed,
        last_error=endpoint.last_error,
        last_error_at_ns=endpoint.last_error_at_ns,
        batches=endpoint.learned.batch.value,
        batch_turns=endpoint.learned.batch_turns(now_s),
        coding=endpoint.learned.coding,
    )
