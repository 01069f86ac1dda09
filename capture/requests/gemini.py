"""Requests of Gemini and Vertex ``generateContent``.

Names are camel case, or snake case as some clients send them; the service takes both.
The model's role is written ``assistant``, as its answer is.
"""

from typing import Final

from capture.dialects.members import as_mapping, as_text
from capture.requests.fields import compact, objects, text_block, texts
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject

_ROLES: Final = {"model": "assistant", "": "user"}


def read(body: JsonObject) -> Request:
    """Read a generateContent request. Model and streaming are told by the path."""
    return Request(
        model=as_text(body.get("model")),
        messages=tuple(_message(content) for content in objects(body.get("contents"))),
        system=_system(_member(body, "systemInstruction", "system_instruction")),
        tool_names=tuple(name for tool in objects(body.get("tools")) for name in _tool_names(tool)),
    )


def _member(holder: JsonObject, name: str, other: str) -> object:
    return holder[name] if name in holder else holder.get(other)


def _system(instruction: object) -> str:
    if isinstance(instruction, str):
        return instruction
    return "\n".join(texts((as_mapping(instruction) or {}).get("parts")))


def _tool_names(tool: JsonObject) -> tuple[str, ...]:
    declared = _member(tool, "functionDeclarations", "function_declarations")
    if declared is None:
        return tuple(tool)  # a server tool is named by its member: googleSearch, codeExecution
    return tuple(as_text(function.get("name")) for function in objects(declared))


def _message(content: JsonObject) -> RequestMessage:
    role = as_text(content.get("role"))
    blocks = tuple(_block(part) for part in objects(content.get("parts")))
    return RequestMessage(role=_ROLES.get(role, role), blocks=blocks)


def _block(part: JsonObject) -> Block:
    if isinstance(text := part.get("text"), str):
        return _text(part, text)
    if (data := as_mapping(_member(part, "inlineData", "inline_data"))) is not None:
        return Block(
            type="image",
            image_base64=as_text(data.get("data")),
            media_type=as_text(_member(data, "mimeType", "mime_type")),
        )
    if (data := as_mapping(_member(part, "fileData", "file_data"))) is not None:
        return Block(
            type="image",
            image_url=as_text(_member(data, "fileUri", "file_uri")),
            media_type=as_text(_member(data, "mimeType", "mime_type")),
        )
    if (call := as_mapping(_member(part, "functionCall", "function_call"))) is not None:
        return Block(
            type="tool_use",
            tool_use_id=as_text(call.get("id")),
            tool_name=as_text(call.get("name")),
            tool_input=as_mapping(call.get("args")),
        )
    if (answer := as_mapping(_member(part, "functionResponse", "function_response"))) is not None:
        return Block(
            type="tool_result",
            tool_name=as_text(answer.get("name")),
            tool_result_id=as_text(answer.get("id")),
            tool_output=compact(answer.get("response")),
        )
    return Block(type=next(iter(part), ""), content=part)


def _text(part: JsonObject, text: str) -> Block:
    if part.get("thought") is not True:
        return text_block(text)
    signature = as_text(_member(part, "thoughtSignature", "thought_signature"))
    return Block(type="thinking", thinking=text, thinking_signature=signature)
