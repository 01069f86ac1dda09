"""How Bedrock says that it failed once the answer's status had been sent.

In an event stream, by a message of type ``exception`` (one of the API's exception
shapes: its name, and a JSON payload with a ``message``) or ``error``. In a whole body, by
a ``message`` where the answer should be.
"""

from typing import Final

from capture.dialects.members import as_text
from capture.turn import JsonObject, ProviderError

_PREFIXES: Final = ("exception:", "error:")
"""How the eventstream framing names the two."""


def is_failure(kind: str) -> bool:
    """Whether the event of this name ends the stream as a failure."""
    return kind.startswith(_PREFIXES)


def stream_error(kind: str, payload: JsonObject | None, data: bytes) -> ProviderError:
    """The error of such an event: its exception's name, and its message, else its payload as text."""
    members = payload or {}
    message = as_text(members.get("message")) or as_text(members.get("Message"))
    return ProviderError(
        status=200,
        type=kind.partition(":")[2] or None,
        message=message or data.decode("utf-8", "replace"),
        where="stream",
    )


def error_document(answer: JsonObject) -> ProviderError | None:
    """The error that a body is, or None when it does not look like one."""
    message = as_text(answer.get("message")) or as_text(answer.get("Message"))
    if not message:
        return None
    name = as_text(answer.get("__type")).rpartition("#")[2]
    return ProviderError(status=200, type=name or None, message=message, where="http")
