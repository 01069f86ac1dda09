"""Requests of Ollama: chat and generate (``behaviour.md`` §8)."""

from capture.dialects.members import as_list, as_mapping, as_text
from capture.requests.fields import as_flag, names, objects, text_block
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read_chat(body: JsonObject) -> Request:
    """Read a chat request."""
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=tuple(_message(message) for message in objects(body.get("messages"))),
        tool_names=names(objects(body.get("tools"))),
    )


def read_generate(body: JsonObject) -> Request:
    """Read a generate request: one prompt. The model's own ``context`` numbers are no text."""
    blocks = (*_text(body.get("prompt")), *_images(body))
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=(RequestMessage(role="user", blocks=blocks),),
        system=as_text(body.get("system")),
    )


def _message(message: JsonObject) -> RequestMessage:
    calls = (_call(call) for call in objects(message.get("tool_calls")))
    blocks = (*_text(message.get("content")), *_images(message), *calls)
    return RequestMessage(role=as_text(message.get("role")), blocks=blocks)


def _text(value: object) -> tuple[Block, ...]:
    text = as_text(value)
    return (text_block(text),) if text else ()


def _images(holder: JsonObject) -> tuple[Block, ...]:
    images = as_list(holder.get("images"))
    return tuple(Block(type="image", image_base64=image) for image in images if isinstance(image, str))


def _call(call: JsonObject) -> Block:
    function = as_mapping(call.get("function")) or {}
    return Block(
        type="tool_use",
        tool_use_id=as_text(call.get("id")),
        tool_name=as_text(function.get("name")),
        tool_input=as_mapping(function.get("arguments")),
    )
