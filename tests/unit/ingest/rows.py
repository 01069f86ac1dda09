"""Turns for the store, made without an envelope."""

import os

from ingest.ids import uuid7
from ingest.store.rows import Body, NewTurn, State
from ingest.store.turns import digest_of, packed

_numbers = iter(range(1 << 40))


def new_turn(
    text: str = "",
    *,
    key: str = "",
    strict: bool = False,
    tenant: str = "default",
    state: State = State.ACCEPTED,
    size: int = 0,
    noise: int = 0,
) -> NewTurn:
    """A turn whose body is told from others by ``text`` (or by its key). ``noise`` does not compress."""
    number = next(_numbers)
    content = (text or key).encode() + b"x" * size + os.urandom(noise // 2).hex().encode()
    return NewTurn(
        id=uuid7(number, number.to_bytes(10, "big")),
        tenant=tenant,
        state=state,
        key=key,
        strict=strict,
        digest=digest_of(content),
        provider="anthropic",
        received_at_us=number,
        body_bytes=len(content),
        body=packed(Body(request=b'"' + content + b'"', response=b"{}")),
    )
