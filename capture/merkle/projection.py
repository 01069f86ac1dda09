"""What of a message is hashed, and its hash (``behaviour.md`` §8).

The hash names the content of a conversation, so it leaves out whatever differs
between two captures of one turn: signatures, empty arguments, reminders, white space.
Blocks come as the wire has them (members of ``wire.md`` §3, decoded). Members of an
unexpected type are left out: hashing never raises for any JSON value.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, cast

from capture.merkle.canonical_json import canonical_json
from capture.requests.harness import normalise, strip_tags
from capture.turn import JsonObject

_AS_THEY_ARE: Final = (
    "image_url",
    "image_base64",
    "media_type",
    "tool_use_id",
    "tool_name",
    "tool_result_id",
    "thinking",
)


def node_hash(parent: str, role: str, blocks: Iterable[Mapping[str, object]]) -> str:
    """The node's name: lower-case hex SHA-256 of its canonical form."""
    return sha256(canonical_node(parent, role, blocks)).hexdigest()


def canonical_node(parent: str, role: str, blocks: Iterable[Mapping[str, object]]) -> bytes:
    """The bytes that are hashed. ``parent`` is the parent's hash, or empty for a root."""
    content = {"type": "message", "role": role, "content": project(blocks)}
    return canonical_json({"parent": parent, "content": content})


def project(blocks: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The blocks with what is hashed of each; a block whose text comes to nothing is left out."""
    return [projected for block in blocks if (projected := _project(block)) is not None]


def _project(block: Mapping[str, object]) -> dict[str, object] | None:
    # is_error is there for every type of block, false included: no hash matches without.
    projected: dict[str, object] = {
        "type": _text(block, "type"),
        "is_error": block.get("is_error") is True,
    }
    text = _text(block, "text")
    if text:
        text = normalise(strip_tags(text))
        if not text:
            return None
        projected["text"] = text
    output = normalise(strip_tags(_text(block, "tool_output")))
    if output:
        projected["tool_output"] = output
    for name in _AS_THEY_ARE:
        member = _text(block, name)
        if member:
            projected[name] = member
    arguments = _pruned_arguments(block.get("tool_input"))
    if arguments:
        projected["tool_input"] = arguments
    content = block.get("content")
    if content is not None and content not in ("", {}, []):
        projected["content"] = content
    return projected


def _text(block: Mapping[str, object], name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""


def _pruned_arguments(arguments: object) -> JsonObject | None:
    return prune(cast("JsonObject", arguments)) if isinstance(arguments, dict) else None


def prune(members: JsonObject) -> JsonObject:
    """Leave out members that are null, false, 0, ``""``, ``[]`` or an object with nothing left.

    Objects are entered, lists are not. Clients drop such members when they send a call
    back as history. Depth costs no recursion.
    """
    pruned: dict[str, object] = {}
    entered: list[tuple[JsonObject, dict[str, object]]] = [(members, pruned)]
    nested: list[tuple[dict[str, object], str, dict[str, object]]] = []
    for source, target in entered:  # grows while it is read
        for name, member in source.items():
            if isinstance(member, dict):
                inner: dict[str, object] = {}
                entered.append((cast("JsonObject", member), inner))
                nested.append((target, name, inner))
            elif member:
                target[name] = member
    for target, name, inner in reversed(nested):  # the deepest were met last
        if inner:
            target[name] = inner
    return pruned
