"""The provider-neutral view of a turn (DESIGN §6): what the API and ``steno reduce`` show."""

from dataclasses import asdict, dataclass, fields
from typing import Final

from capture.turn import Choice, ProviderError, ToolCall, Turn, Usage

_USAGE_MEMBERS: Final = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFacts:
    """What the view says that the response body does not.

    ``request_model`` is the request's (body or path): the model when the response names none.
    """

    provider: str
    endpoint: str
    stream: bool
    request_model: str = ""


def view(turn: Turn, facts: ViewFacts) -> dict[str, object]:
    """Render the turn as a JSON object. Top-level members are those of the first choice."""
    answer = turn.choices[0]
    rendered: dict[str, object] = {
        "provider": facts.provider,
        "dialect": turn.dialect.value,
        "endpoint": facts.endpoint,
        "model": turn.model or facts.request_model or None,
        "response_id": turn.response_id,
        "stream": facts.stream,
        "text": answer.text,
        "thinking": answer.thinking,
        "tool_calls": [_tool_call(call) for call in answer.tool_calls],
        "result": answer.result.value,
        "stop_reason": answer.stop_reason,
        "usage": _usage(turn.usage),
        "partial": turn.partial,
        "provider_error": _error(turn.provider_error),
        "diagnostics": [
            {"damage": item.damage.value, "count": item.count, "detail": item.detail}
            for item in turn.diagnostics
        ],
    }
    if answer.refusal is not None:
        rendered["refusal"] = answer.refusal
    if len(turn.choices) > 1:
        rendered["choices"] = [_choice(choice) for choice in turn.choices]
    if turn.unparsed:
        rendered["unparsed"] = list(turn.unparsed)
    return rendered


def _tool_call(call: ToolCall) -> dict[str, object]:
    rendered: dict[str, object] = {"id": call.id, "name": call.name, "arguments": call.arguments}
    if call.raw_arguments is not None:
        rendered["raw_arguments"] = call.raw_arguments
    return rendered


def _choice(choice: Choice) -> dict[str, object]:
    return {
        "index": choice.index,
        "text": choice.text,
        "thinking": choice.thinking,
        "tool_calls": [_tool_call(call) for call in choice.tool_calls],
        "stop_reason": choice.stop_reason,
        "result": choice.result.value,
    }


def _usage(usage: Usage) -> dict[str, object]:
    return {name: getattr(usage, name) for name in _USAGE_MEMBERS}


def _error(error: ProviderError | None) -> dict[str, object] | None:
    return asdict(error) if error is not None else None
