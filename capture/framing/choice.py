"""Which framing a response body has: by its content type, else by its first bytes."""

from typing import Final

from capture.framing import Framing

_SSE_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_START: Final = max(map(len, _SSE_STARTS))
_BOM: Final = b"\xef\xbb\xbf"
_LOOK_BYTES: Final = 64
"""What has not told by then is a document: looking on would cost the square of its length."""


def declared(content_type: str, stream: Framing) -> Framing | None:
    """The framing that a content type promises a dialect whose streams are framed as
    ``stream``; None when the bytes must tell. ``behaviour.md`` §7: a type that says
    ndjson reaches a dialect of SSE streams as SSE.
    """
    kind = content_type.lower()
    if "vnd.amazon.eventstream" in kind:
        return Framing.EVENTSTREAM
    if "event-stream" in kind:
        return Framing.SSE
    if any(word in kind for word in ("ndjson", "jsonl", "json-lines", "stream+json")):
        return Framing.SSE if stream is Framing.SSE else Framing.NDJSON
    return None


def sniffed(head: bytes, stream: Framing, *, whole: bool) -> Framing | None:
    """The framing that the first bytes show; None when more of them are needed.

    No JSON text starts like an SSE line, and none with the zero that begins the length
    of an eventstream message, so a mislabelled stream is read all the same. ``whole``: no
    more bytes will come.
    """
    if stream is Framing.EVENTSTREAM and head.startswith(b"\0"):
        return Framing.EVENTSTREAM
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(_SSE_STARTS):
        return Framing.SSE
    if (
        not whole
        and len(head) <= _LOOK_BYTES
        and len(text) < _LONGEST_START
        and any(start.startswith(text) for start in _SSE_STARTS)
    ):
        return None
    if stream is Framing.JSON_ARRAY and text.startswith(b"["):
        return Framing.JSON_ARRAY
    return Framing.DOCUMENT
