"""The handlers that take turns in."""

from starlette.requests import Request
from starlette.responses import Response

from ingest.access import OPEN
from ingest.bodies import BudgetError, ClientDisconnect, CodingError, OversizeError, Reading, is_json
from ingest.intake import Answer, Posted
from ingest.metrics import WriteStatus, provider_label
from ingest.replies import Accepted, refuse, reply
from ingest.service import Service

OVERSIZE = "request body exceeds the ingest size limit"
_CLIENT_GONE = 499


def service_of(request: Request) -> Service:
    """The service that this request came to."""
    service: Service = request.app.state.service
    return service


async def body_of(request: Request, reading: Reading) -> bytes | Response:
    """The decoded JSON body, or the refusal of one that cannot be read. Counts refusals."""
    metrics = service_of(request).metrics

    def refused(status: int, outcome: WriteStatus, error: str) -> Response:
        metrics.writes.labels(provider_label(""), outcome).inc()
        return refuse(status, error, {"connection": "close"} if status in (413, 502) else None)

    try:
        body = await reading.read()
    except OversizeError:
        return refused(413, WriteStatus.REJECT_OVERSIZE, OVERSIZE)
    except BudgetError as error:
        return refused(502, WriteStatus.QUEUE_BYTE_BUDGET, f"downstream failure: {error}")
    except CodingError as error:
        return refused(400, WriteStatus.REJECT_ENVELOPE, f"invalid envelope: {error}")
    except ClientDisconnect:
        return refused(_CLIENT_GONE, WriteStatus.REJECT_ENVELOPE, "invalid envelope: the client went away")
    if not is_json(request.headers.get("content-type", "")):
        return refused(
            400, WriteStatus.REJECT_ENVELOPE, "invalid envelope: the content type must be application/json"
        )
    return body


async def post_turn(request: Request) -> Response:
    """Take one turn."""
    service = service_of(request)
    with Reading(request, service.settings.max_body_bytes, service.budget) as reading:
        body = await body_of(request, reading)
        if isinstance(body, Response):
            return body
        post = Posted(body=body, key=request.headers.get("idempotency-key", ""))
        (answer,) = await service.intake.take((post,), OPEN)
        return answered(answer)


def answered(answer: Answer) -> Response:
    """The contract's answer; what it has no member for goes into headers."""
    headers = {"steno-turn-id": answer.id} if answer.id else {}
    if answer.status != 202:  # noqa: PLR2004 -- the one success of this route
        return refuse(answer.status, answer.error, headers)
    if answer.duplicate:
        headers["steno-duplicate"] = "true"
    if answer.reused:
        headers["steno-request-id-reused"] = "true"
    return reply(Accepted(), 202, headers)
