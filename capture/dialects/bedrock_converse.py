"""AWS Bedrock Converse and ConverseStream; also what Nova speaks under InvokeModel.

A stream is ``messageStart``, the deltas of numbered content blocks, ``messageStop`` (the
end marker, with the stop reason) and ``metadata`` (the usage). Under InvokeModel the same
events come as objects with one member, the event's name. Exceptions are events of their
own. Shapes: the Bedrock runtime API reference.
"""

from collections.abc import Sequence
from typing import Final

from capture.dialects.bedrock_content import Content
from capture.dialects.bedrock_failures import error_document, is_failure, stream_error
from capture.dialects.bedrock_usage import bedrock_usage
from capture.dialects.document import answer_object
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.wire_usage import wire_usage
from capture.stop_words import result_of
from capture.turn import (
    Choice,
    Damage,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Turn,
    Usage,
    WireFacts,
)

_READER: Final = EventReader(object)
_METRICS: Final = "amazon-bedrock-"


class ConverseFold:
    """Folds the events of one message, or one Converse answer."""

    __slots__ = (
        "_content",
        "_damage",
        "_dialect",
        "_done",
        "_error",
        "_is_document",
        "_refused",
        "_role",
        "_stop_reason",
        "_usage",
    )

    def __init__(self, request: RequestFacts, dialect: Dialect = Dialect.BEDROCK_CONVERSE) -> None:
        del request  # Converse speaks one language, whatever the model
        self._dialect = dialect
        self._role = ""
        self._stop_reason = ""
        self._usage: JsonObject | None = None
        self._done = False
        self._is_document = False
        self._error: ProviderError | None = None
        self._refused: Refused | None = None
        self._damage = DamageLog()
        self._content = Content(self._damage)

    # -- stream ---------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of events."""
        for name, data, value in zip(names, datas, _READER.read(datas), strict=True):
            kind = name.decode("utf-8", "replace")
            payload = as_mapping(value)
            if is_failure(kind):
                self._fail(kind, payload, data)
            elif payload is None:
                self._damage.add(Damage.UNPARSEABLE_EVENT, f"{kind}: {data[:80]!r}")
            elif kind:
                self._read(kind, payload)
            else:
                self._read_members(payload)

    def _read_members(self, payload: JsonObject) -> None:
        """Fold an event that names itself by its member (Nova under InvokeModel)."""
        for kind, value in payload.items():
            if not kind.startswith(_METRICS):
                self._read(kind, as_mapping(value) or {})

    def _read(self, kind: str, payload: JsonObject) -> None:
        """Fold one event."""
        match kind:
            case "contentBlockDelta":
                self._content.delta(_index(payload), as_mapping(payload.get("delta")) or {})
            case "contentBlockStart":
                self._content.start(_index(payload), as_mapping(payload.get("start")) or {})
            case "contentBlockStop":
                self._content.stop(_index(payload))
            case "messageStart":
                self._role = as_text(payload.get("role"))
            case "messageStop":
                self._stop_reason = as_text(payload.get("stopReason")) or self._stop_reason
                self._done = True
            case "metadata":
                self._count(as_mapping(payload.get("usage")))
            case _:
                self._damage.add(Damage.UNKNOWN_EVENT, kind)

    def _fail(self, kind: str, payload: JsonObject | None, data: bytes) -> None:
        """An exception or error message ended the stream."""
        self._error = self._error or stream_error(kind, payload, data)

    def _count(self, usage: JsonObject | None) -> None:
        """Take a usage object: the last one counts."""
        self._usage = self._usage if usage is None else usage

    # -- one-shot -------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold a Converse answer (or an error object: an empty turn with its error)."""
        answer = answer_object(body)
        if isinstance(answer, Refused):
            self._refused = answer
            return
        self._is_document = True
        self._done = True
        message = as_mapping((as_mapping(answer.get("output")) or {}).get("message"))
        if message is None:
            self._error = error_document(answer)
        self._role = as_text((message or {}).get("role"))
        for given in as_list((message or {}).get("content")):
            self._content.whole(given)
        self._stop_reason = as_text(answer.get("stopReason"))
        self._count(as_mapping(answer.get("usage")))

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # messageStop alone says that the message is whole
        if self._refused is not None:
            return self._refused
        usage = bedrock_usage(self._usage)
        partial = not self._done or (self._error is not None and not self._is_document)
        return Turn(
            dialect=self._dialect,
            model="",
            response_id=None,
            role=self._role or "assistant",
            blocks=self._content.blocks(),
            choices=(self._choice(partial=partial),),
            usage=usage,
            partial=partial,
            wire=self._wire(usage),
            provider_error=self._error,
            diagnostics=self._damage.diagnostics() + self._content.unparseable_input(),
            unparsed=self._content.unparsed(),
        )

    def _choice(self, *, partial: bool) -> Choice:
        calls = self._content.tool_calls()
        word = self._stop_reason or None
        return Choice(
            text=self._content.text(),
            thinking=self._content.thinking(),
            tool_calls=calls,
            stop_reason=word,
            result=result_of(
                word, partial=partial, has_tool_calls=bool(calls), failed=self._error is not None
            ),
        )

    def _wire(self, usage: Usage) -> WireFacts:
        extra: dict[str, object] = {}
        stop_reason = self._stop_reason
        if self._error is not None:
            extra["error"] = {"type": self._error.type or "", "message": self._error.message}
            stop_reason = stop_reason or "error"
        if not self._done:
            extra["partial"] = True
        return WireFacts(done=self._done, stop_reason=stop_reason, usage=wire_usage(usage), extra=extra)


def _index(payload: JsonObject) -> int:
    return as_int(payload.get("contentBlockIndex")) or 0
