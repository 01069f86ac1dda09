"""The provider-neutral view of a stored turn (DESIGN §6).

A sidecar of ours sends it in ``meta.canonical``, made from the bytes of the answer, which
knows most. For any other producer it is made of the bytes that the turn brings
(:mod:`ingest.derivation.view`), or here from the contract's reduced response.
"""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from capture.stop_words import result_of
from ingest.store.rows import TurnRow

JsonObject = Mapping[str, object]
_USAGE: Final = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "reasoning_tokens": "reasoning_tokens",
}
"""Member of the view → member of the contract's usage (which leaves zeros out)."""


def canonical(turn: TurnRow, response: JsonObject, meta: JsonObject) -> JsonObject:
    """The view. Never raises for decoded JSON."""
    made = as_mapping(meta.get("canonical"))
    if made:
        return made
    blocks = _blocks(response)
    extra = as_mapping(response.get("extra"))
    error = _error(extra)
    partial = bool(extra.get("incomplete") or extra.get("partial") or meta.get("partial"))
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    refusal = _joined(blocks, "refusal", "text")
    stop = as_text(response.get("stop_reason")) or None
    result = result_of(
        stop, partial=partial, has_tool_calls=bool(calls), refused=bool(refusal), failed=error is not None
    )
    view: dict[str, object] = {
        "provider": turn.provider,
        "dialect": as_text(meta.get("dialect")) or None,
        "endpoint": as_text(meta.get("endpoint")) or None,
        "model": turn.model or None,
        "response_id": as_text(extra.get("id")) or None,
        "stream": as_text(meta.get("stream")) == "true",
        "text": _joined(blocks, "text", "text"),
        "thinking": _joined(blocks, "thinking", "thinking"),
        "tool_calls": calls,
        "result": result.value,
        "stop_reason": stop,
        "usage": _usage(as_mapping(response.get("usage"))),
        "partial": partial,
        "provider_error": error,
        "diagnostics": meta.get("diagnostics") or [],
    }
    return view | ({"refusal": refusal} if refusal else {})


def as_mapping(value: object) -> JsonObject:
    """``value`` if it is an object, else an empty one."""
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def as_list(value: object) -> Sequence[object]:
    """``value`` if it is an array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else ()


def as_text(value: object) -> str:
    """``value`` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def _blocks(response: JsonObject) -> Sequence[JsonObject]:
    content = as_mapping(response.get("message")).get("content")
    return [as_mapping(item) for item in as_list(content)]


def _joined(blocks: Sequence[JsonObject], kind: str, member: str) -> str:
    return "".join(as_text(block.get(member)) for block in blocks if block.get("type") == kind)


def _call(block: JsonObject) -> JsonObject:
    # Empty arguments are left out of the wire; arguments that are no object came whole in "content".
    arguments = None if block.get("content") is not None else as_mapping(block.get("tool_input"))
    return {
        "id": as_text(block.get("tool_use_id")) or None,
        "name": as_text(block.get("tool_name")),
        "arguments": arguments,
    }


def _usage(usage: JsonObject) -> JsonObject:
    """Counts that were not sent are null; so are zeros, which the contract leaves out."""
    counts: dict[str, object] = {name: usage.get(theirs) for name, theirs in _USAGE.items()}
    return {name: count if isinstance(count, int) else None for name, count in counts.items()}


def _error(extra: JsonObject) -> JsonObject | None:
    error = as_mapping(extra.get("error"))
    if not error:
        return None
    return {
        "status": 200,
        "type": as_text(error.get("type")) or None,
        "message": as_text(error.get("message")),
        "where": "stream",
    }
