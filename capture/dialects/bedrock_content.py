"""The content of a Converse message, from whole blocks or from the events of a stream.

Both take the same door, block by block, so they make the same turn; a message that comes
back in the next request is read here too, and hashes as it did.
"""

from typing import Final, TypeVar

from capture.dialects.bedrock_blocks import (
    AnyBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    blocks_of,
)
from capture.dialects.fold import DamageLog
from capture.dialects.members import as_list, as_mapping, as_text
from capture.turn import Block, Damage, Diagnostic, JsonObject, ToolCall

_KINDS: Final = (
    TextBlock.kind,
    ReasoningBlock.kind,
    ToolUseBlock.kind,
    ToolResultBlock.kind,
    ImageBlock.kind,
)

BlockT = TypeVar("BlockT", TextBlock, ReasoningBlock, ToolUseBlock, ToolResultBlock, ImageBlock)


class Content:
    """The blocks of one message, in the order in which they were opened."""

    __slots__ = ("_blocks", "_closed", "_damage", "_open")

    def __init__(self, damage: DamageLog) -> None:
        self._damage = damage
        self._blocks: list[AnyBlock] = []
        self._open: dict[tuple[int, str], AnyBlock] = {}
        self._closed: set[int] = set()

    def whole(self, given: object) -> None:
        """Take the next whole block."""
        index = len(self._blocks)
        block = as_mapping(given)
        if block is None:
            self._damage.add(Damage.UNKNOWN_CONTENT, "a block that is no object")
            return
        text = block.get("text")
        cited = as_mapping(block.get("citationsContent"))
        if isinstance(text, str):
            self._at(index, TextBlock).add(text)
        elif cited is not None:
            self._at(index, TextBlock).cited = True
            for item in as_list(cited.get("content")):
                self._at(index, TextBlock).add(as_text((as_mapping(item) or {}).get("text")))
        else:
            self._add(index, block)
        self.stop(index)

    def start(self, index: int, start: JsonObject) -> None:
        """A block of the stream begins."""
        if index in self._closed:  # another block under a number that was used before
            self._closed.discard(index)
            for kind in _KINDS:
                self._open.pop((index, kind), None)
        self._add(index, start)

    def delta(self, index: int, delta: JsonObject) -> None:
        """A block of the stream goes on."""
        text = delta.get("text")
        if isinstance(text, str):
            self._at(index, TextBlock).add(text)
        elif "citation" in delta:  # what is cited is no part of the turn
            self._at(index, TextBlock).cited = True
        else:
            self._add(index, delta)

    def stop(self, index: int) -> None:
        """A block of the stream is complete."""
        self._closed.add(index)
        block = self._open.get((index, ToolUseBlock.kind))
        if isinstance(block, ToolUseBlock):
            block.close()

    def _add(self, index: int, given: JsonObject) -> None:
        """Take the members that a start, a delta and a whole block have in common."""
        tool_use = as_mapping(given.get("toolUse"))
        tool_result = given.get("toolResult")
        reasoning = as_mapping(given.get("reasoningContent"))
        image = as_mapping(given.get("image"))
        if tool_use is not None:
            self._at(index, ToolUseBlock).add(tool_use)
        elif tool_result is not None:
            self._at(index, ToolResultBlock).add(tool_result)
        elif reasoning is not None:
            self._at(index, ReasoningBlock).add(as_mapping(reasoning.get("reasoningText")) or reasoning)
        elif image is not None:
            self._at(index, ImageBlock).add(image)
        elif given:
            self._damage.add(Damage.UNKNOWN_CONTENT, ",".join(given))
            self._blocks.append(OtherBlock(given))

    def _at(self, index: int, kind: type[BlockT]) -> BlockT:
        """The open block of this kind at ``index``.

        Of this kind: some models number the reasoning and the text after it alike.
        """
        block = self._open.get((index, kind.kind))
        if isinstance(block, kind):
            return block
        opened = kind()
        self._open[index, kind.kind] = opened
        self._blocks.append(opened)
        return opened

    # -- what came of it ------------------------------------------------------

    def blocks(self) -> tuple[Block, ...]:
        """The contract's blocks."""
        return tuple(blocks_of(self._blocks))

    def text(self) -> str:
        """The answer's text, joined."""
        return "".join(block.text.text() for block in self._blocks if isinstance(block, TextBlock))

    def thinking(self) -> str:
        """The reasoning in plain words, joined."""
        return "".join(block.text.text() for block in self._blocks if isinstance(block, ReasoningBlock))

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls."""
        return tuple(block.tool_call() for block in self._blocks if isinstance(block, ToolUseBlock))

    def unparsed(self) -> tuple[JsonObject, ...]:
        """What the neutral view has no member for."""
        return tuple(kept for block in self._blocks if (kept := block.unparsed()) is not None)

    def unparseable_input(self) -> tuple[Diagnostic, ...]:
        """The calls whose whole input is no JSON object, counted."""
        names = [block.name for block in self._blocks if isinstance(block, ToolUseBlock) and block.is_damaged]
        return (Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(names), names[0][:200]),) if names else ()
