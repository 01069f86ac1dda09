"""Requests of OpenAI Responses, one message an item (``behaviour.md`` §8).

An item's answer that is no text is kept as JSON text, written anew: compact, members
in the order sent.
"""

from collections.abc import Callable, Mapping
from typing import Final

from capture import jsontext
from capture.dialects.members import as_mapping, as_text
from capture.requests.fields import (
    as_flag,
    as_sent,
    names,
    objects,
    only_objects,
    text_block,
    texts,
    user_text,
)
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read(body: JsonObject) -> Request:
    """Read a Responses request; ``instructions`` are its system text."""
    given = body.get("input")
    if isinstance(given, str):
        messages: tuple[RequestMessage, ...] = (user_text(given),)
    else:
        messages = tuple(_message(item) for item in objects(given))
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=messages,
        system=as_text(body.get("instructions")),
        tool_names=names(objects(body.get("tools"))),
    )


def _message(item: JsonObject) -> RequestMessage:
    kind = as_text(item.get("type"))
    role = as_text(item.get("role"))
    if kind == "message" or (not kind and role):
        return RequestMessage(role=role, blocks=_content(item))
    if kind in _ANSWERS:
        return RequestMessage(role="tool", blocks=(_ANSWERS[kind](item),))
    block = _SAID[kind](item) if kind in _SAID else Block(type=kind, content=item)
    return RequestMessage(role="assistant", blocks=(block,))


def _content(item: JsonObject) -> tuple[Block, ...]:
    if "content" not in item:
        return ()
    content = item["content"]
    if content is None or isinstance(content, str):
        return (text_block(content or ""),)
    parts = only_objects(content)
    if parts is None:
        return (Block(type="text", content=content),)
    return tuple(_part(part) for part in parts)


def _part(part: JsonObject) -> Block:
    kind = as_text(part.get("type"))
    match kind:
        case "input_text" | "output_text" | "summary_text":
            return text_block(as_text(part.get("text")))
        case "refusal":
            return Block(type=kind, text=as_text(part.get("refusal")))
        case "input_image":
            return Block(type="image", image_url=as_text(part.get("image_url")))
        case _:
            return Block(type=kind, text=as_text(part.get("text")))


def _function_call(item: JsonObject) -> Block:
    arguments, readable = _arguments(as_text(item.get("arguments")))
    return Block(
        type="tool_use",
        tool_use_id=as_text(item.get("call_id")),
        tool_name=as_text(item.get("name")),
        tool_input=arguments,
        content=None if readable else item,
    )


def _arguments(text: str) -> tuple[JsonObject | None, bool]:
    if not text:
        return None, True
    try:
        value = jsontext.decode(text)
    except jsontext.JsonError:
        return None, False
    return as_mapping(value), value is None or isinstance(value, dict)


def _function_answer(item: JsonObject) -> Block:
    return Block(
        type="tool_result",
        tool_result_id=as_text(item.get("call_id")),
        tool_output=as_sent(item.get("output")),
    )


def custom_call(item: JsonObject) -> Block:
    """A custom tool's call: its text is the argument ``input``."""
    text = as_text(item.get("input"))
    return Block(
        type="tool_use",
        tool_use_id=as_text(item.get("call_id")),
        tool_name=as_text(item.get("name")),
        tool_input={"input": text} if text else None,
    )


def custom_answer(item: JsonObject) -> Block:
    """The answer to a custom tool's call: a text, or parts whose texts are joined."""
    output = item.get("output")
    parts = only_objects(output)
    return Block(
        type="tool_result",
        tool_result_id=as_text(item.get("call_id")),
        tool_output=as_sent(output) if parts is None else "".join(texts(parts)),
    )


def _reasoning(item: JsonObject) -> Block:
    return Block(
        type="thinking",
        thinking="\n".join(filter(None, texts(item.get("summary")))),
        thinking_signature=as_text(item.get("encrypted_content")),
    )


_SAID: Final[Mapping[str, Callable[[JsonObject], Block]]] = {
    "function_call": _function_call,
    "custom_tool_call": custom_call,
    "reasoning": _reasoning,
}
_ANSWERS: Final[Mapping[str, Callable[[JsonObject], Block]]] = {
    "function_call_output": _function_answer,
    "custom_tool_call_output": custom_answer,
}
