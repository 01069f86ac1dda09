"""Requests of Gemini and Vertex ``generateContent``.

Parts are read as the answer's are (``dialects.gemini_parts``), so an answer that comes
back as history hashes as it did. The model's role is written ``assistant`` for the
same reason. A single object stands for a list of one, as in all proto JSON.
"""

from typing import Final

from capture.dialects.fold import DamageLog
from capture.dialects.gemini_parts import Parts, either
from capture.dialects.members import as_mapping, as_text
from capture.requests.fields import as_sent, objects, texts
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject

_MODEL: Final = "model"


def read(body: JsonObject) -> Request:
    """Read a generateContent request. Model and streaming are told by the path."""
    instruction = either(body, "systemInstruction", "system_instruction")
    return Request(
        model=as_text(body.get("model")),
        messages=tuple(_message(content) for content in _listed(body.get("contents"))),
        system="\n".join(texts(_listed((as_mapping(instruction) or {}).get("parts")))),
        tool_names=tuple(name for tool in _listed(body.get("tools")) for name in _tool_names(tool)),
    )


def _listed(value: object) -> list[JsonObject]:
    one = as_mapping(value)
    return objects(value) if one is None else [one]


def _tool_names(tool: JsonObject) -> tuple[str, ...]:
    declared = either(tool, "functionDeclarations", "function_declarations")
    if declared is None:
        return tuple(tool)  # a server tool is named by its member: googleSearch, codeExecution
    return tuple(as_text(function.get("name")) for function in _listed(declared))


def _message(content: JsonObject) -> RequestMessage:
    role = as_text(content.get("role"))
    parts = _listed(content.get("parts"))
    if role == _MODEL:
        return RequestMessage(role="assistant", blocks=_blocks(parts))
    return RequestMessage(
        role=role or "user", blocks=tuple(block for part in parts for block in _asked(part))
    )


def _blocks(parts: list[JsonObject]) -> tuple[Block, ...]:
    answer = Parts(DamageLog())
    for part in parts:
        answer.add(part)
    return answer.blocks(whole=True)


def _asked(part: JsonObject) -> tuple[Block, ...]:
    """A part of a user's message: each text is a block of its own, a function's answer is a result."""
    answer = as_mapping(either(part, "functionResponse", "function_response"))
    if answer is None:
        return _blocks([part])
    return (
        Block(
            type="tool_result",
            tool_name=as_text(answer.get("name")),
            tool_result_id=as_text(answer.get("id")),
            tool_output=as_sent(answer.get("response")),
        ),
    )
