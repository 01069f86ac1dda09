"""The contract's reduced response (``contracts/wire.md`` §3), rendered from a turn.

Rendered as plain JSON objects: ``ingest_client.payload`` types the same members for
the writer, and this module must not know it.
"""

from dataclasses import fields
from typing import Final

from msgspec import Raw

from capture.turn import Block, Turn, WireFacts, WireUsage

_BLOCK_MEMBERS: Final = tuple(field.name for field in fields(Block) if field.name != "type")
_USAGE_MEMBERS: Final = tuple(field.name for field in fields(WireUsage))


def reduced_response(turn: Turn, *, reduced_at: str = "") -> dict[str, object]:
    """Render ``response`` of the payload. ``reduced_at`` (RFC 3339) dates a turn whose
    provider sent no time; empty leaves ``created_at`` out.
    """
    facts = turn.wire
    rendered: dict[str, object] = {"model": turn.model}
    created_at = reduced_at if facts.dated_by_clock else facts.created_at
    if created_at:
        rendered["created_at"] = created_at
    rendered["message"] = {"role": turn.role, "content": [wire_block(block) for block in turn.blocks]}
    rendered["done"] = facts.done
    if facts.stop_reason:
        rendered["stop_reason"] = facts.stop_reason
    if facts.usage is not None:
        rendered["usage"] = _usage(facts.usage)
    _add_extra(rendered, facts)
    return rendered


def _add_extra(rendered: dict[str, object], facts: WireFacts) -> None:
    if facts.extra:
        rendered["extra"] = dict(facts.extra)
    if facts.document:
        rendered["raw_response"] = Raw(facts.document)


def wire_block(block: Block) -> dict[str, object]:
    """One content block: every member but ``type`` is left out when empty."""
    rendered: dict[str, object] = {"type": block.type}
    for name in _BLOCK_MEMBERS:
        value = getattr(block, name)
        if value or (name == "content" and value is not None):
            rendered[name] = value
    return rendered


def _usage(usage: WireUsage) -> dict[str, object]:
    counts = {name: getattr(usage, name) for name in _USAGE_MEMBERS}
    return {name: count for name, count in counts.items() if count}
