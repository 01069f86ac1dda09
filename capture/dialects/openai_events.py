"""The events of a Responses stream: their members, and what each kind is for.

Source: the Responses streaming reference. Kinds are matched by name; a kind that no
table names is unknown, and counted.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from capture.dialects import openai_items as items_of
from capture.dialects.fold import EventReader
from capture.dialects.members import as_int
from capture.dialects.openai_items import Slot


class Event(Struct, gc=False):
    """Any event: each kind has some of these members."""

    type: object = None
    delta: object = None
    output_index: object = None
    content_index: object = None
    summary_index: object = None
    item_id: object = None
    item: object = None
    response: object = None
    text: object = None
    refusal: object = None
    arguments: object = None
    input: object = None
    error: object = None
    code: object = None
    message: object = None


EVENTS: Final = EventReader(Event)

DELTAS: Final[Mapping[str, Slot]] = {
    "response.output_text.delta": items_of.TEXT,
    "response.refusal.delta": items_of.REFUSAL,
    "response.reasoning_summary_text.delta": items_of.SUMMARY,
    "response.reasoning_text.delta": items_of.REASONING,
    "response.function_call_arguments.delta": items_of.ARGUMENTS,
    "response.custom_tool_call_input.delta": items_of.INPUT,
}
DONES: Final[Mapping[str, Slot]] = {
    kind.removesuffix("delta") + "done": slot for kind, slot in DELTAS.items()
}
TERMINALS: Final[Mapping[str, str]] = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
"""Terminal events, and the status that each means when it carries no response."""

UNREAD: Final = (
    "response.apply_patch_call",
    "response.audio.",
    "response.code_interpreter_call",
    "response.computer_call",
    "response.content_part.",
    "response.file_search_call.",
    "response.image_generation_call.",
    "response.local_shell_call",
    "response.mcp_",
    "response.output_text.",
    "response.rate_limits",
    "response.reasoning_",
    "response.shell_call",
    "response.web_search_call.",
    "keepalive",
    "ping",
)
"""Beginnings of kinds whose news the items bring again."""


def part_index(slot: Slot, event: Event) -> int:
    """The number of the part that an event speaks of; 0 where there is only one."""
    if slot.index == "content_index":
        return as_int(event.content_index) or 0
    return as_int(event.summary_index) or 0 if slot.index else 0
