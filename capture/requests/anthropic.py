"""Requests of Anthropic Messages, by the mapping of ``behaviour.md`` §8.

Members are read whatever the type of their block. URLs of images are not kept there.
"""

from capture.dialects.members import as_list, as_mapping, as_text
from capture.requests.fields import as_flag, names, objects, text_block, text_or_parts, texts
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read(body: JsonObject) -> Request:
    """Read a Messages request."""
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=tuple(
            RequestMessage(role=as_text(message.get("role")), blocks=_blocks(message.get("content")))
            for message in objects(body.get("messages"))
        ),
        system=text_or_parts(body.get("system")),
        tool_names=names(objects(body.get("tools"))),
    )


def _blocks(content: object) -> tuple[Block, ...]:
    if isinstance(content, str):
        return (text_block(content),)
    return tuple(_block(part) for part in objects(as_list(content)))


def _block(part: JsonObject) -> Block:
    kind = as_text(part.get("type"))
    content = part.get("content")
    source = as_mapping(part.get("source")) or {}
    searched = kind == "web_search_tool_result"
    return Block(
        type=kind,
        text=as_text(part.get("text")),
        image_base64=as_text(source.get("data")),
        media_type=as_text(source.get("media_type")),
        tool_use_id=as_text(part.get("id")),
        tool_name=as_text(part.get("name")),
        tool_input=as_mapping(part.get("input")),
        tool_result_id=as_text(part.get("tool_use_id")),
        tool_output="" if searched else _output(content),
        is_error=part.get("is_error") is True,
        thinking=as_text(part.get("thinking")),
        thinking_signature=as_text(part.get("signature")),
        content=content if searched else None,
    )


def _output(content: object) -> str:
    return content if isinstance(content, str) else "\n".join(texts(content))
