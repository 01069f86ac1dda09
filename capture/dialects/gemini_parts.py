"""The parts of a Gemini answer (``Content.parts``) while they arrive.

A stream cuts a text anywhere, so neighbours of one kind are one part; only a second
thought signature keeps them apart, for each signs what stands before it. Part members:
``Part`` of ``google.ai.generativelanguage.v1beta`` and ``google.cloud.aiplatform.v1``.
"""

from collections.abc import Sequence
from typing import Final

from capture.dialects.fold import DamageLog
from capture.dialects.gemini_arguments import StreamedArguments
from capture.dialects.json_text import compact
from capture.dialects.members import as_list, as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.turn import Block, Damage, JsonObject, ToolCall

_CALL: Final = ("functionCall", "function_call")
_CODE: Final = ("executableCode", "executable_code")
_BLOB: Final = ("inlineData", "inline_data")
_FILE: Final = ("fileData", "file_data")
_OTHER: Final = (
    "functionResponse",
    "function_response",
    "codeExecutionResult",
    "code_execution_result",
    "toolCall",
    "tool_call",
    "toolResponse",
    "tool_response",
)
_BESIDE: Final = frozenset(
    {
        "thought",
        "thoughtSignature",
        "thought_signature",
        "videoMetadata",
        "video_metadata",
        "partMetadata",
        "part_metadata",
        "mediaResolution",
        "media_resolution",
        "text",
    }
)


def either(holder: JsonObject, camel: str, snake: str) -> object:
    """A member under the name of proto JSON, else under the name of the proto file (which
    servers that print with ``preserving_proto_field_name`` send).
    """
    value = holder.get(camel)
    return holder.get(snake) if value is None else value


class _Call:
    """A function call. Vertex may stream its arguments over several parts."""

    __slots__ = ("_given", "_id", "_name", "_open", "_streamed")

    def __init__(self, call: JsonObject) -> None:
        self._id = as_text(call.get("id"))
        self._name = as_text(call.get("name"))
        self._given: object = call.get("args")
        self._streamed: StreamedArguments | None = None
        self._open = False
        self._read(call)

    def continues_with(self, call: JsonObject) -> bool:
        """Whether ``call`` is the next fragment of this one; it is read if so."""
        if not self._open or as_text(call.get("name")):
            return False
        self._read(call)
        return True

    def _read(self, call: JsonObject) -> None:
        self._open = either(call, "willContinue", "will_continue") is True
        items = as_list(either(call, "partialArgs", "partial_args"))
        if items:
            self._streamed = self._streamed or StreamedArguments()
            self._streamed.add_all(items)
        if self._given is None:
            self._given = call.get("args")

    def tool_call(self, *, whole: bool) -> ToolCall:
        arguments, raw = self._arguments(whole=whole)
        named = self._id if self._id != "null" else ""
        return ToolCall(id=named or None, name=self._name, arguments=arguments, raw_arguments=raw)

    def _arguments(self, *, whole: bool) -> tuple[JsonObject | None, str | None]:
        given = as_mapping(self._given)
        if self._streamed is not None and not given:
            arguments, raw = self._streamed.value()
            cut = self._open and not whole
            return (None, compact(arguments)) if cut and arguments is not None else (arguments, raw)
        if given is not None or self._given is None:
            return given or {}, None
        return parse_arguments(self._given if isinstance(self._given, str) else compact(self._given))

    def block(self, signature: str, *, whole: bool) -> Block:
        call = self.tool_call(whole=whole)
        return Block(
            type="tool_use",
            tool_use_id=call.id or "",
            tool_name=call.name,
            tool_input=call.arguments,
            thinking_signature=signature,
            content=call.raw_arguments,
        )


class _Part:
    """One part: ``text`` and ``thinking`` grow, a ``call`` may, anything else is ``given`` whole."""

    __slots__ = ("call", "given", "kind", "signature", "text")

    def __init__(self, kind: str, *, given: JsonObject | None = None, call: _Call | None = None) -> None:
        self.kind = kind
        self.text = Pieces()
        self.signature = ""
        self.given = given
        self.call = call

    def block(self, *, whole: bool) -> Block:
        if self.call is not None:
            return self.call.block(self.signature, whole=whole)
        if self.given is not None:
            return _other_block(self.given)
        if self.kind == "thinking":
            return Block(type="thinking", thinking=self.text.text(), thinking_signature=self.signature)
        return Block(type="text", text=self.text.text(), thinking_signature=self.signature)


class Parts:
    """The parts of one candidate, in order."""

    __slots__ = ("_damage", "_parts")

    def __init__(self, damage: DamageLog) -> None:
        self._parts: list[_Part] = []
        self._damage = damage

    def add(self, given: object) -> None:
        """Take the next part."""
        part = as_mapping(given)
        if part is None:
            self._damage.add(Damage.UNKNOWN_CONTENT, "a part that is no object")
            return
        signature = as_text(either(part, "thoughtSignature", "thought_signature"))
        text = part.get("text")
        if isinstance(text, str):
            self._add_text("thinking" if part.get("thought") is True else "text", text, signature)
            return
        call = as_mapping(either(part, *_CALL))
        if call is not None:
            self._add_call(call)
        elif any(name not in _BESIDE for name in part):
            self._add_other(part)
        self._sign(signature)

    def _add_text(self, kind: str, text: str, signature: str) -> None:
        last = self._parts[-1] if self._parts else None
        if not text and last is not None and not last.signature:
            last.signature = signature
            return
        if last is None or last.kind != kind or (signature and last.signature not in ("", signature)):
            if not text and not signature:
                return
            last = _Part(kind)
            self._parts.append(last)
        if text:
            last.text.append(text)
            last.text.settle()
        last.signature = signature or last.signature

    def _add_call(self, call: JsonObject) -> None:
        last = self._parts[-1] if self._parts else None
        if last is None or last.call is None or not last.call.continues_with(call):
            self._parts.append(_Part("call", call=_Call(call)))

    def _add_other(self, part: JsonObject) -> None:
        known = (*_CODE, *_BLOB, *_FILE, *_OTHER)
        if not any(name in part for name in known):
            self._damage.add(Damage.UNKNOWN_CONTENT, ",".join(part))
        self._parts.append(_Part("other", given=part))

    def _sign(self, signature: str) -> None:
        if signature and self._parts:
            self._parts[-1].signature = signature

    def text(self, kind: str) -> str:
        """All text of ``kind`` (``text`` or ``thinking``), joined."""
        return "".join(part.text.text() for part in self._parts if part.kind == kind)

    def tool_calls(self, *, whole: bool) -> tuple[ToolCall, ...]:
        """The calls. ``whole``: the end came, so none is still open."""
        return tuple(part.call.tool_call(whole=whole) for part in self._parts if part.call is not None)

    def blocks(self, *, whole: bool) -> tuple[Block, ...]:
        """The parts as the contract's blocks."""
        return tuple(part.block(whole=whole) for part in self._parts)

    def unparsed(self) -> Sequence[JsonObject]:
        """The parts that neither text nor thinking nor a call has a place for."""
        return [part.given for part in self._parts if part.given is not None]


def _other_block(part: JsonObject) -> Block:
    code = as_mapping(either(part, *_CODE))
    if code is not None:
        return Block(
            type="server_tool_use",
            tool_use_id=as_text(code.get("id")),
            tool_name="code_execution",
            tool_input=code,
        )
    blob = as_mapping(either(part, *_BLOB)) or {}
    file = as_mapping(either(part, *_FILE)) or {}
    media_type = as_text(either(blob or file, "mimeType", "mime_type"))
    if media_type.startswith("image/"):
        return Block(
            type="image",
            image_base64=as_text(blob.get("data")),
            image_url=as_text(either(file, "fileUri", "file_uri")),
            media_type=media_type,
        )
    return Block(type="unparsed", content=part)
