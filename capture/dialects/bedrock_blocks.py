"""The content blocks of a Converse message while they arrive.

Members: ``ContentBlock``, ``ContentBlockStart`` and ``ContentBlockDelta`` of the Bedrock
runtime API. A block is kept in parts that only grow; what it is in the end, a whole
``ContentBlock`` gives through the same door as a stream of its pieces, so both make the
same turn.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Final

from capture.dialects.json_text import compact
from capture.dialects.members import as_list, as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.turn import Block, JsonObject, ToolCall

Arguments = tuple[JsonObject | None, str | None]

_SERVER_TOOL: Final = "server_tool_use"


class TextBlock:
    """Generated text. ``cited``: it says where it has it from."""

    __slots__ = ("cited", "text")
    kind: Final = "text"

    def __init__(self) -> None:
        self.text = Pieces()
        self.cited = False

    def add(self, text: str) -> None:
        """Append the next piece."""
        if text:
            self.text.append(text)
            self.text.settle()

    def block(self) -> Block | None:
        """The block; none when no text came."""
        return Block(type="text", text=self.text.text()) if self.text else None

    def unparsed(self) -> None:
        """Nothing: a text has its place."""


class ReasoningBlock:
    """Reasoning: text with its signature, or bytes that only the provider can read."""

    __slots__ = ("_redacted", "_signature", "text")
    kind: Final = "thinking"

    def __init__(self) -> None:
        self.text = Pieces()
        self._signature = Pieces()
        self._redacted: list[str] = []

    def add(self, content: JsonObject) -> None:
        """Take a ``reasoningContent`` delta or a ``ReasoningTextBlock``."""
        self.text.append(as_text(content.get("text")))
        self.text.settle()
        self._signature.append(as_text(content.get("signature")))
        redacted = as_text(content.get("redactedContent"))
        if redacted:
            self._redacted.append(redacted)

    def block(self) -> Block | None:
        """The block. Redacted bytes have no member there: see :meth:`unparsed`."""
        text, signature = self.text.text(), self._signature.text()
        if text or signature:
            return Block(type="thinking", thinking=text, thinking_signature=signature)
        return Block(type="redacted_thinking") if self._redacted else None

    def unparsed(self) -> JsonObject | None:
        """The redacted bytes, as they were sent."""
        if not self._redacted:
            return None
        return {"reasoningContent": {"redactedContent": join_base64(self._redacted)}}


class ToolUseBlock:
    """A tool call: of the client's tools, or of one that Bedrock runs itself."""

    __slots__ = ("_arguments", "_fragments", "_given", "_id", "_type", "name")
    kind: Final = "toolUse"

    def __init__(self) -> None:
        self._id = ""
        self.name = ""
        self._type = ""
        self._given: object = None
        self._fragments = Pieces()
        self._arguments: Arguments | None = None

    def add(self, tool_use: JsonObject) -> None:
        """Take ``toolUse`` of a start, a delta or a whole block. A name that came before stays."""
        self._id = self._id or as_text(tool_use.get("toolUseId"))
        self.name = self.name or as_text(tool_use.get("name"))
        self._type = self._type or as_text(tool_use.get("type"))
        given = tool_use.get("input")
        self._arguments = None
        if isinstance(given, str):
            self._fragments.append(given)
            self._fragments.settle()
        elif given is not None:
            self._given = given

    def close(self) -> None:
        """No more fragments are expected: parse them once."""
        self._arguments = self.arguments()

    @property
    def is_damaged(self) -> bool:
        """Whether the input is whole, and yet no JSON object."""
        return self._arguments is not None and self._arguments[0] is None

    def arguments(self) -> Arguments:
        """The input as ``(object, None)``, or ``(None, text)`` when it is no object."""
        if self._arguments is not None:
            return self._arguments
        given = as_mapping(self._given)
        if self._fragments or self._given is None:
            return parse_arguments(self._fragments.text())
        return (given, None) if given is not None else (None, compact(self._given))

    def tool_call(self) -> ToolCall:
        """The call in the neutral view."""
        arguments, raw = self.arguments()
        named = self._id if self._id != "null" else ""
        return ToolCall(id=named or None, name=self.name, arguments=arguments, raw_arguments=raw)

    def block(self) -> Block:
        """The call as a block; input that is no object is its ``content``."""
        arguments, raw = self.arguments()
        return Block(
            type=_SERVER_TOOL if self._type == _SERVER_TOOL else "tool_use",
            tool_use_id=self._id,
            tool_name=self.name,
            tool_input=arguments,
            content=raw,
        )

    def unparsed(self) -> None:
        """Nothing: a call has its place."""


class ToolResultBlock:
    """What a tool that Bedrock ran gave back."""

    __slots__ = ("_items", "_start")
    kind: Final = "toolResult"

    def __init__(self) -> None:
        self._start: dict[str, object] = {}
        self._items: list[Pieces | object] = []

    def add(self, given: object) -> None:
        """Take ``toolResult``: an object in a start or a whole block, a list of contents in a delta."""
        result = as_mapping(given)
        if result is not None:
            self._start.update({name: value for name, value in result.items() if name != "content"})
            given = result.get("content")
        for item in as_list(given):
            text = (as_mapping(item) or {}).get("text")
            if not isinstance(text, str):
                self._items.append(item)
                continue
            last = self._items[-1] if self._items else None
            if not isinstance(last, Pieces):
                last = Pieces()
                self._items.append(last)
            last.append(text)
            last.settle()

    def block(self) -> Block:
        """The result as a block, with its content whole."""
        return Block(
            type="tool_result",
            tool_result_id=as_text(self._start.get("toolUseId")),
            is_error=self._start.get("status") == "error",
            content=self._content(),
        )

    def unparsed(self) -> JsonObject:
        """The whole block: the neutral view has no member for it."""
        return {"toolResult": {**self._start, "content": self._content()}}

    def _content(self) -> list[object]:
        return [{"text": item.text()} if isinstance(item, Pieces) else item for item in self._items]


class ImageBlock:
    """A generated image."""

    __slots__ = ("_bytes", "_image")
    kind: Final = "image"

    def __init__(self) -> None:
        self._image: dict[str, object] = {}
        self._bytes: list[str] = []

    def add(self, image: JsonObject) -> None:
        """Take ``image`` of a block start, a delta or a whole block."""
        source = as_mapping(image.get("source")) or {}
        given = as_text(source.get("bytes"))
        if given:
            self._bytes.append(given)
            image = {name: value for name, value in image.items() if name != "source"}
        self._image.update(image)

    def block(self) -> Block:
        """The image as a block."""
        location = as_mapping((as_mapping(self._image.get("source")) or {}).get("s3Location")) or {}
        name = as_text(self._image.get("format"))
        return Block(
            type="image",
            image_base64=join_base64(self._bytes),
            image_url=as_text(location.get("uri")),
            media_type=f"image/{name}" if name else "",
        )

    def unparsed(self) -> JsonObject:
        """The whole block: the neutral view has no member for it."""
        if not self._bytes:
            return {"image": self._image}
        return {"image": {**self._image, "source": {"bytes": join_base64(self._bytes)}}}


class OtherBlock:
    """A block of a kind that this module has no better place for."""

    __slots__ = ("given",)
    kind: Final = "other"

    def __init__(self, given: JsonObject) -> None:
        self.given = given

    def block(self) -> Block:
        """The block, kept whole."""
        return Block(type="unparsed", content=self.given)

    def unparsed(self) -> JsonObject:
        """The whole block."""
        return self.given


def blocks_of(blocks: Iterable["AnyBlock"]) -> Iterator[Block]:
    """The blocks of the turn. Neighbouring texts are one, unless their citations tell them
    apart: Nova numbers every piece of a streamed text as a block of its own.
    """
    run: list[str] = []
    for block in blocks:
        if isinstance(block, TextBlock) and not block.cited:
            run.append(block.text.text())
            continue
        made = block.block()
        if made is not None:
            yield from _joined(run)
            run = []
            yield made
    yield from _joined(run)


def _joined(run: list[str]) -> Iterator[Block]:
    text = "".join(run)
    if text:
        yield Block(type="text", text=text)


AnyBlock = TextBlock | ReasoningBlock | ToolUseBlock | ToolResultBlock | ImageBlock | OtherBlock


def join_base64(pieces: list[str]) -> str:
    """The bytes of several base64 texts as one. Text that is no base64 is joined as it is."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
    except (binascii.Error, ValueError):
        return "".join(pieces)
