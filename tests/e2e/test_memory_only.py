"""A sidecar that keeps nothing on disk: what it could not deliver is lost with its process, and counted."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from extproc.transport.address import TcpAddress
from tests.e2e.conftest import StartEnvoy, free_ports
from tests.e2e.harness.client import fetch
from tests.e2e.harness.envoy import Mode
from tests.e2e.harness.provider import Script, message_request
from tests.e2e.harness.services import Sidecar, get_json
from tests.patience import becomes

NOBODY = "http://127.0.0.1:1"
KILLED_WITH, STOPPED_WITH = 4, 3


async def test_what_was_in_memory_alone_is_lost_by_name_and_the_balance_holds(
    start_envoy: StartEnvoy, short_tmp: Path, logs: list[Path]
) -> None:
    """A killed worker's turns are ``lost(crash)``; those that a stop could not deliver ``lost(volume_discarded)``."""
    port, admin_port = free_ports(2)
    steno = Sidecar(short_tmp, port, admin_port, NOBODY, "--memory-only=true", "--drain=1s")
    logs.append(steno.log)
    await steno.start()
    try:
        envoy = await start_envoy(Mode.OBSERVE, sidecar=[TcpAddress("127.0.0.1", port)])
        await _spooled(envoy.port, steno, KILLED_WITH)
        await becomes(lambda: _terms(steno), {"observed": KILLED_WITH, "spooled": KILLED_WITH})
        os.kill((await get_json(f"{steno.admin}/state"))["workers"][0]["pid"], signal.SIGKILL)
        await steno.restarted()
        await becomes(lambda: _terms(steno), {"observed": KILLED_WITH, "lost": KILLED_WITH})
        await _spooled(envoy.port, steno, STOPPED_WITH)
        all_terms = {"observed": KILLED_WITH + STOPPED_WITH, "spooled": STOPPED_WITH, "lost": KILLED_WITH}
        await becomes(lambda: _terms(steno), all_terms)
    finally:
        assert await steno.stop() == 0
    lines = [json.loads(line) for line in steno.log.read_text().splitlines() if line.startswith("{")]
    assert [line["crash"] for line in lines if "crash" in line] == [KILLED_WITH]
    (last,) = [line for line in lines if "volume_discarded" in line]
    assert (last["volume_discarded"], last["ledger"]["imbalance"]) == (STOPPED_WITH, 0)
    assert last["ledger"]["outcomes"] == {"volume_discarded": STOPPED_WITH}


async def _spooled(port: int, steno: Sidecar, count: int) -> None:
    """Ask so often; return once all these turns wait in memory."""
    replies = await asyncio.gather(
        *(fetch(port, "/v1/messages", message_request(stream=True), Script(chunks=3)) for _ in range(count))
    )
    assert all(reply.complete for reply in replies)
    async with asyncio.timeout(60):
        while (await steno.ledger())["spooled"] < count:
            await asyncio.sleep(0.1)


async def _terms(steno: Sidecar) -> dict[str, Any]:
    """The terms of the sidecar's balance that are not 0; that it holds is asserted."""
    async with httpx.AsyncClient(timeout=30) as client:
        page = (await client.get(f"{steno.admin}/metrics")).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    assert [each.value for each in samples if each.name == "steno_ledger_imbalance"] == [0]
    terms = {each.labels["state"]: each.value for each in samples if each.name == "steno_exchanges"}
    (terms["observed"],) = [each.value for each in samples if each.name == "steno_exchanges_observed_total"]
    return {name: value for name, value in terms.items() if value}
