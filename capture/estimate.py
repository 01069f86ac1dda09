"""How large a turn was, guessed, where its provider sent no token counts.

A guess stands beside the usage and never in it: numbers that were measured and numbers
that were not must stay apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from capture.dialects.json_text import compact
from capture.requests import Request, estimate_tokens
from capture.turn import Block, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Tokens, at about four characters each. Images and sound are not counted."""

    input_tokens: int
    output_tokens: int


def estimate(request: Request, turn: Turn) -> Estimate | None:
    """The guess for a turn without usage; None where the provider counted, or where an
    HTTP error stands in the place of an answer.
    """
    if turn.usage.input_tokens is not None or turn.usage.output_tokens is not None:
        return None
    if turn.provider_error is not None and turn.provider_error.where == "http":
        return None
    asked = [request.system, *(text for message in request.messages for text in _texts(message.blocks))]
    return Estimate(
        input_tokens=estimate_tokens("".join(asked)),
        output_tokens=estimate_tokens("".join(_texts(turn.blocks))),
    )


def _texts(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        yield from (block.text, block.thinking, block.tool_name, block.tool_output)
        if block.tool_input:
            yield compact(block.tool_input)
