"""T5: an ingest that misbehaves in every way we know loses no turn and holds up nobody else."""

import asyncio
import json
from collections import Counter

import pytest

from ingest_client.delivery import Final
from ingest_client.delivery.attempt import Attempt
from ingest_client.delivery.classify import Reason
from ingest_client.delivery.connection import Connection, Reply
from tests.chaos.kept_queue import KeptQueue
from tests.patience import GrantedTime, kept_port
from tests.unit.ingest_client.delivery.peer import Behaviour, Request, Talk, accept, peer, serving
from tests.unit.ingest_client.delivery.running import delivering, eventually, patient

MAX_ANSWER = 64 * 1024
TURNS = 40


# What is sent without end is sent in large pieces: a peer in our own process must cost it little.


async def hang(_: Request, talk: Talk) -> None:
    await talk.reader.read()  # until delivery gives up


async def drip(_: Request, talk: Talk) -> None:
    for byte in b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok" * 10:
        await talk.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def endless_fields(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 Accepted\r\n")
    while True:
        await talk.write((b"x-filler: " + b"y" * 1000 + b"\r\n") * 50)


async def silent_fields(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 Accepted\r\nServer: slow\r\n")
    await talk.reader.read()


async def ten_gigabytes(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 10000000000\r\n\r\n")
    while True:
        await talk.write(b"z" * 65_536)


async def endless_chunks(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await talk.write((b"400\r\n" + b"z" * 1024 + b"\r\n") * 50)


async def endless_trailers(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    while True:
        await talk.write((b"x-trailer: " + b"z" * 100 + b"\r\n") * 500)


async def endless_interim(_: Request, talk: Talk) -> None:
    while True:
        await talk.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)


async def endless_body(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 OK\r\n\r\n")
    while True:
        await talk.write(b"z" * 65_536)


async def reset_in_body(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nten bytes.")
    await asyncio.sleep(0.01)
    talk.reset()


async def close_in_body(_: Request, talk: Talk) -> None:
    await talk.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nten bytes.")
    talk.writer.close()


async def close_at_once(_: Request, talk: Talk) -> None:
    talk.writer.close()


async def garbage(_: Request, talk: Talk) -> None:
    await talk.write(b"\x00\x01\x02SSH-2.0-OpenSSH_9.6\r\n" * 10)


async def internal_error(_: Request, talk: Talk) -> None:
    await talk.answer(500, b"boom")


async def bad_gateway_for_ever(_: Request, talk: Talk) -> None:
    await talk.answer(502, b"<html>" + b"x" * 200_000)


async def throttle(_: Request, talk: Talk) -> None:
    await talk.answer(429, b"{}", "Retry-After: 1")


async def unavailable(_: Request, talk: Talk) -> None:
    await talk.answer(503, b"{}", "Retry-After: 1")


async def unauthorized(_: Request, talk: Talk) -> None:
    await talk.answer(401, b'{"error":"no token"}')


async def created(_: Request, talk: Talk) -> None:
    await talk.answer(201)


async def teapot(_: Request, talk: Talk) -> None:
    await talk.answer(418)


MISBEHAVIOURS: list[tuple[Behaviour, Reason]] = [
    (hang, Reason.TIMED_OUT),
    (drip, Reason.TIMED_OUT),
    (endless_fields, Reason.ANSWER_TOO_LARGE),
    (silent_fields, Reason.TIMED_OUT),
    (ten_gigabytes, Reason.ANSWER_TOO_LARGE),
    (endless_chunks, Reason.ANSWER_TOO_LARGE),
    (endless_trailers, Reason.ANSWER_TOO_LARGE),
    (endless_interim, Reason.ANSWER_TOO_LARGE),
    (endless_body, Reason.ANSWER_TOO_LARGE),
    (reset_in_body, Reason.CONNECTION_LOST),
    (close_in_body, Reason.CONNECTION_LOST),
    (close_at_once, Reason.CONNECTION_LOST),
    (garbage, Reason.ANSWER_MALFORMED),
    (internal_error, Reason.SERVER_ERROR),
    (bad_gateway_for_ever, Reason.SERVER_ERROR),
    (throttle, Reason.THROTTLED),
    (unavailable, Reason.SERVER_ERROR),
    (unauthorized, Reason.UNAUTHORIZED),
    (created, Reason.UNEXPECTED_STATUS),
    (teapot, Reason.UNEXPECTED_STATUS),
]
every_misbehaviour = pytest.mark.parametrize(
    ("misbehave", "reason"), MISBEHAVIOURS, ids=lambda value: getattr(value, "__name__", None)
)


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes really came off the socket, exchange by exchange."""
    read: list[int] = []
    updated, exchange = Connection.buffer_updated, Connection.exchange
    current: dict[Connection, int] = {}

    def counting(self: Connection, nbytes: int) -> None:
        read[current[self]] += nbytes
        updated(self, nbytes)

    async def beginning(self: Connection, head: bytes, body: bytes, timeout_s: float) -> Reply:
        current[self] = len(read)
        read.append(0)
        return await exchange(self, head, body, timeout_s)

    monkeypatch.setattr(Connection, "buffer_updated", counting)
    monkeypatch.setattr(Connection, "exchange", beginning)
    return read


def attempts(queue: KeptQueue) -> list[Attempt]:
    found = [attempt for row in queue.rows.values() for attempt in row.attempts]
    assert all(isinstance(attempt, Attempt) for attempt in found)
    return [attempt for attempt in found if isinstance(attempt, Attempt)]


def answer_timeout_s(reason: Reason) -> float:
    """Short where the timeout is what ends the misbehaviour; where something else does, it must not come first."""
    return 0.5 if reason is Reason.TIMED_OUT else 30.0


@every_misbehaviour
async def test_nothing_is_lost_and_the_other_endpoint_goes_on(
    queue: KeptQueue, misbehave: Behaviour, reason: Reason
) -> None:
    """With one endpoint misbehaving for ever, all turns of both tenants arrive at the other, soon."""
    async with peer(misbehave) as bad, peer() as good:
        settings = patient(bad.url, good.url, answer_timeout_s=answer_timeout_s(reason))
        async with delivering(queue, settings):
            granted = GrantedTime()
            await queue.put(queue.turn(seq, tenant="ab"[seq % 2]) for seq in range(TURNS))
            # 429 pauses a tenant at one endpoint alone, everything else the endpoint.
            await queue.until("acknowledged", TURNS)
            took_s = granted.passed_s()
        received = {turn_id for request in good.posts for turn_id in request.turn_ids()}
    assert received == {row.turn.turn_id for row in queue.rows.values()}
    assert reason in {attempt.reason for attempt in attempts(queue)}
    assert took_s < 5


@every_misbehaviour
async def test_it_recovers_when_the_endpoint_does(
    queue: KeptQueue, misbehave: Behaviour, reason: Reason, bytes_read: list[int]
) -> None:
    """One endpoint, misbehaving at first: no turn is lost, and of no answer more than 64 KiB is read."""
    finals: list[Final] = []
    misbehaved = 0

    async def at_first(request: Request, talk: Talk) -> None:
        nonlocal misbehaved
        misbehaved += 1
        await (misbehave if misbehaved <= 3 else accept)(request, talk)

    async with peer(at_first) as ingest:
        settings = patient(ingest.url, answer_timeout_s=answer_timeout_s(reason))
        async with delivering(queue, settings, finals):
            await queue.put(queue.turn(seq) for seq in range(TURNS))
            await queue.until("acknowledged", TURNS)
            await eventually(lambda: len(finals) >= TURNS)
    assert len(finals) == TURNS
    assert misbehaved > 3
    failed = attempts(queue)
    assert {attempt.reason for attempt in failed} <= {reason, Reason.BATCH_UNDECIDED}
    assert all(attempt.answer_bytes <= MAX_ANSWER for attempt in failed)
    assert 0 < max(bytes_read) <= MAX_ANSWER


async def test_a_refused_connection_loses_nothing(queue: KeptQueue) -> None:
    """Nobody listens, then somebody does, on the same port."""
    with kept_port() as port:
        await queue.put(queue.turn(seq) for seq in range(TURNS))
        async with delivering(queue, patient(f"http://127.0.0.1:{port}")) as delivery:
            await eventually(lambda: delivery.snapshot().endpoints[0].status == "not_ready")
            assert delivery.counters.attempts[Reason.UNREACHABLE] >= TURNS
            async with peer(port=port) as ingest:
                await queue.until("acknowledged", TURNS)
                received = [turn_id for request in ingest.posts for turn_id in request.turn_ids()]
    assert sorted(received) == sorted(row.turn.turn_id for row in queue.rows.values())


async def test_a_redirect_is_never_followed(queue: KeptQueue) -> None:
    """Whoever a 302 points at hears nothing; the endpoint is held, and said so."""
    async with peer() as stranger:

        async def redirect(_: Request, talk: Talk) -> None:
            await talk.answer(302, b"", f"Location: {stranger.url}/v1/ingest?key=sk-secretsecretsecret")

        async with peer(redirect) as ingest, delivering(queue, patient(ingest.url)) as delivery:
            await queue.put(queue.turn(seq) for seq in range(5))
            await eventually(lambda: delivery.counters.attempts[Reason.REDIRECTED] >= 3)
            [endpoint] = delivery.snapshot().endpoints
        assert stranger.requests == []
    assert delivery.counters.holds == 1
    assert endpoint.hold == f"redirected: redirects to {stranger.url}/v1/ingest"
    assert queue.states() == {"pending": 5}


async def test_retry_after_is_waited_for(queue: KeptQueue) -> None:
    """After 429 with Retry-After: 1 the tenant's next request comes a second later, not before."""
    seen = 0

    async def once(request: Request, talk: Talk) -> None:
        nonlocal seen
        seen += 1
        await (throttle if seen == 1 else accept)(request, talk)

    async with peer(once) as ingest, delivering(queue, patient(ingest.url)):
        granted = GrantedTime()
        await queue.put([queue.turn(1)])
        await queue.until("acknowledged", 1)
        took_s = granted.passed_s()
        first, second = ingest.posts
    assert second.at_s - first.at_s >= 1.0
    assert took_s < 2.0


@pytest.mark.parametrize("status", [429, 403])
async def test_a_throttled_tenant_holds_up_no_other(queue: KeptQueue, status: int) -> None:
    """429 and 403 for one tenant at the only endpoint: the other tenant's turns arrive at once."""

    async def one_tenant(request: Request, talk: Talk) -> None:
        if b'"tenant":"a"' in request.body:
            await talk.answer(status, b"{}", "Retry-After: 60")
        else:
            await talk.answer(202)

    async with peer(one_tenant) as ingest, delivering(queue, patient(ingest.url)) as delivery:
        await queue.put(queue.turn(seq, tenant="a") for seq in range(200))
        await eventually(lambda: bool(attempts(queue)))
        granted = GrantedTime()
        await queue.put(queue.turn(1000 + seq, tenant="b") for seq in range(50))
        await queue.until("acknowledged", 50)
        assert granted.passed_s() < 1
        # What the paused tenant had claimed is given back, and the last acknowledgement let go.
        await eventually(lambda: delivery.snapshot().held_turns == 0)
    assert {row.turn.tenant for row in queue.rows.values() if row.state == "acknowledged"} == {"b"}


async def test_a_tenant_whose_turns_hang_holds_up_no_other(queue: KeptQueue) -> None:
    """One tenant's turns are never answered: the other's arrive meanwhile at the same endpoint."""

    async def hang_for_a(request: Request, talk: Talk) -> None:
        await (hang if b'"tenant":"a"' in request.body else accept)(request, talk)

    async with peer(hang_for_a) as ingest, delivering(queue, patient(ingest.url, answer_timeout_s=60.0)):
        await queue.put(queue.turn(seq, tenant="a", size=20_000) for seq in range(500))
        await eventually(lambda: bool(ingest.posts))
        await asyncio.sleep(0.2)  # as many of them as may hang at once
        granted = GrantedTime()
        await queue.put(queue.turn(1000 + seq, tenant="b") for seq in range(100))
        await queue.until("acknowledged", 100)
        assert granted.passed_s() < 1.5


async def test_a_batch_that_is_too_large_is_split_until_it_fits(queue: KeptQueue) -> None:
    """413 on a batch halves it, down to single turns if need be; a single 413 is a dead letter."""

    async def small_mouth(request: Request, talk: Talk) -> None:
        await talk.answer(413 if len(request.body) > 5_000 else 202)

    await queue.put(queue.turn(seq, size=1_000) for seq in range(64))
    await queue.put([queue.turn(100, size=6_000)])
    async with peer(small_mouth) as ingest, delivering(queue, patient(ingest.url)):
        await queue.until("acknowledged", 64)
        await queue.until("dead_letter", 1)
        sizes = [len(request.turn_ids()) for request in ingest.posts]
    assert queue.rows[100].state == "dead_letter"
    assert max(sizes) > 4
    assert 4 in sizes


@pytest.mark.parametrize("status", [404, 405])
async def test_an_endpoint_without_batches_gets_single_turns(queue: KeptQueue, status: int) -> None:
    """404 or 405 on the batch route is remembered; the turns go singly and the endpoint is not held."""

    async def single_only(request: Request, talk: Talk) -> None:
        await talk.answer(status if request.path.endswith("/batch") else 202)

    async with peer(single_only) as ingest, delivering(queue, patient(ingest.url)) as delivery:
        await queue.put(queue.turn(seq) for seq in range(100))
        await queue.until("acknowledged", 100)
        batches = [request for request in ingest.posts if request.path.endswith("/batch")]
        [endpoint] = delivery.snapshot().endpoints
    assert len(batches) == 1
    assert (endpoint.batches, endpoint.hold) == ("no", None)


async def test_each_turn_of_a_batch_is_decided_by_its_own_result(queue: KeptQueue) -> None:
    """Accepted, refused and busy in one answer: each turn gets its own fate."""
    seen: Counter[str] = Counter()

    async def results(request: Request, talk: Talk) -> None:
        ids = request.turn_ids()
        seen.update(ids)
        if len(ids) == 1:
            await talk.answer(202)
            return
        items = [
            {"index": index, "id": turn_id, "status": (202, 422, 503)[int(turn_id[-2:]) % 3], "error": "x"}
            for index, turn_id in enumerate(ids)
        ]
        await talk.answer(202, str({"results": items}).replace("'", '"').encode())

    await queue.put(queue.turn(seq) for seq in range(1, 61))
    async with peer(results) as ingest, delivering(queue, patient(ingest.url, alone_after_failures=1)):
        await queue.until("acknowledged", 40)
        await queue.until("dead_letter", 20)
    refused = {int(row.turn.turn_id[-2:]) % 3 for row in queue.rows.values() if row.state == "dead_letter"}
    assert refused == {1}
    busy = [row for seq, row in queue.rows.items() if seq % 3 == 2]
    assert all(row.state == "acknowledged" and seen[row.turn.turn_id] == 2 for row in busy)


async def test_a_tenant_over_quota_in_a_batch_waits_as_asked_and_alone(queue: KeptQueue) -> None:
    """503 for the whole batch, 429 in each result, Retry-After: 60: that tenant waits, the other does not."""

    async def over_quota(request: Request, talk: Talk) -> None:
        if b'"tenant":"a"' not in request.body:
            await talk.answer(202)
            return
        results = [{"index": n, "id": i, "status": 429} for n, i in enumerate(request.turn_ids())]
        body = str({"accepted": 0, "rejected": len(results), "results": results}).replace("'", '"')
        await talk.answer(503, body.encode(), "Retry-After: 60")

    await queue.put(queue.turn(seq, tenant="a") for seq in range(20))
    async with peer(over_quota) as ingest, delivering(queue, patient(ingest.url)) as delivery:
        await eventually(lambda: delivery.counters.attempts[Reason.THROTTLED] == 20)
        granted = GrantedTime()
        await queue.put(queue.turn(100 + seq, tenant="b") for seq in range(20))
        await queue.until("acknowledged", 20)
        assert granted.passed_s() < 2
    assert all(attempt.delay_s == 60 for attempt in attempts(queue))
    assert sum(b'"tenant":"a"' in request.body for request in ingest.posts) == 1


async def test_turns_over_quota_in_a_batch_that_was_accepted_wait_as_asked(queue: KeptQueue) -> None:
    """202 for the batch, 429 for its later half, Retry-After: 60: nobody asks again before."""

    async def half(request: Request, talk: Talk) -> None:
        ids = request.turn_ids()
        results = [{"index": n, "id": i, "status": 429 if n >= 10 else 202} for n, i in enumerate(ids)]
        await talk.answer(202, json.dumps({"results": results}).encode(), "Retry-After: 60")

    await queue.put(queue.turn(seq) for seq in range(20))
    async with peer(half) as ingest, delivering(queue, patient(ingest.url)) as delivery:
        await queue.until("acknowledged", 10)
        await eventually(lambda: len(attempts(queue)) == 10)
    assert delivery.counters.attempts[Reason.THROTTLED] == 10
    assert all(attempt.delay_s == 60 for attempt in attempts(queue))
    assert len(ingest.posts) == 1


async def test_without_results_a_rejection_sends_all_turns_again_singly(queue: KeptQueue) -> None:
    """An old ingest that only counts: whatever was rejected is found by sending each alone."""

    async def counts_only(request: Request, talk: Talk) -> None:
        ids = request.turn_ids()
        if len(ids) > 1:
            await talk.answer(202, b'{"accepted":%d,"rejected":1}' % (len(ids) - 1))
        else:
            await talk.answer(422 if ids == [queue.rows[7].turn.turn_id] else 202)

    async with peer(counts_only) as ingest, delivering(queue, patient(ingest.url)):
        await queue.put(queue.turn(seq) for seq in range(30))
        await queue.until("acknowledged", 29)
        await queue.until("dead_letter", 1)
    assert queue.rows[7].state == "dead_letter"


async def test_a_413_that_comes_before_the_body_was_read_is_seen(queue: KeptQueue) -> None:
    """The answer arrives while we still write; the turn becomes a dead letter and is not sent for ever."""

    async def read_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        writer.close()

    async with serving(read_little) as port, delivering(queue, patient(f"http://127.0.0.1:{port}")):
        await queue.put([queue.turn(1, size=30_000_000)])
        await queue.until("dead_letter", 1)
    assert queue.rows[1].reason == "too_large (413): big"
