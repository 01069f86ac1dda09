"""The InvokeModel families that answer in the form of OpenAI Chat Completions.

Jamba, gpt-oss, Qwen and Writer send it as it is. Mistral's chat and DeepSeek's text call
the finish reason ``stop_reason``, and Mistral's streamed choices carry ``message`` where
others carry ``delta``. Names: the model pages of the Bedrock user guide.
"""

from collections.abc import Sequence

from msgspec import json

from capture import jsontext
from capture.dialects.fold import RequestFacts
from capture.dialects.members import as_list, as_mapping
from capture.dialects.openai_chat import ChatFold
from capture.turn import Ending, JsonObject, Refused, Turn


class BedrockChatFold:
    """Folds the chunks of one answer, or one answer object."""

    __slots__ = ("_chat",)

    def __init__(self, request: RequestFacts) -> None:
        self._chat = ChatFold(request)

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of chunks."""
        self._chat.events(names, [data if b'"delta"' in data else _renamed(data, "delta") for data in datas])

    def document(self, body: bytes) -> None:
        """Fold an answer object."""
        self._chat.document(_renamed(body, "message"))

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        return self._chat.turn(ending)


def _renamed(data: bytes, message: str) -> bytes:
    """The object with its choices' members under OpenAI's names, where they have others."""
    if b'"stop_reason"' not in data and b'"message"' not in data:
        return data
    try:
        given = as_mapping(jsontext.decode(data))
    except jsontext.JsonError:
        return data
    if given is None:
        return data
    choices = [_choice(as_mapping(choice) or {}, message) for choice in as_list(given.get("choices"))]
    return json.encode({**given, "choices": choices})


def _choice(choice: JsonObject, message: str) -> JsonObject:
    renamed = {**choice, "finish_reason": choice.get("finish_reason") or choice.get("stop_reason")}
    if "message" in renamed:
        renamed[message] = renamed.pop("message")
    return renamed
