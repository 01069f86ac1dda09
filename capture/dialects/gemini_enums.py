"""Enum numbers of Gemini answers, written as their names.

A client may ask for ``enum-encoding=int``; Google's REST clients do. The two services
number the same words differently: ``google.ai.generativelanguage.v1beta`` (Gemini API)
and ``google.cloud.aiplatform.v1`` (Vertex), ``Candidate.FinishReason`` and
``PromptFeedback.BlockReason`` / ``BlockedReason``. Position is number.
"""

from collections.abc import Sequence
from typing import Final

_GEMINI_FINISH: Final = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "IMAGE_SAFETY",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_OTHER",
    "NO_IMAGE",
    "IMAGE_RECITATION",
)
_VERTEX_FINISH: Final = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "IMAGE_OTHER",
    "UNEXPECTED_TOOL_CALL",
    "NO_IMAGE",
)
_GEMINI_BLOCK: Final = (
    "BLOCK_REASON_UNSPECIFIED",
    "SAFETY",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "IMAGE_SAFETY",
)
_VERTEX_BLOCK: Final = (
    "BLOCKED_REASON_UNSPECIFIED",
    "SAFETY",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "MODEL_ARMOR",
)


def is_vertex(path: str) -> bool:
    """Vertex names a project or a publisher in the path; the Gemini API only a model."""
    return "/projects/" in path or "/publishers/" in path


def finish_reason(value: object, *, vertex: bool) -> str:
    """``finishReason`` as a word; empty when none was sent. A number of no name stays a number."""
    return _word(value, _VERTEX_FINISH if vertex else _GEMINI_FINISH)


def block_reason(value: object, *, vertex: bool) -> str:
    """``blockReason`` as a word; empty when none, or the unspecified one, was sent."""
    word = _word(value, _VERTEX_BLOCK if vertex else _GEMINI_BLOCK)
    return "" if word.endswith("_UNSPECIFIED") else word


def _word(value: object, names: Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        return ""
    return names[value] if 0 <= value < len(names) else str(value)
