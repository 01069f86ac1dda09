"""Requests of Cohere, v1 and v2."""

from typing import Final

from capture.dialects.members import as_mapping, as_text
from capture.requests.fields import arguments_of, as_flag, as_sent, names, objects, text_block, user_text
from capture.requests.openai_chat import blocks, calls
from capture.requests.prompts import read_completions
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject

_ROLES: Final = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system", "TOOL": "tool"}


def read_v1(body: JsonObject) -> Request:
    """Read a v1 chat request (history, then the message), or a v1 generate prompt."""
    if "message" not in body and "prompt" in body:
        return read_completions(body)
    messages = [_past(message) for message in objects(body.get("chat_history"))]
    results = objects(body.get("tool_results"))
    if results:
        messages.append(RequestMessage(role="tool", blocks=_results(results)))
    said = as_text(body.get("message"))
    if said or not results:
        messages.append(user_text(said))
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=tuple(messages),
        system=as_text(body.get("preamble")),
        tool_names=names(objects(body.get("tools"))),
    )


def _past(message: JsonObject) -> RequestMessage:
    role = as_text(message.get("role"))
    said = as_text(message.get("message"))
    made = tuple(
        Block(
            type="tool_use",
            tool_name=as_text(call.get("name")),
            tool_input=arguments_of(call.get("parameters")),
        )
        for call in objects(message.get("tool_calls"))
    )
    results = _results(objects(message.get("tool_results")))
    text = (text_block(said),) if said or not (made or results) else ()
    return RequestMessage(role=_ROLES.get(role, role), blocks=(*text, *made, *results))


def _results(results: list[JsonObject]) -> tuple[Block, ...]:
    return tuple(
        Block(
            type="tool_result",
            tool_name=as_text((as_mapping(result.get("call")) or {}).get("name")),
            tool_output=as_sent(result.get("outputs")),
        )
        for result in results
    )


def read_v2(body: JsonObject) -> Request:
    """Read a v2 chat request: messages as in Chat Completions, with a plan before calls."""
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=tuple(_message(message) for message in objects(body.get("messages"))),
        tool_names=names(objects(body.get("tools"))),
    )


def _message(message: JsonObject) -> RequestMessage:
    role = as_text(message.get("role"))
    content = message.get("content")
    answered = as_text(message.get("tool_call_id"))
    if role == "tool" and answered:
        result = Block(type="tool_result", tool_result_id=answered, tool_output=as_sent(content))
        return RequestMessage(role=role, blocks=(result,))
    plan = as_text(message.get("tool_plan"))
    planned = (Block(type="thinking", thinking=plan),) if plan else ()
    said = tuple(_unthought(block, part) for block, part in _paired(content))
    return RequestMessage(role=role, blocks=(*planned, *said, *calls(message.get("tool_calls"))))


def _paired(content: object) -> list[tuple[Block, JsonObject]]:
    parts: list[JsonObject] = [{}] if isinstance(content, str) else objects(content)
    return list(zip(blocks(content), parts, strict=True))


def _unthought(block: Block, part: JsonObject) -> Block:
    """A part that says what the model thought has it in a member of its own."""
    thought = part.get("thinking")
    return Block(type="thinking", thinking=thought) if isinstance(thought, str) else block
