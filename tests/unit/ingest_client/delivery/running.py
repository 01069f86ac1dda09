"""Delivery under test: short times, a seeded die, and a task that ends with the test."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ingest_client.delivery import Delivery, DeliverySettings, EndpointSettings, Final
from ingest_client.delivery.clock import SystemClock
from ingest_client.spool.api import Queue
from tests.patience import eventually

__all__ = ["delivering", "eventually", "patient", "quick"]


def quick(*urls: str, **changes: object) -> DeliverySettings:
    """Settings for tests: everything that waits waits for tenths of seconds."""
    chosen: dict[str, object] = {
        "endpoints": tuple(EndpointSettings(url=url) for url in urls),
        "connect_timeout_s": 1.0,
        "answer_timeout_s": 1.0,
        "retry_base_s": 0.05,
        "retry_cap_s": 0.3,
        "breaker_base_s": 0.1,
        "breaker_cap_s": 0.3,
        "hold_base_s": 0.1,
        "hold_cap_s": 0.3,
        "heartbeat_s": 1.0,
        "heartbeat_anxious_s": 0.2,
        "gone_after_s": 30.0,
        "poll_s": 0.05,
        "gather_s": 0.02,
        **changes,
    }
    return DeliverySettings(**chosen)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def patient(*urls: str, **changes: object) -> DeliverySettings:
    """``quick``, but no exchange is given up because the machine stood still for a second."""
    return quick(*urls, **{"connect_timeout_s": 30.0, "answer_timeout_s": 30.0, **changes})


@asynccontextmanager
async def delivering(
    queue: Queue, settings: DeliverySettings, finals: list[Final] | None = None
) -> AsyncGenerator[Delivery, None]:
    """A running delivery; closed (without draining) at the end."""
    heard: list[Final] = [] if finals is None else finals
    delivery = Delivery(queue, settings, SystemClock(), random.Random(7).random, heard.append)
    task = asyncio.create_task(delivery.run())
    try:
        yield delivery
        if task.done():
            task.result()
    finally:
        await delivery.close(3.0)  # of which a tenth is for writing down what became of what was claimed
        await task
