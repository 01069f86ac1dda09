"""Content codings, undone as the bytes arrive (``behaviour.md`` §3).

    decoder("gzip, zstd").feed(chunk) …  .finish()  .truncated

``gzip``, ``x-gzip``, ``deflate``, ``br`` and ``zstd``, stacked in any order; the
reference knows neither ``br`` nor ``deflate``, but providers send both. Whatever the
chunking, the text is the same. A body that is both corrupt and over the limit may be
refused for either reason.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final

from capture.coding.errors import CodingError, CodingFailure
from capture.coding.layer import CODINGS, Layer

__all__ = ["MAX_DECODED_BYTES", "CodingError", "CodingFailure", "ContentDecoder", "decode", "decoder"]

MAX_DECODED_BYTES: Final = 50_331_648
"""Most output of one layer, and the largest zstd window (``behaviour.md`` §3)."""

MAX_LAYERS: Final = 5
"""Nobody stacks more; curl and urllib3 draw the line here too."""


class ContentDecoder:
    """Undoes the codings of one body.

    ``truncated``, after ``finish``: the body did not end where it should have (cut short,
    or followed by foreign bytes); what could be read of it was given. A response is used
    all the same, a request is refused.

    ``feed`` and ``finish`` raise :class:`CodingError`, from then on the same one always.
    """

    __slots__ = ("_failure", "_layers", "truncated")

    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._layers: list[Layer] = []
        self._failure: CodingError | None = None
        self.truncated = False
        try:
            self._layers = _layers(encoding, max_bytes)
        except CodingError as error:
            self._failure = error

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the text they completed."""
        if not self._layers and self._failure is None:
            return data
        text = BytesIO()  # gives its own buffer away: joining would hold everything twice
        text.writelines(self.pieces(data))
        return text.getvalue()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; give the text they completed piece by piece, each when it is asked for. Pieces
        of coded bytes have some MiB at most, whatever the bytes say. Ask for all before the next bytes.
        """
        self._check()
        pieces: Iterable[bytes] = (data,)
        for layer in self._layers:
            pieces = layer.undo(pieces)
        try:
            yield from pieces
        except CodingError as error:
            self._failure = error
            raise

    def finish(self) -> bytes:
        """The body has ended. Nothing is ever held back for the end, so no text is left."""
        self._check()
        try:
            for layer in self._layers:
                layer.finish()
        except CodingError as error:
            self._failure = error
            raise
        self.truncated = any(layer.truncated for layer in self._layers)
        return b""

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


def decoder(encoding: str, max_bytes: int = MAX_DECODED_BYTES) -> ContentDecoder:
    """A decoder for a ``content-encoding`` value (empty when the header is missing).

    Never raises: a coding that cannot be undone is reported by the first ``feed`` or
    ``finish``. ``max_bytes`` bounds the output of each layer; without a coding there is
    no limit.
    """
    return ContentDecoder(encoding, max_bytes)


def decode(encoding: str, body: bytes, max_bytes: int = MAX_DECODED_BYTES) -> tuple[bytes, bool]:
    """A whole body as ``(text, truncated)``. Raises :class:`CodingError`."""
    content = decoder(encoding, max_bytes)
    text = content.feed(body) + content.finish()
    return text, content.truncated


def _layers(encoding: str, max_bytes: int) -> list[Layer]:
    """The layers in the order in which they come off: the last one named is outermost."""
    value = encoding.strip().lower()
    names = [name for token in value.split(",") if (name := token.strip()) not in ("", "identity")]
    for name in names:
        if name not in CODINGS:
            raise CodingError(CodingFailure.UNSUPPORTED, f"{name[:100]!r} in {value[:200]!r}")
    if len(names) > MAX_LAYERS:
        raise CodingError(CodingFailure.UNSUPPORTED, f"{len(names)} layers")
    # Each zstd layer keeps a window: stacked ones share the bound, so that memory stays bounded.
    window = MAX_DECODED_BYTES // max(1, names.count("zstd"))
    return [Layer(name, max_bytes, window) for name in reversed(names)]
