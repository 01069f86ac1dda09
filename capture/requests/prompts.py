"""Requests that are one prompt: legacy Completions and the prompt families of Bedrock."""

from capture.dialects.members import as_list, as_text
from capture.requests.fields import as_flag, text_block, user_text
from capture.requests.request import Request, RequestMessage
from capture.turn import JsonObject


def read_completions(body: JsonObject) -> Request:
    """Read a Completions request: a prompt, or a list of prompts. Token numbers are no text."""
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else as_list(prompt)
    blocks = tuple(text_block(text) for text in prompts if isinstance(text, str))
    return Request(
        model=as_text(body.get("model")),
        stream=as_flag(body.get("stream")),
        messages=(RequestMessage(role="user", blocks=blocks),),
    )


def read_prompt(body: JsonObject) -> Request:
    """Read a Titan (``inputText``) or other prompt of Bedrock's InvokeModel."""
    prompt = as_text(body.get("prompt")) or as_text(body.get("inputText"))
    return Request(stream=as_flag(body.get("stream")), messages=(user_text(prompt),))
