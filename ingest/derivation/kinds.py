"""What a call was for, as far as its request tells.

Coding harnesses make calls that no user asked for: a title for the session, a summary
before the context is cut, a quick text. They are told by what they ask, in words that the
harnesses use; a call that none of the rows below names is an ordinary turn of a chat.
"""

import re
from enum import StrEnum, unique
from typing import Final

from capture.requests.request import Request

_HEAD: Final = 4000
"""Characters of each text that are looked at."""
_QUICK_TOKENS: Final = 512


@unique
class Kind(StrEnum):
    """The kinds of a run."""

    CHAT_TURN = "chat_turn"
    TITLE_GENERATION = "title_generation"
    QUICKGEN = "quickgen"
    COMPACTION = "compaction"
    OTHER = "other"


_TITLE: Final = re.compile(
    r"\b(?:generate|write|create|suggest|give|provide|come up with|extract)\b[^.\n]{0,80}\btitle\b"
    r"|\bisNewTopic\b|\bconversation in under 50 characters\b",
    re.IGNORECASE,
)
_COMPACTION: Final = re.compile(
    r"\bsummary of (?:the|this|our) conversation\b|\bcontext checkpoint compaction\b"
    r"|\bsummarize (?:the|this|our) (?:conversation|session) so far\b"
    r"|\bcompact(?:ing|ion)? the conversation\b",
    re.IGNORECASE,
)


def kind_of(request: Request, max_tokens: object) -> Kind:
    """The kind of call; ``max_tokens`` is the request's own limit, if it has one."""
    if not request.messages:
        return Kind.OTHER
    asked = last_text(request)[:_HEAD]
    if _COMPACTION.search(asked):
        return Kind.COMPACTION
    if request.tool_names:
        return Kind.CHAT_TURN
    if _TITLE.search(f"{request.system[:_HEAD]}\n{asked}"):
        return Kind.TITLE_GENERATION
    brief = isinstance(max_tokens, int) and 0 < max_tokens <= _QUICK_TOKENS
    return Kind.QUICKGEN if brief and request.system and len(request.messages) == 1 else Kind.CHAT_TURN


def last_text(request: Request) -> str:
    """The text of the last message."""
    return "\n".join(block.text for block in request.messages[-1].blocks if block.text)
