"""The bytes of a request body: appended until a budget is reached, out of the way once it has ended.

    append(chunk) …  ended()  →  packed() or shelved(place)  →  joined()

While it arrives it is a list of chunks. Once it has ended it is read again only for a
checkpoint and at the end, so an exchange that stays open keeps it smaller: compressed
(:meth:`pack`), or not in memory at all (``extproc.shelf`` moves it to disk and back).
"""

from collections.abc import Callable
from typing import Final, Protocol

import zstandard

from capture import jsontext
from extproc.budget import Account, ShedPart

STEP_BYTES: Final = 16 * 1024
"""Drawn from the account at least at once while a body arrives; what is left over goes back at its end."""

PACK_FROM_BYTES: Final = 4096
"""Smaller ones gain less than it costs to read them again, for each checkpoint and at the end."""


PACK_TO_BYTES: Final = 256 * 1024
"""Larger ones would hold the loop for milliseconds; the shelf packs those in its thread."""


class Place(Protocol):
    """Where a request lies that is not in memory (``extproc.shelf``)."""

    async def read(self) -> bytes | None:
        """The request; None when it cannot be had any more."""
        ...

    def free(self) -> None:
        """Nobody reads it any more. Calling it again does nothing."""
        ...


class RequestBody:
    """Collects a request body.

    Over ``budget_bytes`` the chunk that would pass it and all later ones are dropped, those before
    it too, and ``over_budget`` is set (``behaviour.md`` §4). The same happens when ``account`` has no more
    room, and ``shed`` is set. A budget of None keeps nothing: there is no turn in the exchange.
    """

    __slots__ = (
        "_account",
        "_budget_bytes",
        "_chunks",
        "_drawn",
        "_ended",
        "_packed",
        "_pinned",
        "_room",
        "kept_bytes",
        "over_budget",
        "place",
        "received_bytes",
        "shed",
    )

    def __init__(self, budget_bytes: int | None, account: Account | None = None) -> None:
        self._budget_bytes = budget_bytes
        self._account = account
        self._chunks: list[bytes] = []
        self._packed = b""
        self._ended = self._pinned = False
        self._drawn = 0
        self._room = 0 if account is not None or budget_bytes is None else budget_bytes
        self.place: Place | None = None
        self.kept_bytes = 0
        self.received_bytes = 0
        self.over_budget = False
        self.shed = False

    def __reduce__(self) -> tuple[Callable[..., "RequestBody"], tuple[bytes, int, bool]]:
        """A copy for an assembler has the bytes in memory, and no account."""
        return _copied, (self.joined(), self.received_bytes, self.over_budget)

    def append(self, data: bytes) -> None:
        """Append a chunk."""
        self.received_bytes += len(data)
        kept_bytes = self.kept_bytes + len(data)
        if kept_bytes > self._room and not self._has_room(kept_bytes):
            return
        self.kept_bytes = kept_bytes
        self._chunks.append(data)

    def ended(self) -> None:
        """Nothing comes any more: what was drawn beyond what is kept goes back, and it may move."""
        self._ended = True
        self._hold(self.kept_bytes)

    def drop(self) -> None:
        """Keep nothing, from now on neither."""
        self._budget_bytes = None
        self._room = self.kept_bytes = 0
        self._chunks.clear()
        self._packed = b""
        if self.place is not None:
            self.place.free()
            self.place = None
        self._hold(0)

    def pack(self) -> None:
        """Keep it compressed from now on, where that pays: some 50 µs for 20 KB."""
        small = PACK_FROM_BYTES <= self.kept_bytes <= PACK_TO_BYTES
        if self._may_move and self.place is None and small:
            self.packed(zstandard.compress(self.joined(), 1))

    def packed(self, compressed: bytes) -> bool:
        """Keep it as this zstd frame, unless that is no smaller or somebody reads it. Whether it is so."""
        if not self._may_move or len(compressed) >= self.kept_bytes:
            return False
        self._chunks.clear()
        self._packed = compressed
        self._hold(len(compressed))
        return True

    def shelved(self, place: Place) -> bool:
        """It lies there: nothing of it stays in memory, unless somebody reads it. Whether it is so now."""
        if not self._may_move:
            return False
        self.place = place
        self._chunks.clear()
        self._hold(0)
        return True

    def pin(self) -> None:
        """It is about to be read for the last time: it moves no more."""
        self._pinned = True

    def let_go(self) -> None:
        """It has been read for the last time."""
        self._chunks.clear()
        self._packed = b""

    def fetched(self, data: bytes) -> None:
        """It is in memory again, for a while that its account need not know of."""
        self._chunks = [data]

    def put_back(self) -> None:
        """The end of that while, unless it is read for the last time: its place still has it."""
        if self.place is not None and not self._pinned:
            self._chunks.clear()

    @property
    def in_memory(self) -> bool:
        """Whether :meth:`joined` can be asked: it does not lie on the shelf alone."""
        return self.place is None or bool(self._chunks)

    @property
    def _may_move(self) -> bool:
        return self._ended and not self._pinned and bool(self._chunks)

    def joined(self) -> bytes:
        """Everything kept, as one piece. Not of a request that lies on the shelf alone."""
        assert self.in_memory
        if self._packed:
            return zstandard.decompress(self._packed)
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def peek(self) -> object:
        """The body as decoded JSON, or None when it is not (yet) JSON."""
        try:
            return jsontext.decode(self.joined())
        except jsontext.JsonError:
            return None

    def _has_room(self, kept_bytes: int) -> bool:
        if self._budget_bytes is None or self.over_budget:
            return False
        if kept_bytes > self._budget_bytes:
            self.drop()
            self.over_budget = True
            return False
        if not self._draw(kept_bytes):
            self.drop()
            self.shed = True
            return False
        return True

    def _draw(self, kept_bytes: int) -> bool:
        """Room for so many bytes, and for a step more where there is: chunks are small."""
        if self._account is None:
            return True
        wanted = max(kept_bytes, self._drawn + STEP_BYTES)
        if not self._account.has_room(wanted - self._drawn):
            wanted = kept_bytes
        if not self._account.draw(wanted - self._drawn, ShedPart.REQUEST):
            return False
        self._drawn = wanted
        self._room = wanted if self._budget_bytes is None else min(wanted, self._budget_bytes)
        return True

    def _hold(self, held_bytes: int) -> None:
        if self._account is not None:
            self._account.take(held_bytes - self._drawn)
            self._drawn = held_bytes


def _copied(data: bytes, received_bytes: int, over_budget: bool) -> RequestBody:
    body = RequestBody(len(data))
    body.append(data)
    body.received_bytes = received_bytes
    body.over_budget = over_budget
    return body
