"""Requests of Bedrock: Converse, and InvokeModel with the body of a model's family."""

from capture.dialects.members import as_mapping, as_text
from capture.requests import anthropic, cohere, openai_chat, prompts
from capture.requests.fields import compact, objects, text_block, texts
from capture.requests.request import Request, RequestMessage
from capture.turn import Block, JsonObject


def read_converse(body: JsonObject) -> Request:
    """Read a Converse request (or Nova's InvokeModel body, which has its shape)."""
    tools = objects((as_mapping(body.get("toolConfig")) or {}).get("tools"))
    return Request(
        messages=tuple(
            RequestMessage(
                role=as_text(message.get("role")),
                blocks=tuple(_block(part) for part in objects(message.get("content"))),
            )
            for message in objects(body.get("messages"))
        ),
        system="\n".join(texts(body.get("system"))),
        tool_names=tuple(_tool_name(tool) for tool in tools if "cachePoint" not in tool),
    )


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
    spec = as_mapping(tool.get("toolSpec")) or {}
    return as_text(spec.get("name")) or next(iter(tool), "")


def _block(part: JsonObject) -> Block:
    if isinstance(text := part.get("text"), str):
        return text_block(text)
    if (call := as_mapping(part.get("toolUse"))) is not None:
        return Block(
            type="tool_use",
            tool_use_id=as_text(call.get("toolUseId")),
            tool_name=as_text(call.get("name")),
            tool_input=as_mapping(call.get("input")),
        )
    if (result := as_mapping(part.get("toolResult"))) is not None:
        return Block(
            type="tool_result",
            tool_result_id=as_text(result.get("toolUseId")),
            tool_output="\n".join(filter(None, map(_result_text, objects(result.get("content"))))),
            is_error=result.get("status") == "error",
        )
    if (image := as_mapping(part.get("image"))) is not None:
        return _image(image)
    if (reasoning := as_mapping(part.get("reasoningContent"))) is not None:
        told = as_mapping(reasoning.get("reasoningText")) or {}
        return Block(
            type="thinking",
            thinking=as_text(told.get("text")),
            thinking_signature=as_text(told.get("signature")),
        )
    return Block(type=next(iter(part), ""), content=part)


def _image(image: JsonObject) -> Block:
    source = as_mapping(image.get("source")) or {}
    kind = as_text(image.get("format"))
    return Block(
        type="image", image_base64=as_text(source.get("bytes")), media_type=f"image/{kind}" if kind else ""
    )


def _result_text(part: JsonObject) -> str:
    return as_text(part.get("text")) or compact(part.get("json"))
