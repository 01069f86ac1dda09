"""The loop against a live HTTP server: what arrives, and what the spool is told."""

from capture.outcomes import Outcome, State
from ingest_client.delivery import Final
from tests.unit.ingest_client.delivery.memory_queue import MemoryQueue
from tests.unit.ingest_client.delivery.peer import Request, Talk, peer
from tests.unit.ingest_client.delivery.running import delivering, quick


async def test_a_turn_arrives_once_under_its_own_id() -> None:
    """One POST, our id in the header, the body byte for byte, and an acknowledgement."""
    queue = MemoryQueue()
    turn = queue.turn(1, size=10_240)
    finals: list[Final] = []
    async with peer() as ingest, delivering(queue, quick(ingest.url), finals):
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
    async with peer() as ingest, delivering(queue, quick(ingest.url)) as delivery:
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

    async with peer(refuse_two) as ingest, delivering(queue, quick(ingest.url), finals):
        queue.put(queue.turn(seq) for seq in range(5))
        await queue.until("acknowledged", 4)
        await queue.until("dead_letter", 1)
    row = queue.rows[2]
    assert row.state == "dead_letter"
    assert row.reason == "unprocessable (422): unprocessable turn: no role, [redacted]"
    assert [f.outcome for f in finals if f.state is State.DEAD_LETTERED] == [Outcome.INGEST_REJECT]
