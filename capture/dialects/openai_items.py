"""Output items of the Responses API: what each says in a turn, and items still arriving.

Two readings of one item. The contract's (``behaviour.md`` §7, blocks) is strict: an
item of another shape than the reference knows is ``unparsed``. The neutral view's
(CANONICAL.md) takes what is there. An item that has not finished is assembled to the
shape of a finished one, so that both readings work on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from capture.dialects.members import as_list, as_mapping, as_text
from capture.dialects.openai_answer import call_id
from capture.dialects.pieces import Pieces, parse_arguments
from capture.turn import Block, JsonObject, ToolCall

SERVER_ITEMS: Final = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "function_call_output",
        "custom_tool_call_output",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""Item kinds that are known and belong to the server's side: kept whole in their block."""

_TURN_ITEMS: Final = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Where the text of a delta goes: a list of parts in the item, or a member of it.
    There is one object for each place, compared by identity.
    """

    item: str
    """The kind of item, should its beginning have been missed."""
    member: str
    index: str
    """The event's member that numbers the part; empty when the text is the member itself."""
    part: str = ""
    text: str = "text"


TEXT: Final = Slot("message", "content", "content_index", "output_text")
REFUSAL: Final = Slot("message", "content", "content_index", "refusal", "refusal")
SUMMARY: Final = Slot("reasoning", "summary", "summary_index", "summary_text")
REASONING: Final = Slot("reasoning", "content", "content_index", "reasoning_text")
ARGUMENTS: Final = Slot("function_call", "arguments", "")
INPUT: Final = Slot("custom_tool_call", "input", "")


class OpenItem:
    """An output item while its deltas arrive."""

    __slots__ = ("_finished", "_pieces", "_start", "output_index")

    def __init__(self, output_index: int | None, start: JsonObject) -> None:
        self.output_index = output_index
        self._start = start
        self._pieces: dict[tuple[Slot, int], Pieces] = {}
        self._finished: object = None

    @property
    def is_finished(self) -> bool:
        """Whether the whole item came."""
        return self._finished is not None

    def restart(self, start: JsonObject) -> None:
        """The item's beginning came after its first deltas."""
        self._start = start

    def pieces(self, slot: Slot, index: int) -> Pieces:
        """The text under construction at a place of the item."""
        pieces = self._pieces.get((slot, index))
        if pieces is None:
            pieces = self._pieces[slot, index] = Pieces()
        return pieces

    def replace(self, slot: Slot, index: int, text: str) -> None:
        """The whole text of a place came."""
        self._pieces[slot, index] = Pieces(text)

    def finish(self, item: object) -> None:
        """The whole item came: what its deltas said is said again there."""
        self._finished = item
        self._pieces.clear()

    def item(self) -> object:
        """The item as far as it is known, in the shape of a finished one."""
        if self._finished is not None:
            return self._finished
        item: dict[str, object] = dict(self._start)
        parts: dict[str, list[tuple[int, object]]] = {}
        for (slot, index), pieces in self._pieces.items():
            item.setdefault("type", slot.item)
            if slot.index:
                part = {"type": slot.part, slot.text: pieces.text()}
                parts.setdefault(slot.member, []).append((index, part))
            else:
                item[slot.member] = pieces.text()
        for member, indexed in parts.items():
            item[member] = [part for _, part in sorted(indexed, key=lambda pair: pair[0])]
        return item


# -- the neutral view -----------------------------------------------------------------


def texts(items: list[object]) -> str:
    """The answer's text: the text parts of its messages, nothing between them."""
    return "".join(_texts(items))


def _texts(items: list[object]) -> Iterator[str]:
    for item in _of_kind(items, "message"):
        content = item.get("content")
        if isinstance(content, str):
            yield content
        for part in _parts(content):
            if as_text(part.get("type")) in {"output_text", "text"}:
                yield as_text(part.get("text"))


def refusals(items: list[object]) -> str:
    """The refusal's words, when the answer has refusal parts."""
    return "".join(
        as_text(part.get("refusal"))
        for item in _of_kind(items, "message")
        for part in _parts(item.get("content"))
        if part.get("type") == "refusal"
    )


def thinking(items: list[object]) -> str:
    """The reasoning items' content, else their summaries; encrypted ones say nothing."""
    return "".join(
        _plain(item.get("content")) or _plain(item.get("summary")) for item in _of_kind(items, "reasoning")
    )


def tool_calls(items: list[object]) -> tuple[ToolCall, ...]:
    """The calls that the client must run; a custom tool's input is text, not JSON."""
    return tuple(call for item in items if (call := _tool_call(as_mapping(item) or {})) is not None)


def unreadable_calls(items: list[object]) -> list[str]:
    """The names of function calls whose arguments are no JSON object."""
    return [call.name for call in tool_calls([*_of_kind(items, "function_call")]) if call.arguments is None]


def unknown_items(items: list[object]) -> tuple[object, ...]:
    """Items of kinds that nobody has described."""
    known = SERVER_ITEMS | _TURN_ITEMS
    return tuple(item for item in items if as_text((as_mapping(item) or {}).get("type")) not in known)


def _tool_call(item: JsonObject) -> ToolCall | None:
    arguments: JsonObject | None
    raw: str | None
    if item.get("type") == "function_call":
        given = as_mapping(item.get("arguments"))
        text = as_text(item.get("arguments"))
        arguments, raw = parse_arguments(text) if given is None else (given, None)
    elif item.get("type") == "custom_tool_call":
        arguments, raw = None, as_text(item.get("input"))
    else:
        return None
    return ToolCall(
        id=call_id(item.get("call_id")),
        name=as_text(item.get("name")),
        arguments=arguments,
        raw_arguments=raw,
    )


def _of_kind(items: list[object], kind: str) -> Iterator[JsonObject]:
    for item in items:
        given = as_mapping(item)
        if given is not None and given.get("type") == kind:
            yield given


def _plain(parts: object) -> str:
    if isinstance(parts, str):
        return parts
    return "".join(as_text(part.get("text")) for part in _parts(parts))


def _parts(content: object) -> Iterator[JsonObject]:
    for part in as_list(content):
        given = as_mapping(part)
        if given is not None:
            yield given


# -- the contract's blocks ------------------------------------------------------------


def blocks(items: list[object]) -> tuple[Block, ...]:
    """The contract's blocks of the items, in their order."""
    return tuple(block for item in items for block in _blocks(item))


def _blocks(item: object) -> list[Block]:
    given = as_mapping(item)
    if given is None:
        return [Block(type="unparsed", content=item)]
    kind = given.get("type")
    if not _is(str, kind):
        return [Block(type="unparsed", content=item)]
    read = _READERS.get(as_text(kind))
    if read is None:
        return [Block(type=as_text(kind) or "unparsed", content=item)]
    found = read(given)
    return [Block(type="unparsed", content=item)] if found is None else found


def _message(item: JsonObject) -> list[Block] | None:
    parts = _typed_parts(item.get("content"), "text", "refusal")
    return None if parts is None else [_part(part) for part in parts]


def _part(part: JsonObject) -> Block:
    kind = as_text(part.get("type"))
    if kind == "refusal":
        return Block(type="refusal", text=as_text(part.get("refusal")))
    return Block(type="text" if kind == "output_text" else kind, text=as_text(part.get("text")))


def _reasoning(item: JsonObject) -> list[Block] | None:
    parts = _typed_parts(item.get("summary"), "text")
    signature = item.get("encrypted_content")
    if parts is None or not _is(str, signature):
        return None
    summary = "\n".join(as_text(part.get("text")) for part in parts)
    return [Block(type="thinking", thinking=summary, thinking_signature=as_text(signature))]


def _function_call(item: JsonObject) -> list[Block] | None:
    if not all(_is(str, item.get(name)) for name in ("call_id", "name", "arguments")):
        return None
    arguments, raw = parse_arguments(as_text(item.get("arguments")))
    return [
        Block(
            type="tool_use",
            tool_use_id=as_text(item.get("call_id")),
            tool_name=as_text(item.get("name")),
            tool_input=arguments,
            content=item if raw is not None else None,
        )
    ]


_READERS: Final[dict[str, Callable[[JsonObject], list[Block] | None]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
}


def _typed_parts(content: object, *texts: str) -> list[JsonObject] | None:
    """The parts, or None when they are not a list of objects with these texts."""
    if not _is(list, content):
        return None
    parts: list[JsonObject] = []
    for part in as_list(content):
        given = as_mapping(part)
        if given is None or not all(_is(str, given.get(name)) for name in ("type", *texts)):
            return None
        parts.append(given)
    return parts


def _is(kind: type, value: object) -> bool:
    """A null counts as absent, and what is absent has every type (``wire.md`` §1)."""
    return value is None or isinstance(value, kind)
