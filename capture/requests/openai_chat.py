"""Requests of OpenAI Chat Completions and all that speak it (``behaviour.md`` §8).

The contract keeps a call only when its arguments are an object, and of a tool's
answer only a text.
"""

from capture import jsontext
from capture.dialects.members import as_mapping, as_text
from capture.requests.fields import as_flag, names, objects, text_block
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read(body: JsonObject) -> Request:
    """Read a Chat Completions request. The system prompt is one of its messages."""
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=tuple(_message(message) for message in objects(body.get("messages"))),
        tool_names=names([*objects(body.get("tools")), *objects(body.get("functions"))]),
    )


def _message(message: JsonObject) -> RequestMessage:
    role = as_text(message.get("role"))
    content = message.get("content")
    answered = as_text(message.get("tool_call_id"))
    if role == "tool" and answered:
        result = Block(type="tool_result", tool_result_id=answered, tool_output=as_text(content))
        return RequestMessage(role=role, blocks=(result,))
    return RequestMessage(role=role, blocks=(*blocks(content), *calls(message.get("tool_calls"))))


def blocks(content: object) -> tuple[Block, ...]:
    """The content of a message: a text, or a list of parts."""
    if isinstance(content, str):
        return (text_block(content),)
    return tuple(_part(part) for part in objects(content))


def _part(part: JsonObject) -> Block:
    image = as_mapping(part.get("image_url"))
    return Block(
        type=as_text(part.get("type")) if image is None else "image",
        text=as_text(part.get("text")),
        image_url="" if image is None else as_text(image.get("url")),
    )


def calls(tool_calls: object) -> tuple[Block, ...]:
    """The calls of an assistant's message whose arguments can be read."""
    return tuple(block for call in objects(tool_calls) if (block := _call(call)) is not None)


def _call(call: JsonObject) -> Block | None:
    function = as_mapping(call.get("function")) or {}
    try:
        arguments = jsontext.decode(as_text(function.get("arguments")))
    except jsontext.JsonError:
        return None
    readable = as_mapping(arguments)
    if readable is None and arguments is not None:
        return None
    return Block(
        type="tool_use",
        tool_use_id=as_text(call.get("id")),
        tool_name=as_text(function.get("name")),
        tool_input=readable,
    )
