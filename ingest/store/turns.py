"""Putting turns: who is new, who is a duplicate, and the rows of those that stay.

Rules (issue of the reference's defects 3 and 4, ``contracts/behaviour.md`` §10): the same
key with the same body is a duplicate; a strict key with another body is a conflict, kept
as rejected; a key that came only as ``meta.request_id`` with another body is a new turn,
flagged ``reused``, because clients repeat their request ids. Rejected turns hold no key.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias, cast

from msgspec import Struct, structs

from ingest.store import tables
from ingest.store.connection import Connection, Purpose, Row, Value
from ingest.store.keys import key_hash
from ingest.store.packing import pack, unpack
from ingest.store.rows import Body, Fate, NewTurn, Put, State, TurnRow

TEXT_LIMIT: Final = 1024
NAME_LIMIT: Final = 256
"""Characters of a column in an index: PostgreSQL refuses entries beyond 2.7 KB."""
CONFLICT: Final = "the idempotency key was used before with another body"
COLUMNS: Final = tables.columns(TurnRow)
_New: TypeAlias = tuple[NewTurn, bytes | None, bytes | None, bool]
"""A turn to insert, the hash of its key, its variant, and whether its request id was used before."""


class _Known(Struct, frozen=True):
    """An earlier turn under the same key."""

    variant: bytes
    digest: bytes
    id: str
    state: str


def digest_of(body: bytes) -> bytes:
    """What identifies a posted body."""
    return sha256(body).digest()[:16]


def put(connection: Connection, turns: Sequence[NewTurn]) -> list[Put]:
    """Store what is new of ``turns``, in their order; one answer for each."""
    if any(turn.key for turn in turns):
        connection.alone(Purpose.PUT)
    hashes = [key_hash(turn.tenant, turn.key) if turn.key else None for turn in turns]
    known = _known(connection, {found for found in hashes if found is not None})
    answers: list[Put] = []
    rows: list[_New] = []
    for turn, hashed in zip(turns, hashes, strict=True):
        if hashed is None:
            answers.append(Put(Fate.STORED, turn.id))
            rows.append((turn, None, None, False))
            continue
        answer, kept, variant = _settle(turn, known[hashed])
        answers.append(answer)
        if kept is not None:
            known[hashed].append(_Known(variant, kept.digest, kept.id, kept.state))
            rows.append((kept, hashed, variant, answer.reused))
    if rows:
        _insert(connection, rows)
    return answers


def _known(connection: Connection, hashes: Iterable[bytes]) -> defaultdict[bytes, list[_Known]]:
    known: defaultdict[bytes, list[_Known]] = defaultdict(list)
    for marks, chunk in tables.chunks(list(hashes)):
        sql = (
            f"SELECT key_hash, variant, digest, id, state FROM turns WHERE key_hash IN ({marks}) ORDER BY seq"  # noqa: S608 -- question marks
        )
        for found, variant, digest, identifier, state in connection.run(sql, chunk):
            known[cast("bytes", found)].append(
                _Known(cast("bytes", variant), cast("bytes", digest), str(identifier), str(state))
            )
    return known


def _settle(turn: NewTurn, known: Sequence[_Known]) -> tuple[Put, NewTurn | None, bytes]:
    """The answer, the turn to store (None: nothing), and its variant."""
    if turn.state is State.REJECTED:
        return _settle_rejected(turn, known, Fate.DUPLICATE)
    accepted = [earlier for earlier in known if earlier.state == State.ACCEPTED]
    for earlier in accepted:
        if earlier.digest == turn.digest:
            return Put(Fate.DUPLICATE, earlier.id), None, b""
    if accepted and turn.strict:
        conflict = structs.replace(turn, state=State.REJECTED, reason=CONFLICT)
        answer, kept, variant = _settle_rejected(conflict, known, Fate.CONFLICT)
        return Put(Fate.CONFLICT, answer.id), kept, variant
    variant = b"" if turn.strict else turn.digest
    return Put(Fate.STORED, turn.id, reused=bool(accepted)), turn, variant


def _settle_rejected(
    turn: NewTurn, known: Sequence[_Known], again: Fate
) -> tuple[Put, NewTurn | None, bytes]:
    variant = b"r" + turn.digest
    for earlier in known:
        if earlier.variant == variant:
            return Put(again, earlier.id), None, b""
    return Put(Fate.STORED, turn.id), turn, variant


def _insert(connection: Connection, rows: Sequence[_New]) -> None:
    numbered = list(zip(connection.allocate(len(rows)), rows, strict=True))
    rows_of: dict[str, list[tuple[Value, ...]]] = {
        "turns": [turn_values(seq, *row) for seq, row in numbered],
        "bodies": [_body_values(seq, row[0].body) for seq, row in numbered],
        "pending": [(seq,) for seq, _ in numbered],
    }
    tables.put_beside(connection, rows_of)


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text for a column: what no engine stores becomes U+FFFD, what is over-long is cut."""
    text = text[:limit].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def name_of(text: str) -> str:
    """A name for a column, of :data:`NAME_LIMIT` characters at most: two names never become one.

    The longer ones end in a hash of the whole.
    """
    if len(text) <= NAME_LIMIT:
        return clean(text)
    tail = "~" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return clean(text, NAME_LIMIT - len(tail)) + tail


def turn_values(
    seq: int, turn: NewTurn, hashed: bytes | None, variant: bytes | None, reused: bool
) -> tuple[Value, ...]:
    """The row of a turn in ``turns``."""
    return (
        seq,
        turn.id,
        turn.tenant,
        clean(turn.project),
        turn.source,
        turn.state,
        clean(turn.reason),
        clean(turn.key),
        int(reused),
        clean(turn.provider),
        clean(turn.agent_name, NAME_LIMIT),
        clean(turn.model, NAME_LIMIT),
        name_of(turn.harness_id),
        name_of(turn.harness_session_id),
        name_of(turn.thread_id),
        turn.received_at_us,
        turn.body_bytes,
        int(turn.raw_dropped),
        hashed,
        variant,
        turn.digest,
    )


def _body_values(seq: int, body: Body) -> tuple[Value, ...]:
    return (
        seq,
        body.request,
        body.response,
        body.meta,
        body.session,
        body.raw_response,
        clean(body.raw_response_encoding),
    )


def packed(body: Body) -> Body:
    """The body as it rests in the store. Done before the writer, which has no time for it."""
    return Body(
        request=pack(body.request),
        response=pack(body.response),
        meta=pack(body.meta),
        session=pack(body.session),
        raw_response=body.raw_response,
        raw_response_encoding=body.raw_response_encoding,
    )


def body_of(row: Row) -> Body:
    """A row of ``request, response, meta, session, raw_response, raw_response_encoding``."""
    request, response, meta, session, raw = (bytes(cast("bytes", value)) for value in row[:5])
    return Body(
        request=unpack(request),
        response=unpack(response),
        meta=unpack(meta),
        session=unpack(session),
        raw_response=raw,
        raw_response_encoding=str(row[5]),
    )


def body(connection: Connection, seq: int) -> Body | None:
    """The body of one turn, or None when there is none under ``seq``."""
    rows = connection.run(
        "SELECT request, response, meta, session, raw_response, raw_response_encoding"
        " FROM bodies WHERE seq = ?",
        (seq,),
    )
    return body_of(rows[0]) if rows else None
