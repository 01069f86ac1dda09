"""What people see of a request: its label, and an estimate of its size in tokens."""

from collections.abc import Iterable
from typing import Final

from capture.requests.harness import is_injected, strip_tags
from capture.requests.request import Request

LABEL_CHARACTERS: Final = 200
_CHARACTERS_A_TOKEN: Final = 4


def label(request: Request) -> str:
    """The first thing the user said: one line of at most 200 characters, empty when there is none.

    Injected context is passed over. A request of nothing else is labelled with that.
    """
    said = [
        block.text
        for message in request.messages
        if message.role == "user" and not is_injected(message.role, message.blocks)
        for block in message.blocks
        if block.type in {"text", ""}
    ]
    return _first_line(map(strip_tags, said)) or _first_line(said)


def _first_line(texts: Iterable[str]) -> str:
    lines = (" ".join(text.split())[:LABEL_CHARACTERS] for text in texts)
    return next((line for line in lines if line), "")


def estimate_tokens(text: str) -> int:
    """About four characters a token: for providers that send no usage, and marked as an estimate."""
    return -(-len(text) // _CHARACTERS_A_TOKEN)
