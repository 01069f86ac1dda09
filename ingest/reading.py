"""The handlers that give back what was stored. One tenant at a time; every read of content is audited."""

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, TypeVar

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from ingest import audit, views
from ingest.access import Role
from ingest.aside import beside
from ingest.replies import Node, NodeList, refuse, reply
from ingest.store import nodes, reads, turns
from ingest.store.connection import Connection
from ingest.store.reads import Cursor, Found, Page
from ingest.store.rows import State
from ingest.times import TimeError, day_of, moment_of
from ingest.writing import principal_of, service_of

PAGE: Final = 100
"""Most rows of a page."""
_NODES: Final = 1000
_CATCH_UP_S: Final = 1.0
_HASH_DIGITS: Final = frozenset("0123456789abcdef")
CURSOR: Final = r"[0-9A-Za-z_-]{1,12000}"
_PLACE: Final = re.compile(r"[0-9]{1,18}-[0-9a-z]{1,40}")
"""The cursor of a list in the order of time. That of usage is the last group, as JSON in base64."""
_HASH_LENGTH: Final = 64
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_LENGTH: Final = len("2026-01-31")
_LARGEST: Final = 1 << 63
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


class QueryError(ValueError):
    """A query parameter says nothing usable (400)."""


def knowing(handler: Handler, names: Sequence[str]) -> Handler:
    """``handler``, for requests whose parameters are of ``names``, each at most once; others are 400.

    A filter that is not known would be one that does not filter: everything, where little was asked for.
    """

    async def knowing_handler(request: Request) -> Response:
        query = request.query_params
        for name in query:
            if name not in names or len(query.getlist(name)) > 1:
                known = ", ".join(names) or "nothing"
                raise QueryError(f"{name!a} is not to be asked here, or not twice: {known} may be, once")
        return await handler(request)

    return knowing_handler


def tenant_of(request: Request) -> str:
    """The tenant that is read: ``?tenant=``, or the credential's own."""
    return principal_of(request, Role.READ).tenant(request.query_params.get("tenant", ""))


def page_of(request: Request, **fixed: str) -> Page:
    """The page that the query asks for. Raises :class:`QueryError`."""
    query = request.query_params
    return Page(
        tenant=tenant_of(request),
        limit=_number(query.get("limit", str(PAGE))),
        cursor=_cursor(query.get("cursor", "")),
        since_us=time_of(query.get("since", "")),
        until_us=time_of(query.get("until", "")),
        session_id=fixed.get("session_id") or query.get("session", ""),
        run_id=fixed.get("run_id", ""),
        agent_name=query.get("agent", ""),
        model=query.get("model", ""),
        provider=query.get("provider", ""),
        state=state_of(query.get("state", "")),
        request_id=query.get("request_id", ""),
    )


def _number(text: str) -> int:
    if not (_NUMBER.fullmatch(text) and 1 <= int(text) <= PAGE):
        raise QueryError(f"limit must be 1 to {PAGE}")
    return int(text)


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    at, _, tie = text.partition("-")
    if not _PLACE.fullmatch(text):
        raise QueryError("cursor must be the next of an earlier page")
    return Cursor(int(at), tie)


def _ends_in_number(cursor: Cursor | None) -> None:
    """Refuse the cursor of another list: that of turns ends in the number of a row."""
    if cursor and not (cursor.tie.isdigit() and int(cursor.tie) < _LARGEST):
        raise QueryError("cursor must be the next of an earlier page of turns")


def state_of(text: str) -> str:
    """A state of turns, empty for any. Raises :class:`QueryError`."""
    if text and text not in set(State):
        raise QueryError(f"state must be {' or '.join(State)}")
    return text


def time_of(text: str) -> int | None:
    """A time of the query in microseconds, None for none. Raises :class:`QueryError`."""
    if not text:
        return None
    try:
        at = day_of(text) if len(text) == _DAY_LENGTH else moment_of(text)
    except TimeError as error:
        example = "2026-01-31T00:00:00Z, or a day of UTC: 2026-01-31"
        raise QueryError(f"a time must be as RFC 3339 has it, of the years 1 to 9999: {example}") from error
    return (at - _EPOCH) // _MICROSECOND


async def _rows(
    request: Request, read: Callable[[Connection, Page], list[T]], page: Page, tie: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """The rows of a page, and the cursor of the next one: one row more is read to know."""
    more = structs.replace(page, limit=page.limit + 1)
    rows = await service_of(request).store.read(lambda connection: read(connection, more))
    found = rows[: page.limit]
    return found, tie(found[-1]) if len(rows) > len(found) else None


def _turn_tie(found: Found) -> str:
    return f"{found.turn.received_at_us}-{found.turn.seq}"


def _read_of(request: Request, what: str, tenant: str) -> None:
    audit.read_of(principal_of(request, Role.READ).name, what, tenant)


async def list_nodes(request: Request) -> Response:
    """List nodes, newest first, of one agent if ``agent`` is given.

    Waits a moment for the derivation of what was stored before: a canary that posts and
    then asks sees its own nodes.
    """
    service = service_of(request)
    agent = request.query_params.get("agent", "")
    tenant = tenant_of(request)
    await service.deriver.settled(_CATCH_UP_S)
    rows = await service.store.read(lambda connection: nodes.newest(connection, tenant, agent, _NODES))
    listed = [Node(row.hash, row.role, row.provider, row.model, row.agent_name) for row in rows]
    return reply(NodeList(len(listed), listed))


async def list_turns(request: Request) -> Response:
    """List turns, newest first."""
    page = page_of(request)
    _ends_in_number(page.cursor)
    found, after = await _rows(request, reads.turns, page, _turn_tie)
    _read_of(request, "turns", page.tenant)
    return reply(views.TurnPage([views.turn_item(one) for one in found], after))


async def get_turn(request: Request) -> Response:
    """Show a turn, by its id or by the request id it was posted under."""
    service, tenant = service_of(request), tenant_of(request)
    wanted = request.path_params["id"]
    found = await service.store.read(lambda connection: reads.turn(connection, tenant, wanted))
    if found is None:
        return refuse(404, "no such turn")
    seq = found.turn.seq
    body = await service.store.read(lambda connection: turns.body(connection, seq))
    attempts = await service.store.read(lambda connection: reads.attempts(connection, found.turn))
    if body is None:
        return refuse(404, "no such turn")
    _read_of(request, f"turns/{found.turn.id}", tenant)
    return await beside(lambda: reply(views.turn_detail(found, body, attempts)), body.size)


async def list_sessions(request: Request) -> Response:
    """List sessions, the last active first."""
    page = page_of(request)
    rows, after = await _rows(request, reads.sessions, page, lambda row: f"{row.last_at_us}-{row.id}")
    _read_of(request, "sessions", page.tenant)
    return reply(views.SessionPage([views.session_item(row) for row in rows], after))


async def get_session(request: Request) -> Response:
    """Show a session and a page of its runs."""
    store = service_of(request).store
    page = page_of(request, session_id=request.path_params["id"])
    row = await store.read(lambda connection: reads.session(connection, page.tenant, page.session_id))
    if row is None:
        return refuse(404, "no such session")
    runs, after = await _rows(request, reads.runs, page, lambda run: f"{run.first_at_us}-{run.id}")
    _read_of(request, f"sessions/{row.id}", page.tenant)
    return reply(views.SessionDetail(views.session_item(row), [views.run_item(run) for run in runs], after))


async def get_run(request: Request) -> Response:
    """Show a run and a page of its steps."""
    store = service_of(request).store
    page = page_of(request, run_id=request.path_params["id"])
    _ends_in_number(page.cursor)
    row = await store.read(lambda connection: reads.run(connection, page.tenant, page.run_id))
    if row is None:
        return refuse(404, "no such run")
    found, after = await _rows(request, reads.turns, page, _turn_tie)
    _read_of(request, f"runs/{row.id}", page.tenant)
    return reply(views.RunView(views.run_item(row), [views.turn_item(one) for one in found], after))


async def get_node(request: Request) -> Response:
    """Show a node and what came before it."""
    tenant = tenant_of(request)
    name = request.path_params["hash"]
    if len(name) != _HASH_LENGTH or not _HASH_DIGITS.issuperset(name):
        return refuse(404, "no such node")
    limit = _number(request.query_params.get("limit", str(PAGE)))
    chain = await service_of(request).store.read(
        lambda connection: reads.ancestry(connection, tenant, name, limit + 1)
    )
    if not chain:
        return refuse(404, "no such node")
    _read_of(request, f"nodes/{name}", tenant)
    first, *ancestors = [views.node_item(node) for node in chain]
    return reply(views.NodeView(first, ancestors, chain[-1].parent or None))


async def get_usage(request: Request) -> Response:
    """Show token totals, by default of each day of the last thirty."""
    query = request.query_params
    tenant = tenant_of(request)
    by = list(dict.fromkeys(word for word in query.get("by", "day").split(",") if word))
    if not set(by) <= set(reads.USAGE_KEYS):
        raise QueryError(f"by must be some of {', '.join(reads.USAGE_KEYS)}")
    today = datetime.now(UTC).date()
    span = (_day(query.get("since"), str(today - timedelta(days=30))), _day(query.get("until"), str(today)))
    limit = _number(query.get("limit", str(PAGE)))
    after = _group(query.get("cursor", ""), len(by))
    rows = await service_of(request).store.read(
        lambda connection: reads.usage(connection, tenant, by, span, limit + 1, after=after)
    )
    shown = rows[:limit]
    more = _cursor_of([getattr(shown[-1], name) for name in by]) if len(rows) > limit else None
    return reply(views.UsageList([views.usage_item(row) for row in shown], more))


def _cursor_of(group: list[str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(group)).decode().rstrip("=")


def _group(cursor: str, keys: int) -> list[str]:
    """The group that a cursor of usage names; empty for none."""
    if not cursor:
        return []
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        group = msgspec.json.decode(text, type=list[str])
    except (ValueError, UnicodeError) as error:  # also of base64 and msgspec
        raise QueryError("cursor must be the next of an earlier page of usage") from error
    if len(group) != keys:
        raise QueryError("cursor must be the next of an earlier page by the same keys")
    return group


def _day(text: str | None, otherwise: str) -> str:
    if not text:
        return otherwise
    at = time_of(text)
    return (_EPOCH + timedelta(microseconds=at or 0)).date().isoformat()
