"""Feed a framer a body in chosen chunks, and collect what comes out."""

from collections.abc import Callable, Iterable, Iterator

from capture.framing.batch import Framer
from capture.turn import Damage

Events = list[tuple[bytes, bytes]]
MakeFramer = Callable[[], Framer]


def read(framer: Framer, chunks: Iterable[bytes]) -> tuple[Events, dict[Damage, int]]:
    """All events as (name, data) pairs, and the damage counted."""
    batches = [*map(framer.feed, chunks), framer.finish()]
    events = [pair for batch in batches for pair in zip(batch.names, batch.datas, strict=True)]
    return events, dict(framer.damage)


def bytewise(body: bytes) -> Iterator[bytes]:
    """The body in chunks of one byte."""
    return (body[i : i + 1] for i in range(len(body)))


def in_two(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut the body into two chunks."""
    return ((body[:cut], body[cut:]) for cut in range(len(body) + 1))


def assert_same_for_all_cuts(make: MakeFramer, body: bytes) -> tuple[Events, dict[Damage, int]]:
    """Whole, bytewise, cut in two anywhere, with empty chunks: the same. Returns what it is."""
    whole = read(make(), [body])
    assert read(make(), bytewise(body)) == whole
    assert read(make(), [b"", body, b""]) == whole
    for chunks in in_two(body):
        assert read(make(), chunks) == whole, chunks
    return whole


def datas(make: MakeFramer, body: bytes) -> list[bytes]:
    """The data of the events of a body that has no damage, the same for all cuts."""
    events, damage = assert_same_for_all_cuts(make, body)
    assert damage == {}
    return [data for _, data in events]
