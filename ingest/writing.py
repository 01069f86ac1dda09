"""The handlers that take turns in."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ingest import transcript
from ingest.access import AccessError, Principal, Role, UnauthenticatedError
from ingest.aside import beside
from ingest.bodies import (
    ACCEPTED_CODINGS,
    BudgetError,
    ClientDisconnect,
    CodingError,
    OversizeError,
    Reading,
    SlowError,
    is_json,
)
from ingest.envelope import EnvelopeError
from ingest.intake import Answer, Posted
from ingest.members import MembersError, elements, fold, split
from ingest.metrics import WriteStatus, provider_label
from ingest.replies import Accepted, BatchAnswer, BatchResult, TranscriptAnswer, refuse, reply
from ingest.service import Service

CERTIFICATE: Final = "certificate_names"
"""Member of the request's state: the names of the verified certificate that the client showed."""
OVERSIZE: Final = "request body exceeds the ingest size limit"
BATCH_TURNS: Final = 1000
"""Most turns of one batch."""
_ACCEPTED: Final = 202
_PERMANENT: Final = frozenset((400, 403, 413, 422))
_CLIENT_GONE: Final = 499
Take = Callable[[Request, bytes, Principal], Awaitable[Response]]


def service_of(request: Request) -> Service:
    """The service that this request came to."""
    service: Service = request.app.state.service
    return service


def principal_of(request: Request, role: Role) -> Principal:
    """Whoever sent the request. Raises UnauthenticatedError and AccessError."""
    principal = service_of(request).access.principal(
        request.headers.get("authorization", ""), getattr(request.state, CERTIFICATE, frozenset())
    )
    principal.require(role)
    return principal


def _refused(request: Request, status: int, outcome: WriteStatus, error: str) -> Response:
    service_of(request).metrics.writes.labels(provider_label(""), outcome).inc()
    unread = status in (401, 403, 408, 413, 502)
    return refuse(status, error, {"connection": "close"} if unread else None)


async def _body(request: Request, reading: Reading) -> bytes | Response:
    """The decoded JSON body, or the refusal of one that cannot be read."""
    try:
        body = await reading.read()
    except OversizeError:
        return _refused(request, 413, WriteStatus.REJECT_OVERSIZE, OVERSIZE)
    except BudgetError as error:
        return _refused(request, 502, WriteStatus.QUEUE_BYTE_BUDGET, f"downstream failure: {error}")
    except CodingError as error:
        return _refused(request, 400, WriteStatus.REJECT_ENVELOPE, f"invalid envelope: {error}")
    except SlowError:
        slow = "the body did not come in the time allowed for it"
        return _refused(request, 408, WriteStatus.REJECT_ENVELOPE, slow)
    except ClientDisconnect:
        gone = "invalid envelope: the client went away"
        return _refused(request, _CLIENT_GONE, WriteStatus.REJECT_ENVELOPE, gone)
    if not is_json(request.headers.get("content-type", "")):
        wanted = "invalid envelope: the content type must be application/json"
        return _refused(request, 400, WriteStatus.REJECT_ENVELOPE, wanted)
    return body


async def _write(request: Request, take: Take) -> Response:
    """Answer a POST, and say which codings of its body are understood."""
    response = await _taken(request, take)
    response.headers.update(ACCEPTED_CODINGS)
    return response


async def _taken(request: Request, take: Take) -> Response:
    """Check the credential, read the body within its bounds, and take it."""
    service = service_of(request)
    try:
        writer = principal_of(request, Role.WRITE)
    except UnauthenticatedError as error:
        return _refused(request, 401, WriteStatus.REJECT_ACCESS, str(error))
    except AccessError as error:
        return _refused(request, 403, WriteStatus.REJECT_ACCESS, str(error))
    with Reading(request, service.settings.max_body_bytes, service.budget) as reading:
        body = await _body(request, reading)
        return body if isinstance(body, Response) else await take(request, body, writer)


async def post_turn(request: Request) -> Response:
    """Take one turn."""
    return await _write(request, _take_turn)


async def _take_turn(request: Request, body: bytes, writer: Principal) -> Response:
    post = Posted(body=body, key=request.headers.get("idempotency-key", ""))
    (answer,) = await service_of(request).intake.take((post,), writer)
    return _answered(answer)


def _answered(answer: Answer) -> Response:
    """The contract's answer; what it has no member for goes into headers."""
    headers = {"steno-turn-id": answer.id} if answer.id else {}
    if answer.status != _ACCEPTED:
        return refuse(answer.status, answer.error, headers | _later(answer), answer.action)
    if answer.duplicate:
        headers["steno-duplicate"] = "true"
    if answer.reused:
        headers["steno-request-id-reused"] = "true"
    return reply(Accepted(), _ACCEPTED, headers)


def _later(*answers: Answer) -> dict[str, str]:
    """When to come again, if any of the answers asks for a wait of its own: whole seconds, rounded up."""
    waits = [answer.overrun.wait_s for answer in answers if answer.overrun is not None]
    return {"retry-after": str(max(1, math.ceil(max(waits))))} if waits else {}


async def post_batch(request: Request) -> Response:
    """Take several turns; each is judged as if it had come alone."""
    return await _write(request, _take_batch)


async def _take_batch(request: Request, body: bytes, writer: Principal) -> Response:
    try:
        bodies = await beside(lambda: _turns_of(body), len(body))
    except MembersError as error:
        return _refused(request, 400, WriteStatus.REJECT_ENVELOPE, f"invalid envelope: {error}")
    answers = await service_of(request).intake.take([Posted(body=turn) for turn in bodies], writer)
    return _batch_answered(answers)


def _turns_of(body: bytes) -> list[bytes]:
    turns = elements(fold(split(body), ("turns",)).get("turns", b"[]"))
    if not 1 <= len(turns) <= BATCH_TURNS:
        raise MembersError(f"turns must be a list of 1 to {BATCH_TURNS} turns, not {len(turns)}")
    return turns


def _batch_answered(answers: Sequence[Answer]) -> Response:
    results = [
        BatchResult(index, answer.request_id, answer.id, answer.status, answer.error)
        for index, answer in enumerate(answers)
    ]
    refused = [answer for answer in answers if answer.status != _ACCEPTED]
    value = BatchAnswer(
        accepted=len(answers) - len(refused),
        rejected=len(refused),
        errors=[answer.error for answer in refused],
        results=results,
    )
    later = _later(*refused)
    if len(refused) < len(answers):
        return reply(value, _ACCEPTED, later)
    permanent = all(answer.status in _PERMANENT for answer in refused)
    return reply(value, 422) if permanent else reply(value, 503, {"retry-after": "2"} | later)


async def post_transcript(request: Request) -> Response:
    """Take a harness's own record of a session."""
    return await _write(request, _take_transcript)


async def _take_transcript(request: Request, body: bytes, writer: Principal) -> Response:
    try:
        subject = request.headers.get("x-paper-auth-subject", "")
        tenant = request.query_params.get("tenant", "")
        found = await beside(lambda: transcript.decode(body, subject, tenant), len(body))
    except EnvelopeError as error:
        return _refused(request, 400, WriteStatus.REJECT_ENVELOPE, f"invalid envelope: {error}")
    answer = await service_of(request).intake.take_transcript(found, len(body), writer)
    if answer.status != _ACCEPTED:
        return refuse(answer.status, answer.error, _later(answer))
    value = TranscriptAnswer(
        status="accepted", deduped=answer.duplicate, records=found.count, agent_id=found.agent_id
    )
    return reply(value, _ACCEPTED, {"steno-turn-id": answer.id})
