"""What the read surface asks. No statement here touches ``bodies`` but those for one turn.

Lists are paged by key, newest first: a cursor names the last row of the page before. Every
filter has an index that ends in the order of the list, so a page costs the same at any size.
"""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from msgspec import Struct

from ingest.store import tables
from ingest.store.connection import Connection, Row, Value
from ingest.store.keys import key_hash
from ingest.store.packing import unpack
from ingest.store.rows import COUNTS, MOST, NodeDetail, RunRow, SessionRow, State, StepRow, TurnRow, UsageRow
from ingest.store.turns import NAME_LIMIT, clean

_TURN: Final = tables.columns(TurnRow, "t.")
_STEP: Final = tables.columns(StepRow, "s.")
_TURNS: Final = len(TurnRow.__struct_fields__)
_STATES: Final = frozenset(State)
_BY_STEP: Final = ("session_id", "run_id", "agent_name", "model", "provider")
"""The filters on steps; of those with equally many turns, the first one's index is read."""
_OWN: Final = frozenset(("agent_name", "model", "provider"))
"""The filters that a turn itself can answer."""
_FEW: Final = 1000
"""So far are the turns of each filter counted, where there are several."""


class Cursor(Struct, frozen=True):
    """Where the page before ended: ``at_us`` of its last row, and what tells it from its equals."""

    at_us: int
    tie: str


class Page(Struct, frozen=True, kw_only=True):
    """Which page of which rows. Empty filters do not filter; times are half open."""

    tenant: str
    limit: int
    cursor: Cursor | None = None
    since_us: int | None = None
    until_us: int | None = None
    session_id: str = ""
    run_id: str = ""
    agent_name: str = ""
    model: str = ""
    provider: str = ""
    state: str = ""
    request_id: str = ""


class Found(Struct, frozen=True):
    """A turn, and its step unless it is not derived (yet)."""

    turn: TurnRow
    step: StepRow | None


class _Where:
    """Conditions and their values, collected."""

    def __init__(self, condition: str, *values: Value) -> None:
        self.conditions = [condition]
        self.values = list(values)

    def add(self, condition: str, *values: Value) -> None:
        self.conditions.append(condition)
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self.conditions)


def _span(where: _Where, page: Page, column: str, tie: str, last: Value) -> None:
    if page.since_us is not None:
        where.add(f"{column} >= ?", page.since_us)
    if page.until_us is not None:
        where.add(f"{column} < ?", page.until_us)
    if page.cursor is not None:
        where.add(f"({column}, {tie}) < (?, ?)", page.cursor.at_us, last)


def tenants(connection: Connection) -> list[str]:
    """Everybody who has turns: an index's look-up each, however many turns they have."""
    found: list[str] = []
    rows = connection.run("SELECT min(tenant) FROM turns")
    while (name := rows[0][0]) is not None:
        found.append(str(name))
        rows = connection.run("SELECT min(tenant) FROM turns WHERE tenant > ?", (name,))
    return found


def turns(connection: Connection, page: Page) -> list[Found]:
    """A page of turns. Filters ask what was derived, and a rejected turn, which has no step, itself."""
    wanted = {name: clean(getattr(page, name), NAME_LIMIT) for name in _BY_STEP}
    filters = {name: value for name, value in wanted.items() if value}
    if page.state and page.state not in _STATES:
        return []
    if not filters:
        return _turns(connection, page, "t", {}, page.state)
    found: list[Found] = []
    if page.state != State.REJECTED:
        found += _turns(connection, page, "s", filters, page.state)
    if page.state != State.ACCEPTED and filters.keys() <= _OWN:
        found += _turns(connection, page, "t", filters, State.REJECTED)
    found.sort(key=lambda one: (one.turn.received_at_us, one.turn.seq), reverse=True)
    return found[: page.limit]


def _turns(
    connection: Connection, page: Page, main: str, filters: Mapping[str, str], state: str
) -> list[Found]:
    """A page of turns whose steps (``s``), or who themselves (``t``), are as ``filters`` say."""
    join = "JOIN" if main == "s" else "LEFT JOIN"
    order = (f"{main}.received_at_us", f"{main}.seq")
    if page.request_id:  # few turns: their key tells them
        where = _Where("t.key_hash = ? AND t.tenant = ?", key_hash(page.tenant, page.request_id), page.tenant)
        order = (f"+{order[0]}", f"+{order[1]}")  # not by an index: SQLite would read all turns in order
    else:
        where = _Where(f"{main}.tenant = ?", page.tenant)
    rarest = _rarest(connection, page.tenant, filters) if main == "s" else next(iter(filters), "")
    for name, value in filters.items():
        where.add(f"{main}.{name} = ?" if name == rarest else f"CAST({main}.{name} AS TEXT) = ?", value)
    if state:
        where.add(f"t.state = '{state}'")  # spelled out: else its index could not be used
    last = int(page.cursor.tie) if page.cursor else None
    _span(where, page, f"{main}.received_at_us", f"{main}.seq", last)
    sql = (
        f"SELECT {_TURN}, {_STEP} FROM turns t {join} steps s ON s.seq = t.seq WHERE {where}"  # noqa: S608 -- constants
        f" ORDER BY {order[0]} DESC, {order[1]} DESC LIMIT ?"
    )
    return [_found(row) for row in connection.run(sql, (*where.values, page.limit))]


def _rarest(connection: Connection, tenant: str, filters: Mapping[str, str]) -> str:
    """The filter whose index is to be read: SQLite, without statistics of values, would take any.

    The others are written as casts, which it reads no index for and which mean nothing to PostgreSQL.
    """
    if len(filters) < 2:  # noqa: PLR2004 -- one filter, or none
        return next(iter(filters), "")
    counts = {
        name: cast(
            "int",
            connection.run(
                f"SELECT count(*) FROM (SELECT 1 FROM steps WHERE tenant = ? AND {name} = ? LIMIT ?) few",  # noqa: S608 -- constants
                (tenant, value, _FEW),
            )[0][0],
        )
        for name, value in filters.items()
    }
    return min(counts, key=lambda name: counts[name])


def _found(row: Row) -> Found:
    step = tables.load(StepRow, row[_TURNS:]) if row[_TURNS] is not None else None
    return Found(tables.load(TurnRow, row[:_TURNS]), step)


def turn(connection: Connection, tenant: str, identifier: str) -> Found | None:
    """The turn of this id, or the newest one posted under it as its request id."""
    sql = f"SELECT {_TURN}, {_STEP} FROM turns t LEFT JOIN steps s ON s.seq = t.seq WHERE"  # noqa: S608 -- constants
    rows = connection.run(f"{sql} t.id = ? AND t.tenant = ?", (clean(identifier), tenant))
    if not rows:
        by_key = f"{sql} t.key_hash = ? AND t.tenant = ? ORDER BY t.state, t.seq DESC LIMIT 1"
        rows = connection.run(by_key, (key_hash(tenant, identifier), tenant))
    return _found(rows[0]) if rows else None


def attempts(connection: Connection, turn: TurnRow) -> list[TurnRow]:
    """Every turn posted under the same request id, this one included, oldest first."""
    if not turn.request_id:
        return [turn]
    same = "t.key_hash = (SELECT key_hash FROM turns WHERE seq = ?) AND t.tenant = ?"
    sql = f"SELECT {_TURN} FROM turns t WHERE {same} ORDER BY +t.seq LIMIT 100"  # noqa: S608 -- constants
    return [tables.load(TurnRow, row) for row in connection.run(sql, (turn.seq, turn.tenant))]


def sessions(connection: Connection, page: Page) -> list[SessionRow]:
    """A page of sessions, the last active first."""
    where = _Where("tenant = ?", page.tenant)
    _span(where, page, "last_at_us", "id", page.cursor.tie if page.cursor else None)
    sql = (
        f"SELECT {tables.columns(SessionRow)} FROM sessions WHERE {where}"  # noqa: S608 -- constants
        " ORDER BY last_at_us DESC, id DESC LIMIT ?"
    )
    return [tables.load(SessionRow, row) for row in connection.run(sql, (*where.values, page.limit))]


def session(connection: Connection, tenant: str, identifier: str) -> SessionRow | None:
    """One session."""
    return tables.fetch(connection, "sessions", SessionRow, tenant, [clean(identifier)]).get(identifier)


def runs(connection: Connection, page: Page) -> list[RunRow]:
    """A page of the runs of a session, newest first."""
    where = _Where("tenant = ? AND session_id = ?", page.tenant, page.session_id)
    _span(where, page, "first_at_us", "id", page.cursor.tie if page.cursor else None)
    sql = (
        f"SELECT {tables.columns(RunRow)} FROM runs WHERE {where}"  # noqa: S608 -- constants
        " ORDER BY first_at_us DESC, id DESC LIMIT ?"
    )
    return [tables.load(RunRow, row) for row in connection.run(sql, (*where.values, page.limit))]


def run(connection: Connection, tenant: str, identifier: str) -> RunRow | None:
    """One run."""
    return tables.fetch(connection, "runs", RunRow, tenant, [clean(identifier)]).get(identifier)


_NODE: Final = "hash, parent, role, on_spine, provider, model, agent_name, content"
_ANCESTRY: Final = (
    f"WITH RECURSIVE up AS (SELECT 1 AS depth, tenant, {_NODE} FROM nodes WHERE tenant = ? AND hash = ?"  # noqa: S608 -- constants
    f" UNION ALL SELECT up.depth + 1, n.tenant, {', '.join('n.' + name for name in _NODE.split(', '))}"
    " FROM up JOIN nodes n ON n.tenant = up.tenant AND n.hash = up.parent WHERE up.depth < ?)"
    f" SELECT {_NODE} FROM up ORDER BY depth"
)


def ancestry(connection: Connection, tenant: str, name: str, limit: int) -> list[NodeDetail]:
    """The node of this hash and what came before it, nearest first, at most ``limit`` nodes."""
    return [_node(row) for row in connection.run(_ANCESTRY, (tenant, bytes.fromhex(name), limit))]


def _node(row: Row) -> NodeDetail:
    found, parent, role, on_spine, provider, model, agent, content = row
    return NodeDetail(
        hash=bytes(cast("bytes", found)).hex(),
        parent=bytes(cast("bytes", parent)).hex() if parent is not None else "",
        role=str(role),
        on_spine=bool(on_spine),
        provider=str(provider),
        model=str(model),
        agent_name=str(agent),
        content=unpack(bytes(cast("bytes", content))),
    )


USAGE_KEYS: Final = ("day", "provider", "model", "agent_name", "session_id")


def _sum(name: str) -> str:
    """The sum of a count, :data:`MOST` at most: doubles are exact up to there, and do not overflow beyond."""
    total = f"sum(CAST({name} AS DOUBLE PRECISION))"
    return f"CASE WHEN {total} < {MOST} THEN CAST({total} AS BIGINT) ELSE {MOST} END"


def usage(
    connection: Connection,
    tenant: str,
    by: Sequence[str],
    span: tuple[str, str],
    limit: int,
    *,
    after: Sequence[str] = (),
) -> list[UsageRow]:
    """Token totals of a tenant, grouped by ``by`` (of :data:`USAGE_KEYS`), from day to day inclusive.

    In the order of the groups; ``after`` is the last group of the page before, its values in the order
    of ``by``.
    """
    table = "usage" if "session_id" in by else "usage_days"
    keys = ", ".join(name if name in by else f"'' AS {name}" for name in USAGE_KEYS)
    counts = ", ".join(_sum(name) for name in COUNTS)
    grouped = ("tenant", *by)
    # Without days the groups are read in order, up to the limit: SQLite would read all the days instead.
    day = "day" if "day" in by else "CAST(day AS TEXT)"
    where = _Where(f"tenant = ? AND {day} >= ? AND {day} <= ?", tenant, *span)
    if after:
        marks = ", ".join("?" * len(after))
        where.add(f"({', '.join(by)}) > ({marks})", *(clean(value, NAME_LIMIT) for value in after))
    sql = (
        f"SELECT tenant, {keys}, {counts} FROM {table} WHERE {where}"  # noqa: S608 -- constants
        f" GROUP BY {', '.join(grouped)} ORDER BY {', '.join(grouped)} LIMIT ?"
    )
    return [tables.load(UsageRow, row) for row in connection.run(sql, (*where.values, limit))]
