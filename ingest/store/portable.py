"""Turns on their way from one store to another, whichever engines hold them.

What goes along is the truth: the row, what makes it idempotent, and the body. Sequence
numbers are each store's own; the order of the turns is kept. What is derived is made again.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import StrEnum, unique
from typing import Final, cast

import zstandard
from msgspec import Struct, structs

from ingest.store import tables, turns
from ingest.store.connection import Connection, Purpose, Row, Value
from ingest.store.keys import key_hash
from ingest.store.postgres import PostgresConnection
from ingest.store.rows import Body, State, TurnRow
from ingest.store.schema import DERIVED
from ingest.store.turns import NAME_LIMIT, TEXT_LIMIT, clean

_PAGE: Final = 200
_PAGE_BYTES: Final = 16 * 1024 * 1024
_LOOKUP: Final = 400
_REPAIRED: Final = "\ufffd"
_NAMES: Final = ("agent_name", "model", "harness_id", "harness_session_id", "thread_id")
_TEXTS: Final = ("project", "reason", "request_id", "provider")
_SIZE: Final = TurnRow.__struct_fields__.index("body_bytes")
_BODIES: Final = f"SELECT seq, {tables.columns(Body)} FROM bodies WHERE seq IN"  # noqa: S608 -- constants
_COLUMNS: Final = len(TurnRow.__struct_fields__)
_SELECT: Final = f"SELECT {turns.COLUMNS}, key_hash, variant, digest FROM turns WHERE seq > ?"  # noqa: S608 -- constants


class Carried(Struct, frozen=True, kw_only=True):
    """A turn with everything that another store needs. ``turn.seq`` is the store's that gave it.

    ``key_hash`` and ``strict`` as :mod:`ingest.store.schema` has them; no key, no hash.
    """

    turn: TurnRow
    digest: bytes
    key_hash: bytes | None
    strict: bool
    body: Body

    @property
    def variant(self) -> bytes | None:
        """What tells it from others under its key."""
        if self.key_hash is None:
            return None
        if self.turn.state == State.REJECTED:
            return b"r" + self.digest
        return b"" if self.strict else self.digest


class Unreadable(Struct, frozen=True):
    """A turn whose body is damaged or gone."""

    turn: TurnRow
    reason: str


class Choice(Struct, frozen=True, kw_only=True):
    """Which turns; empty texts choose all."""

    tenant: str = ""
    state: str = ""

    def where(self) -> tuple[str, list[Value]]:
        """More conditions of a WHERE, and their values."""
        # The primary key gives the order; an index on the tenant would sort at every page.
        chosen = [("tenant || '' = ?", self.tenant), ("state = ?", self.state)]
        given = [(condition, value) for condition, value in chosen if value]
        return "".join(f" AND {condition}" for condition, _ in given), [value for _, value in given]


@unique
class Landing(StrEnum):
    """What became of a turn that was brought."""

    STORED = "stored"
    THERE = "already there"
    """The same turn is stored, under this id or as a duplicate of it."""
    CONFLICT = "conflict"
    """Its id or its strict key is another turn's."""
    TOO_LARGE = "too large"
    """The engine takes no row that large."""


def begin_snapshot(connection: Connection) -> None:
    """From here on a reading connection sees one state of the store, until it is closed."""
    connection.run("BEGIN")
    if isinstance(connection, PostgresConnection):
        connection.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.run("SET LOCAL statement_timeout = 0")  # nobody waits behind it, and it may be large


def schema_version(connection: Connection) -> int:
    """The version of the store's schema; 0 where there is none yet."""
    if not isinstance(connection, PostgresConnection):
        return cast("int", connection.run("PRAGMA user_version")[0][0])
    there = connection.run("SELECT to_regclass('schema_version') IS NOT NULL")[0][0]
    rows = connection.run("SELECT version FROM schema_version") if there else []
    return cast("int", rows[0][0]) if rows else 0


def count(connection: Connection, choice: Choice) -> int:
    """How many turns there are."""
    more, values = choice.where()
    rows = connection.run(f"SELECT count(*) FROM turns WHERE seq > 0{more}", values)  # noqa: S608 -- constants
    return cast("int", rows[0][0])


def page(connection: Connection, choice: Choice, after: int) -> list[Carried | Unreadable]:
    """The next turns after a sequence number, in order; few where they are large. Empty at the end."""
    more, values = choice.where()
    found = connection.run(f"{_SELECT}{more} ORDER BY seq LIMIT {_PAGE}", (after, *values))
    rows: list[Row] = []
    size = 0
    for row in found:
        if size > _PAGE_BYTES:
            break
        rows.append(row)
        size += cast("int", row[_SIZE])
    marks = ", ".join("?" * len(rows))
    sql = f"{_BODIES} ({marks})"
    bodies = {row[0]: row[1:] for row in connection.run(sql, [row[0] for row in rows])} if rows else {}
    return [_carried(row, bodies.get(row[0])) for row in rows]


def _carried(row: Row, stored: Row | None) -> Carried | Unreadable:
    turn = tables.load(TurnRow, row[:_COLUMNS])
    key_hash, variant, digest = (None if part is None else _bytes(part) for part in row[_COLUMNS:])
    if stored is None:
        return Unreadable(turn, "its body is gone")
    try:
        body = turns.body_of(stored)
    except zstandard.ZstdError as error:
        return Unreadable(turn, f"its body is damaged: {error}")
    return Carried(turn=turn, digest=digest or b"", key_hash=key_hash, strict=variant == b"", body=body)


def _bytes(value: Value) -> bytes:
    return bytes(cast("bytes", value))


def every(connection: Connection, choice: Choice) -> Iterator[Carried | Unreadable]:
    """Every turn of ``choice``, in order."""
    after = 0
    while found := page(connection, choice, after):
        yield from found
        after = found[-1].turn.seq


class _Known(Struct, frozen=True):
    digest: bytes
    state: str
    strict: bool


def put_back(connection: Connection, brought: Sequence[Carried]) -> list[Landing]:
    """Store what is not there yet of ``brought``, in their order; one answer for each.

    The rules are those of :func:`ingest.store.turns.put`, but for the id, which stays.
    """
    brought = [_keyed(one) for one in brought]
    connection.alone(Purpose.PUT)
    ids = _by_id(connection, [one.turn.id for one in brought])
    keys = _by_key(connection, {one.key_hash for one in brought if one.key_hash is not None})
    landings: list[Landing] = []
    new: list[Carried] = []
    for one in brought:
        known = keys[one.key_hash] if one.key_hash is not None else []
        landing = _landing(one, ids.get(one.turn.id), known)
        landings.append(landing)
        if landing is Landing.STORED:
            ids[one.turn.id] = (one.turn.tenant, one.digest)
            new.append(_flagged(one, known))
            known.append(_Known(one.digest, one.turn.state, one.strict))
    _insert(connection, new)
    return landings


def _keyed(one: Carried) -> Carried:
    """With the hash of its tenant and request id, whatever was brought: the tenant may have been renamed.

    A request id that was cut or repaired on its way into its column is not the key: its hash stays.
    """
    turn = one.turn
    if one.key_hash is not None and (len(turn.request_id) >= TEXT_LIMIT or _REPAIRED in turn.request_id):
        return one
    hashed = key_hash(turn.tenant, turn.request_id) if turn.request_id else None
    return structs.replace(one, key_hash=hashed)


def _landing(one: Carried, same_id: tuple[str, bytes] | None, known: Sequence[_Known]) -> Landing:
    if same_id is not None:
        return Landing.THERE if same_id == (one.turn.tenant, one.digest) else Landing.CONFLICT
    rivals = [other for other in known if other.state == one.turn.state]
    if any(other.digest == one.digest for other in rivals):
        return Landing.THERE
    clash = one.turn.state == State.ACCEPTED and one.strict and rivals
    return Landing.CONFLICT if clash else Landing.STORED


def _flagged(one: Carried, known: Sequence[_Known]) -> Carried:
    """Flagged where its request id came before with another body."""
    reused = one.turn.state == State.ACCEPTED and any(other.state == State.ACCEPTED for other in known)
    return structs.replace(one, turn=structs.replace(one.turn, reused=1)) if reused else one


def _by_id(connection: Connection, wanted: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    found: dict[str, tuple[str, bytes]] = {}
    for chunk, marks in _chunks(wanted):
        sql = f"SELECT id, tenant, digest FROM turns WHERE id IN ({marks})"  # noqa: S608 -- question marks
        for identifier, tenant, digest in connection.run(sql, chunk):
            found[str(identifier)] = (str(tenant), _bytes(digest))
    return found


def _by_key(connection: Connection, wanted: set[bytes]) -> defaultdict[bytes, list[_Known]]:
    found: defaultdict[bytes, list[_Known]] = defaultdict(list)
    for chunk, marks in _chunks(sorted(wanted)):
        sql = f"SELECT key_hash, variant, digest, state FROM turns WHERE key_hash IN ({marks})"  # noqa: S608 -- question marks
        for key, variant, digest, state in connection.run(sql, chunk):
            found[_bytes(key)].append(_Known(_bytes(digest), str(state), _bytes(variant) == b""))
    return found


def _chunks(values: Sequence[Value]) -> Iterator[tuple[Sequence[Value], str]]:
    for start in range(0, len(values), _LOOKUP):
        chunk = values[start : start + _LOOKUP]
        yield chunk, ", ".join("?" * len(chunk))


def _insert(connection: Connection, new: Sequence[Carried]) -> None:
    if not new:
        return
    numbered = list(zip(connection.allocate(len(new)), new, strict=True))
    tables.put_rows(connection, "turns", [_turn_values(seq, one) for seq, one in numbered])
    tables.put_rows(connection, "bodies", [(seq, *_body_values(one.body)) for seq, one in numbered])
    tables.put_rows(connection, "pending", [(seq,) for seq, _ in numbered])


def _turn_values(seq: int, one: Carried) -> tuple[Value, ...]:
    texts = {name: clean(getattr(one.turn, name)) for name in _TEXTS}
    names = {name: clean(getattr(one.turn, name), NAME_LIMIT) for name in _NAMES}
    row = structs.replace(one.turn, seq=seq, **texts, **names)
    return (*tables.values(row), one.key_hash, one.variant, one.digest)


def _body_values(body: Body) -> tuple[Value, ...]:
    coding = clean(body.raw_response_encoding)
    return tables.values(turns.packed(structs.replace(body, raw_response_encoding=coding)))


def erase(connection: Connection) -> int:
    """Delete every turn and everything derived; the audit stays. How many turns there were."""
    connection.alone(Purpose.DERIVE)
    connection.alone(Purpose.PUT)
    gone = count(connection, Choice())
    for table in (*DERIVED, "derive_failures", "derive_again", "pending", "bodies", "turns"):
        connection.run(f"DELETE FROM {table}")  # noqa: S608 -- constants
    return gone


def audit(connection: Connection, now_us: int, action: str, scope: str, number: int) -> None:
    """Record what an operator's command did to the whole store."""
    values = (now_us, f"steno ingest {action}", action, "*", clean(scope), number)
    connection.run("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", values)
