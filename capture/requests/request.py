"""What a client asked, read from a request body of any dialect."""

from dataclasses import dataclass

from capture.turn import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMessage:
    """One message of the conversation so far. ``role`` is empty where none was sent."""

    role: str
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request in one shape for all dialects.

    ``model`` is empty where the body names none (Gemini and Bedrock name it in the
    path). ``stream`` is None where the body does not say. ``system`` is the system
    text outside ``messages``. ``tool_names`` has what the client offers, in order; a
    server tool without a name counts with its type. ``problem`` is empty, or why the
    body is no usable request: then nothing else is set.
    """

    model: str = ""
    stream: bool | None = None
    messages: tuple[RequestMessage, ...] = ()
    system: str = ""
    tool_names: tuple[str, ...] = ()
    problem: str = ""
