"""The loop against a live HTTP server: what arrives, and what the spool is told."""

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
import uvloop
import zstandard

from capture.outcomes import Outcome, State
from ingest_client.delivery import Delivery, Final
from ingest_client.delivery.classify import Reason
from ingest_client.delivery.clock import SystemClock
from ingest_client.delivery.courier import Courier, Delivered
from ingest_client.delivery.settings import EndpointSettings
from ingest_client.spool.api import Claimed
from tests.patience import kept_port
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue
from tests.unit.ingest_client.delivery.peer import Request, Talk, peer
from tests.unit.ingest_client.delivery.running import delivering, eventually, patient


async def test_a_turn_arrives_once_under_its_own_id() -> None:
    """One POST, our id in the header, the body byte for byte, and an acknowledgement."""
    queue = MemoryQueue()
    turn = queue.turn(1, size=10_240)
    finals: list[Final] = []
    async with peer() as ingest, delivering(queue, patient(ingest.url), finals):
        queue.put([turn])
        await queue.until("acknowledged", 1)
        [request] = ingest.posts
    assert (request.path, request.body) == ("/v1/ingest", turn.body)
    assert request.fields["idempotency-key"] == turn.turn_id == request.turn_ids()[0]
    assert request.fields["content-type"] == "application/json"
    assert [(final.turn_id, final.state, final.outcome) for final in finals] == [
        (turn.turn_id, State.DELIVERED, None)
    ]


async def test_many_turns_arrive_in_batches_joined_byte_for_byte() -> None:
    """A backlog goes out in batches; every turn arrives, none twice."""
    queue = MemoryQueue()
    turns = [queue.turn(seq, size=2_000) for seq in range(500)]
    async with peer() as ingest, delivering(queue, patient(ingest.url)) as delivery:
        queue.put(turns)
        await queue.until("acknowledged", 500)
        batches = [request for request in ingest.posts if request.path == "/v1/ingest/batch"]
        received = [turn_id for request in ingest.posts for turn_id in request.turn_ids()]
        held = delivery.snapshot().held_turns
    assert sorted(received) == sorted(turn.turn_id for turn in turns)
    assert batches
    assert held == 0
    first = batches[0].turn_ids()
    wanted = [turn.body for turn in turns if turn.turn_id in first]
    assert batches[0].body == b'{"turns":[' + b",".join(wanted) + b"]}"


async def trickle(queue: MemoryQueue, count: int, tick_s: float) -> int:
    """A turn each hundredth of a second; in how many ticks the loop came to put one there."""
    ticks: set[float] = set()
    for seq in range(1, count + 1):
        queue.put([queue.turn(seq)])
        ticks.add(asyncio.get_running_loop().time() // tick_s)
        await asyncio.sleep(0.01)
    await queue.until("acknowledged", count)
    return len(ticks)


async def test_turns_that_come_one_by_one_are_claimed_together_at_every_tick() -> None:
    """Two seconds are twenty ticks; a claim that came late must not cost the next tick.

    Ticks in which the machine stood still had no turn either, and are not counted.
    """
    queue = MemoryQueue()
    async with peer() as ingest, delivering(queue, patient(ingest.url, gather_s=0.1)):
        ticks = await trickle(queue, 200, tick_s=0.1)
    assert 0.7 * ticks < queue.claims <= ticks + 2


async def test_large_turns_do_not_wait_for_others() -> None:
    """A few of them are a batch in bytes: to wait would be to wait for a minute."""
    queue = MemoryQueue()
    settings = {"gather_s": 60.0, "batch_bytes": 10_000, "in_flight_bytes": 8 * 20_000}
    async with peer() as ingest, delivering(queue, patient(ingest.url, **settings)):
        queue.put([queue.turn(seq, size=20_000) for seq in range(1, 30)])
        await queue.until("acknowledged", 28)


async def test_a_refused_turn_becomes_a_dead_letter_with_the_answers_words() -> None:
    """422 concerns the turn: kept for a person, told why; the others go on."""
    queue = MemoryQueue()
    finals: list[Final] = []

    async def refuse_two(request: Request, talk: Talk) -> None:
        if request.path == "/v1/ingest/batch":
            await talk.answer(404, b"")
        elif request.turn_ids() == [queue.rows[2].turn.turn_id]:
            await talk.answer(422, b'{"error":"unprocessable turn: no\\nrole, token=abcdefgh"}')
        else:
            await talk.answer(202)

    async with peer(refuse_two) as ingest, delivering(queue, patient(ingest.url), finals):
        queue.put(queue.turn(seq) for seq in range(5))
        await queue.until("acknowledged", 4)
        await queue.until("dead_letter", 1)
    row = queue.rows[2]
    assert row.state == "dead_letter"
    assert row.reason == "unprocessable (422): unprocessable turn: no role, [redacted]"
    assert [f.outcome for f in finals if f.state is State.DEAD_LETTERED] == [Outcome.INGEST_REJECT]


async def test_bodies_are_compressed_where_the_endpoint_offers_it() -> None:
    """zstd once an answer has named it, never before; the batch decodes to the turns."""
    queue = MemoryQueue()

    async def offer(_: Request, talk: Talk) -> None:
        await talk.answer(202, b"{}", "Accept-Encoding: gzip, zstd")

    async with peer(offer) as ingest, delivering(queue, patient(ingest.url, batch_turns=1)):
        queue.put([queue.turn(1, size=5_000)])
        await queue.until("acknowledged", 1)
        queue.put([queue.turn(2, size=5_000), queue.turn(3, size=200)])
        await queue.until("acknowledged", 3)
        first, *rest = ingest.posts
    by_id = {request.fields["idempotency-key"]: request for request in rest}
    large, small = (by_id[queue.rows[seq].turn.turn_id] for seq in (2, 3))
    assert "content-encoding" not in first.fields
    assert large.fields["content-encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompress(large.body) == queue.rows[2].turn.body
    assert "content-encoding" not in small.fields


async def test_a_coding_that_is_refused_after_all_costs_no_turn() -> None:
    """A peer behind a boastful gateway reads the coded bytes as JSON and says 400: sent again plain."""
    queue = MemoryQueue()

    async def boast(request: Request, talk: Talk) -> None:
        plain = "content-encoding" not in request.fields
        await talk.answer(202 if plain else 400, b"{}", "Accept-Encoding: gzip")

    async with peer(boast) as ingest, delivering(queue, patient(ingest.url)):
        for seq in range(3):
            queue.put([queue.turn(seq, size=5_000)])
            await queue.until("acknowledged", seq + 1)
        assert len([request for request in ingest.posts if "content-encoding" in request.fields]) == 1
    assert queue.states() == {"acknowledged": 3}


async def test_an_endpoint_may_name_its_batch_in_its_heartbeat() -> None:
    """``{"batch":{"turns":10}}`` in the ping's answer: no batch is larger."""
    queue = MemoryQueue()

    async def ping(_: Request, talk: Talk) -> None:
        await talk.answer(200, b'{"status":"ok","batch":{"turns":10}}')

    async with peer() as ingest:
        ingest.ping = ping
        async with delivering(queue, patient(ingest.url)) as delivery:
            await eventually(lambda: delivery.counters.heartbeats_answered > 0)
            queue.put(queue.turn(seq) for seq in range(200))
            await queue.until("acknowledged", 200)
            sizes = {len(request.turn_ids()) for request in ingest.posts}
    assert max(sizes) == 10


async def test_a_draining_endpoint_gets_nothing_new_and_everything_once_it_is_back() -> None:
    """Its heartbeat says draining, then ok: turns wait in between, or go to another."""
    queue = MemoryQueue()
    word = b"draining"

    async def ping(_: Request, talk: Talk) -> None:
        await talk.answer(200, b'{"status":"%s"}' % word)

    async with peer() as ingest:
        ingest.ping = ping
        async with delivering(queue, patient(ingest.url)) as delivery:
            await eventually(lambda: delivery.snapshot().endpoints[0].status == "draining")
            queue.put([queue.turn(1)])
            await asyncio.sleep(0.3)
            assert ingest.requests == []
            word = b"ok"
            await queue.until("acknowledged", 1)


async def test_an_endpoint_that_falls_silent_is_gone_and_comes_back() -> None:
    """Heartbeats unanswered for the time set: gone, told at error level; answered again: working."""
    queue = MemoryQueue()
    with kept_port() as port:
        settings = patient(f"http://127.0.0.1:{port}", gone_after_s=0.4, heartbeat_anxious_s=0.1)
        async with delivering(queue, settings) as delivery:
            await eventually(lambda: delivery.snapshot().endpoints[0].status == "gone")
            await eventually(lambda: delivery.counters.heartbeats_missed >= 1)
            queue.put([queue.turn(1)])
            async with peer(port=port):
                await queue.until("acknowledged", 1)
                await eventually(lambda: delivery.snapshot().endpoints[0].status in {"idle", "working"})


async def test_every_attempt_is_recorded_in_order_with_what_was_decided() -> None:
    """Number, times, status, error, classification and delay of each; nothing of the body."""
    queue = MemoryQueue()
    answers = iter([(500, b"boom"), (429, b"slow"), (422, b'{"error":"no role"}')])

    async def script(_: Request, talk: Talk) -> None:
        await talk.answer(*next(answers))

    async with peer(script) as ingest, delivering(queue, patient(ingest.url)):
        queue.put([queue.turn(1)])
        await queue.until("dead_letter", 1)
        url = ingest.url
    records = [dict(attempt.as_json()) for attempt in queue.rows[1].attempts]
    members = ("number", "status", "error", "classification", "reason", "endpoint", "turns")
    assert [tuple(record[member] for member in members) for record in records] == [
        (1, 500, "boom", "retry", "server_error", url, 1),
        (2, 429, "slow", "retry", "throttled", url, 1),
        (3, 422, "no role", "refused", "unprocessable", url, 1),
    ]
    assert records[2]["delay_s"] == 0.0
    for before, after in itertools.pairwise(records):
        gap_s = (cast("int", after["started_at_ns"]) - cast("int", before["ended_at_ns"])) / 1e9
        assert gap_s >= cast("float", before["delay_s"])
    assert msgspec.json.encode(records)


async def test_an_attempt_that_failed_keeps_what_the_answer_said_without_its_secrets(tmp_path: Path) -> None:
    """Who answered (a gateway?) and in which words: without our token, cookies, or a redirect's query."""
    queue = MemoryQueue()
    token = tmp_path / "token"
    token.write_text("our-very-own-token")
    fields = (
        "Server: gateway/1.2",
        "X-Request-Id: r-77",
        "Set-Cookie: session=0123456789",
        "Location: https://login.example/start?state=0123456789",
    )

    async def redirect_then_take(_: Request, talk: Talk) -> None:
        if len(ingest.posts) == 1:
            body = b"<h1>go\nelsewhere, our-very-own-token</h1>" + b"x" * 1000
            await talk.answer(503, body, *fields)
        else:
            await talk.answer(202)

    async with peer(redirect_then_take) as ingest:
        settings = patient(endpoints=(EndpointSettings(url=ingest.url, token_file=token),))
        async with delivering(queue, settings):
            queue.put([queue.turn(1)])
            await queue.until("acknowledged", 1)
    (attempt,) = (dict(each.as_json()) for each in queue.rows[1].attempts)
    assert attempt["answer_headers"] == {
        "content-length": "1041",
        "location": "https://login.example/start",
        "server": "gateway/1.2",
        "x-request-id": "r-77",
    }
    assert str(attempt["answer_body"]).startswith("<h1>go elsewhere, [redacted]</h1>xxx")
    assert len(str(attempt["answer_body"])) == 500
    assert b"our-very-own-token" not in json.dumps(attempt).encode()


async def test_what_is_held_in_memory_is_bounded_whatever_the_backlog() -> None:
    """Ten times the bound waits in the spool, not here, while ingest is slow."""
    queue = MemoryQueue()

    async def slow(_: Request, talk: Talk) -> None:
        await asyncio.sleep(0.02)
        await talk.answer(202)

    settings_bytes = 200_000
    async with (
        peer(slow) as ingest,
        delivering(queue, patient(ingest.url, in_flight_bytes=settings_bytes)) as delivery,
    ):
        queue.put(queue.turn(seq, tenant="abcd"[seq % 4], size=5_000) for seq in range(400))
        await queue.until("acknowledged", 400)
        assert delivery.snapshot().held_bytes == 0
    assert 0 < queue.max_claimed_bytes <= settings_bytes + 5_000


async def test_a_turn_larger_than_every_bound_is_still_delivered() -> None:
    """One 5 MB turn against bounds of 100 kB: alone, but it goes."""
    queue = MemoryQueue()
    async with peer() as ingest, delivering(queue, patient(ingest.url, in_flight_bytes=100_000)):
        queue.put([queue.turn(1, size=5_000_000), queue.turn(2)])
        await queue.until("acknowledged", 2)
        assert sorted(len(request.body) for request in ingest.posts) == [100, 5_000_000]


async def test_one_turn_that_breaks_its_batches_is_found_and_the_others_delivered() -> None:
    """Ingest dies of one turn: sent alone it fails alone, the rest arrive."""
    queue = MemoryQueue()
    poison = queue.turn(13)

    async def die_of_it(request: Request, talk: Talk) -> None:
        if poison.turn_id in request.turn_ids():
            talk.reset()
        else:
            await talk.answer(202)

    async with peer(die_of_it) as ingest, delivering(queue, patient(ingest.url)):
        queue.put([poison, *(queue.turn(seq) for seq in range(100, 160))])
        await queue.until("acknowledged", 60)
        await eventually(lambda: len(queue.rows[13].attempts) >= 2)
    assert queue.rows[13].state == "pending"


async def test_a_turn_that_ingest_always_fails_on_delays_no_other() -> None:
    """500 for one turn, for ever: the road stays open, and each new turn arrives long before it would reopen."""
    queue = MemoryQueue()
    poison = queue.turn(13)

    async def fail_on_it(request: Request, talk: Talk) -> None:
        await talk.answer(500 if poison.turn_id in request.turn_ids() else 202)

    settings = {"breaker_threshold": 3, "breaker_base_s": 600.0, "breaker_cap_s": 600.0}
    async with peer(fail_on_it) as ingest, delivering(queue, patient(ingest.url, **settings)) as delivery:
        queue.put([poison])
        await eventually(lambda: delivery.counters.attempts[Reason.SERVER_ERROR] >= 6)
        queue.put([queue.turn(1, tenant="b"), queue.turn(2, tenant="a")])
        await queue.until("acknowledged", 2)
    assert delivery.counters.breaker_opens == 0


async def test_a_fault_of_our_own_costs_an_attempt_and_not_the_turn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect while an answer is read is logged with its trace; the turn is tried again and arrives."""
    queue = MemoryQueue()
    deliver, faults = Courier.deliver, iter([True])

    async def sometimes(self: Courier, turns: Sequence[Claimed]) -> Delivered:
        if next(faults, False):
            raise ZeroDivisionError
        return await deliver(self, turns)

    monkeypatch.setattr(Courier, "deliver", sometimes)
    async with peer() as ingest, delivering(queue, patient(ingest.url)) as delivery:
        queue.put([queue.turn(1)])
        await queue.until("acknowledged", 1)
    assert delivery.counters.attempts[Reason.OUR_FAULT] == 1
    assert "ZeroDivisionError" in caplog.text


async def test_a_kept_connection_that_the_peer_closed_costs_no_attempt() -> None:
    """Closed between two requests: the second goes out again on a new connection, unnoticed."""
    queue = MemoryQueue()

    async def close_after(_: Request, talk: Talk) -> None:
        await talk.answer(202)
        asyncio.get_running_loop().call_later(0.05, talk.reset)

    async with peer(close_after) as ingest, delivering(queue, patient(ingest.url)):
        for seq in range(4):
            queue.put([queue.turn(seq)])
            await queue.until("acknowledged", seq + 1)
            await asyncio.sleep(0.05)
        assert len(ingest.posts) >= 4
    assert [len(row.attempts) for row in queue.rows.values()] == [0, 0, 0, 0]


async def test_the_base_urls_path_comes_before_the_route() -> None:
    """A trailing slash does not double."""
    queue = MemoryQueue()
    async with peer() as ingest, delivering(queue, patient(f"{ingest.url}/under/here/")):
        queue.put([queue.turn(1)])
        await queue.until("acknowledged", 1)
        assert ingest.posts[0].path == "/under/here/v1/ingest"


async def test_a_strange_turn_id_cannot_forge_header_fields() -> None:
    """Ids come from our own spool; an imported one with line ends in it stays one field."""
    queue = MemoryQueue()
    turn = dataclasses.replace(queue.turn(1), turn_id="x\r\nX-Forged: 1\r\n\r\n")
    async with peer() as ingest, delivering(queue, patient(ingest.url)):
        queue.put([turn])
        await queue.until("acknowledged", 1)
        [request] = ingest.posts
    assert "x-forged" not in request.fields
    assert request.fields["idempotency-key"] == "x%0D%0AX-Forged%3A%201%0D%0A%0D%0A"


async def test_closing_waits_for_what_is_in_flight_and_gives_back_the_rest() -> None:
    """A stop lets answers arrive; nothing new is sent; everything else is pending again."""
    queue = MemoryQueue()

    async def slow(_: Request, talk: Talk) -> None:
        await asyncio.sleep(0.2)
        await talk.answer(202)

    async with peer(slow) as ingest, delivering(queue, patient(ingest.url, batch_turns=1)) as delivery:
        queue.put(queue.turn(seq) for seq in range(300))
        await eventually(lambda: len(ingest.posts) >= 10)
        await delivery.close(60.0)
        sent = len(ingest.posts)
    assert queue.states() == {"acknowledged": sent, "pending": 300 - sent}
    assert len(ingest.posts) == sent


async def test_closing_before_anything_ran_returns_at_once() -> None:
    """A start that failed elsewhere still closes what was built, without the minute that it might take."""
    delivery = Delivery(MemoryQueue(), patient("http://127.0.0.1:9"), SystemClock(), lambda: 0.5)
    await asyncio.wait_for(delivery.close(60.0), 20)
    await asyncio.wait_for(delivery.run(), 20)


def test_it_works_on_uvloop() -> None:
    """The loop that production uses where it is available: same turns, batches and bounds."""

    async def main() -> None:
        await test_many_turns_arrive_in_batches_joined_byte_for_byte()
        await test_a_turn_larger_than_every_bound_is_still_delivered()
        await test_a_kept_connection_that_the_peer_closed_costs_no_attempt()

    uvloop.run(main())
