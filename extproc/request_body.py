"""The bytes of a request body, appended until its budget is reached."""

from capture import jsontext


class RequestBody:
    """Collects a request body.

    Over ``budget_bytes`` the chunk that would pass it and all later ones are dropped
    and ``over_budget`` is set (``behaviour.md`` §4). A budget of None keeps nothing:
    there is no turn in the exchange.
    """

    __slots__ = ("_budget_bytes", "_chunks", "kept_bytes", "over_budget", "received_bytes")

    def __init__(self, budget_bytes: int | None) -> None:
        self._budget_bytes = budget_bytes
        self._chunks: list[bytes] = []
        self.kept_bytes = 0
        self.received_bytes = 0
        self.over_budget = False

    def append(self, data: bytes) -> None:
        """Append a chunk."""
        self.received_bytes += len(data)
        if self._budget_bytes is None or self.over_budget:
            return
        if self.kept_bytes + len(data) > self._budget_bytes:
            self.over_budget = True
            self._chunks.clear()
            self.kept_bytes = 0
            return
        self.kept_bytes += len(data)
        self._chunks.append(data)

    def joined(self) -> bytes:
        """Everything kept, as one piece."""
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else b""

    def peek(self) -> object:
        """The body as decoded JSON, or None when it is not (yet) JSON."""
        try:
            return jsontext.decode(self.joined())
        except jsontext.JsonError:
            return None
