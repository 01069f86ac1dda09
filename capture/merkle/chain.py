"""From a turn to its nodes (``behaviour.md`` §8).

One node a request message, in order, then one for the response. The parent of each is
the last node on the spine. A message that is injected context becomes a node beside
the spine: nothing follows it, so the chain is the same with and without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from capture.dialects.members import as_mapping, as_text
from capture.merkle.projection import node_hash
from capture.requests import catalog, harness
from capture.requests.fields import objects
from capture.requests.openai_responses import custom_answer, custom_call
from capture.requests.request import RequestMessage
from capture.turn import Dialect, JsonObject
from capture.wire_response import wire_block

_CUSTOM: Final = {"custom_tool_call": custom_call, "custom_tool_call_output": custom_answer}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One message in its place in a conversation.

    ``parent`` is empty for a root. ``blocks`` are the message's, whole, in the members
    of ``wire.md`` §3. ``on_spine``: later nodes may follow it.
    """

    hash: str
    parent: str
    role: str
    blocks: tuple[JsonObject, ...]
    on_spine: bool = True


def build_chain(
    provider: str, dialect: str, request: object, response: Mapping[str, object]
) -> tuple[Node, ...]:
    """The nodes of a stored turn, the response's last. Never raises for decoded JSON.

    ``request`` is the embedded request body (None: there was none), ``response`` the
    reduced response (``wire.md`` §3). ``dialect`` is a ``Dialect`` value; without one
    the provider and the request's shape tell (``wire.md`` §4). A request that cannot be
    read gives no nodes; nor does a response without a message. The first node's hash
    names a session that has no name of its own: its first 16 digits.
    """
    spoken = catalog.dialect_of(provider, dialect, request)
    messages = catalog.read(spoken, request).messages
    message = as_mapping(response.get("message"))
    if message is None:
        return chain(messages)
    blocks = objects(message.get("content"))
    if provider == "openai" or spoken is Dialect.OPENAI_RESPONSES:
        blocks = [_as_tool_use(block) for block in blocks]
    return chain(messages, as_text(message.get("role")), blocks)


def chain(
    messages: Iterable[RequestMessage],
    response_role: str = "",
    response_blocks: Sequence[JsonObject] | None = None,
) -> tuple[Node, ...]:
    """Link the messages of a request and its response; None stands for no response."""
    nodes: list[Node] = []
    parent = ""
    for message in messages:
        blocks = tuple(wire_block(block) for block in message.blocks)
        on_spine = not harness.is_injected(message.role, message.blocks)
        node = _node(parent, message.role, blocks, on_spine=on_spine)
        nodes.append(node)
        parent = node.hash if on_spine else parent
    if response_blocks is not None:
        nodes.append(_node(parent, response_role, tuple(response_blocks), on_spine=True))
    return tuple(nodes)


def _node(parent: str, role: str, blocks: tuple[JsonObject, ...], *, on_spine: bool) -> Node:
    name = node_hash(parent, role, blocks)
    return Node(hash=name, parent=parent, role=role, blocks=blocks, on_spine=on_spine)


def _as_tool_use(block: JsonObject) -> JsonObject:
    """A custom tool's item as the next request will echo it, so that both hash alike."""
    item = as_mapping(block.get("content"))
    rewrite = _CUSTOM.get(as_text(block.get("type")))
    if rewrite is None or item is None or not as_text(item.get("call_id")):
        return block
    return wire_block(rewrite(item))
