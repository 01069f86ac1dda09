"""Requests of Bedrock: Converse, and InvokeModel with the body of a model's family."""

from collections.abc import Callable, Mapping
from typing import Final

from capture.dialects.members import as_mapping, as_text
from capture.requests import anthropic, cohere, openai_chat, prompts
from capture.requests.fields import as_sent, objects, text_block, texts
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read_converse(body: JsonObject) -> Request:
    """Read a Converse request (or Nova's InvokeModel body, which has its shape)."""
    tools = (as_mapping(body.get("toolConfig")) or {}).get("tools")
    return Request(
        messages=tuple(
            RequestMessage(
                role=as_text(message.get("role")),
                blocks=tuple(_block(part) for part in _unmarked(message.get("content"))),
            )
            for message in objects(body.get("messages"))
        ),
        system="\n".join(texts(body.get("system"))),
        tool_names=tuple(_tool_name(tool) for tool in _unmarked(tools)),
    )


def _unmarked(listed: object) -> list[JsonObject]:
    """Without cache points: they are no content, and move from turn to turn."""
    return [part for part in objects(listed) if "cachePoint" not in part]


def read_invoke(body: JsonObject) -> Request:
    """Read an InvokeModel request: the members tell the family."""
    if "anthropic_version" in body:
        return anthropic.read(body)
    if "messages" in body:
        return read_converse(body) if _speaks_converse(body) else openai_chat.read(body)
    if "message" in body:
        return cohere.read_v1(body)
    return prompts.read_prompt(body)


def _speaks_converse(body: JsonObject) -> bool:
    """Converse names a part by its only member, chat by its ``type``."""
    if "schemaVersion" in body or "inferenceConfig" in body:
        return True
    contents = (message.get("content") for message in objects(body.get("messages")))
    return any("type" not in part for content in contents for part in objects(content))


def _tool_name(tool: JsonObject) -> str:
    """A tool is one member that holds its name: ``toolSpec``, ``systemTool``."""
    kind, spec = next(iter(tool.items()), ("", None))
    return as_text((as_mapping(spec) or {}).get("name")) or kind


def _block(part: JsonObject) -> Block:
    """A part is one member that says what it is; what no block has a place for is kept whole."""
    if isinstance(text := part.get("text"), str):
        return text_block(text)
    for kind, block in _PARTS.items():
        if (given := as_mapping(part.get(kind))) is not None:
            return block(given)
    return Block(type="unparsed", content=part)


def _tool_use(call: JsonObject) -> Block:
    return Block(
        type="tool_use",
        tool_use_id=as_text(call.get("toolUseId")),
        tool_name=as_text(call.get("name")),
        tool_input=as_mapping(call.get("input")),
    )


def _tool_result(result: JsonObject) -> Block:
    return Block(
        type="tool_result",
        tool_result_id=as_text(result.get("toolUseId")),
        tool_output="\n".join(filter(None, map(_result_text, objects(result.get("content"))))),
        is_error=result.get("status") == "error",
    )


def _result_text(part: JsonObject) -> str:
    """The text or the JSON of a result; of any other kind (documents, images) the whole part."""
    return as_text(part.get("text")) or as_sent(part.get("json", part if "text" not in part else None))


def _image(image: JsonObject) -> Block:
    source = as_mapping(image.get("source")) or {}
    location = as_mapping(source.get("s3Location")) or {}
    kind = as_text(image.get("format"))
    return Block(
        type="image",
        image_base64=as_text(source.get("bytes")),
        image_url=as_text(location.get("uri")),
        media_type=f"image/{kind}" if kind else "",
    )


def _reasoning(content: JsonObject) -> Block:
    told = as_mapping(content.get("reasoningText"))
    if told is None:
        return Block(type="redacted_thinking")
    return Block(
        type="thinking",
        thinking=as_text(told.get("text")),
        thinking_signature=as_text(told.get("signature")),
    )


_PARTS: Final[Mapping[str, Callable[[JsonObject], Block]]] = {
    "toolUse": _tool_use,
    "toolResult": _tool_result,
    "image": _image,
    "reasoningContent": _reasoning,
}
