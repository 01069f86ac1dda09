"""What a fuzz target is: a check of one input, and inputs to start from."""

from collections.abc import Callable
from typing import NamedTuple


class Target(NamedTuple):
    """``check(choice, body)`` raises when something is wrong.

    ``choice`` is one byte to pick a variant with (bound, chunk size, coding); ``seeds`` are bodies.
    """

    check: Callable[[int, bytes], None]
    seeds: tuple[bytes, ...]

    def one_input(self, data: bytes) -> None:
        """Run one input of the fuzzer: the choice, then the body."""
        if data:
            self.check(data[0], data[1:])


def in_chunks(body: bytes, size: int) -> list[bytes]:
    """The body in chunks of ``size`` bytes."""
    return [body[start : start + size] for start in range(0, len(body), size)]
