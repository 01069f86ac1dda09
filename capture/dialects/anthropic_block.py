"""A content block of an Anthropic message while its deltas arrive."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from capture.dialects.members import as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.turn import Block, JsonObject, ToolCall

TOOLS: Final = frozenset({"tool_use", "server_tool_use"})
# The contract keeps the members of these; of every other type only its name.
_MAPPED: Final = TOOLS | {"text", "thinking", "web_search_tool_result"}


class Delta(Struct):
    """A piece of a block, whatever its kind; of a message too (``stop_reason``)."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    content: str | None = None
    citation: object = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class OpenBlock:
    """A content block while its deltas arrive."""

    __slots__ = (
        "arguments",
        "citations",
        "closed",
        "content",
        "fragments",
        "start",
        "text",
        "thinking",
        "thinking_signature",
        "type",
    )

    def __init__(self, start: Mapping[str, object]) -> None:
        self.type = as_text(start.get("type"))
        self.start = start
        self.text = Pieces(as_text(start.get("text")))
        self.thinking = Pieces(as_text(start.get("thinking")))
        self.thinking_signature = Pieces(as_text(start.get("signature")))
        self.fragments = Pieces()
        self.content = Pieces()
        self.citations: list[object] = []
        self.closed = False
        self.arguments: tuple[JsonObject | None, str | None] | None = None

    def settle(self) -> None:
        """Call once a batch (``Pieces.settle``)."""
        for pieces in (self.text, self.thinking, self.thinking_signature, self.fragments, self.content):
            pieces.settle()

    def parsed(self) -> tuple[JsonObject | None, str | None]:
        """The arguments: of the fragments when any came, else those given at the start."""
        if self.arguments is not None:
            return self.arguments
        if not self.fragments:
            return as_mapping(self.start.get("input")) or {}, None
        return parse_arguments(self.fragments.text())

    def block(self) -> Block:
        """The block in the contract's members (an unclosed call's fragments are no input there)."""
        start = self.start
        if self.type in TOOLS:
            arguments, _ = self.parsed() if self.closed or not self.fragments else (None, None)
            return Block(
                type=self.type,
                tool_use_id=as_text(start.get("id")),
                tool_name=as_text(start.get("name")),
                tool_input=arguments if arguments is not None else as_mapping(start.get("input")),
            )
        if self.type == "web_search_tool_result":
            return Block(
                type=self.type, tool_result_id=as_text(start.get("tool_use_id")), content=start.get("content")
            )
        return Block(
            type=self.type,
            text=self.text.text(),
            thinking=self.thinking.text(),
            thinking_signature=self.thinking_signature.text(),
        )

    def whole(self) -> dict[str, object]:
        """The block as one object, as a one-shot answer would have sent it."""
        block = dict(self.start)
        if self.fragments or self.arguments is not None:
            arguments, raw = self.parsed()
            block["input"] = raw if arguments is None else arguments
        for name, pieces in (("text", self.text), ("thinking", self.thinking), ("content", self.content)):
            if pieces:
                block[name] = pieces.text()
        if self.citations:
            block["citations"] = self.citations
        return block

    def is_mapped(self) -> bool:
        """True when the contract's members hold all of it."""
        return self.type in _MAPPED and not self.citations

    def tool_call(self) -> ToolCall:
        """The block as a call that the client must run."""
        arguments, raw = self.parsed()
        return ToolCall(
            id=as_text(self.start.get("id")) or None,
            name=as_text(self.start.get("name")),
            arguments=arguments,
            raw_arguments=raw,
        )

    def append(self, delta: Delta) -> bool:
        """Append a delta. False: nobody knows this kind."""
        match delta.type:
            case "text_delta":
                self.text.append(delta.text or "")
            case "input_json_delta":
                self.fragments.append(delta.partial_json or "")
            case "thinking_delta":
                self.thinking.append(delta.thinking or "")
            case "signature_delta":
                self.thinking_signature.append(delta.signature or "")
            case "citations_delta":
                self.citations.append(delta.citation)
            case "compaction_delta":
                self.content.append(delta.content or "")
            case _:
                return False
        return True

    def argument_failure(self) -> dict[str, str] | None:
        """The contract's entry of ``tool_input_parse_errors``, when the arguments are no object."""
        if not self.closed or self.type not in TOOLS or self.arguments is None:
            return None
        raw = self.arguments[1]
        if raw is None:
            return None
        return {"tool_use_id": as_text(self.start.get("id")), "raw": raw, "error": "not a JSON object"}
