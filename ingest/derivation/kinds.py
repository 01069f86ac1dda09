"""What a call was for, as far as its request tells.

Harnesses make calls that no person asked for: a title for the session, a summary before the
context is cut, a quick text such as a commit message. They are told by the words in which
harnesses ask, each a row of :data:`MARKERS`; a call that no row names is an ordinary turn of a
chat. A row is the opening of a line that people do not write to begin a question of their own:
a wrong ``chat_turn`` hides a helper call among the turns, while a wrong ``compaction`` hides a
turn, so in doubt it is a turn.
"""

import re
from enum import StrEnum, unique
from typing import Final

from msgspec import Struct

from capture.requests.request import Request, RequestMessage

_HEAD: Final = 2000
"""Characters of a text that are looked at: harnesses begin with what they want."""
_PROBES: Final = frozenset(("quota",))
"""What Claude Code asks for one token of, to see how much it may still use."""
_INSTRUCTING: Final = frozenset(("system", "developer"))


@unique
class Kind(StrEnum):
    """The kinds of a run."""

    CHAT_TURN = "chat_turn"
    TITLE_GENERATION = "title_generation"
    QUICKGEN = "quickgen"
    COMPACTION = "compaction"
    OTHER = "other"


@unique
class Place(StrEnum):
    """Where a marker stands."""

    SYSTEM = "system"
    """A line of the instructions."""
    ASKED = "asked"
    """A line of what the last message asks."""
    ALONE = "alone"
    """The beginning of what the only message asks: in the midst of a chat a person may ask the same."""


class Marker(Struct, frozen=True):
    """How a call of ``kind`` begins; ``source`` is the harness that asks so."""

    kind: Kind
    place: Place
    source: str
    opening: re.Pattern[str]


def _line(opening: str) -> re.Pattern[str]:
    """``opening`` at the beginning of a line, after any list mark or emphasis."""
    return re.compile(rf"^[ \t#*>-]{{0,12}}(?:{opening})", re.IGNORECASE | re.MULTILINE)


def _first(opening: str) -> re.Pattern[str]:
    """``opening`` at the beginning of the whole text: for words that anybody might use."""
    return re.compile(rf"\A\s{{0,8}}(?:{opening})", re.IGNORECASE)


_MAKE: Final = r"(?:generate|create|write|provide|suggest)s?"
_THREAD: Final = r"(?:conversations?|sessions?|threads?|chats?)\b(?:[:.,;]| history| between|\s*$)"
_TITLE, _QUICK, _COMPACT = Kind.TITLE_GENERATION, Kind.QUICKGEN, Kind.COMPACTION
_SYSTEM, _ASKED, _ALONE = Place.SYSTEM, Place.ASKED, Place.ALONE

MARKERS: Final = (
    Marker(_COMPACT, _ASKED, "Codex", _line("you are performing a context checkpoint compaction")),
    Marker(
        _COMPACT,
        _ASKED,
        "Claude Code, Roo Code",
        _line("your task is to create a detailed summary of the (?:recent portion of the )?conversation"),
    ),
    Marker(_COMPACT, _ASKED, "Cline", _line("the current conversation is rapidly running out of context")),
    Marker(
        _COMPACT, _ASKED, "opencode", _line("provide a detailed prompt for continuing our conversation above")
    ),
    Marker(
        _COMPACT,
        _SYSTEM,
        "Claude Code, opencode",
        _line("you are a helpful AI assistant tasked with summarizing conversations"),
    ),
    Marker(
        _COMPACT,
        _SYSTEM,
        "Copilot",
        _line("your task is to create a comprehensive, detailed summary of the entire conversation"),
    ),
    Marker(
        _COMPACT, _SYSTEM, "Gemini CLI", _line("you are the component that summarizes internal chat history")
    ),
    Marker(_COMPACT, _SYSTEM, "Pi", _line("you are a context summarization assistant")),
    Marker(_COMPACT, _SYSTEM, "Aider", _line(r"briefly\*? summarize this partial conversation")),
    Marker(
        _TITLE, _SYSTEM, "Claude Code", _line("analyze if this message indicates a new conversation topic")
    ),
    Marker(
        _TITLE, _SYSTEM, "Claude Code", _line("summarize this coding conversation in under 50 characters")
    ),
    Marker(_TITLE, _SYSTEM, "Claude Code", _line(r"generate a concise, sentence-case title \(\d-\d words\)")),
    Marker(_TITLE, _SYSTEM, "opencode", _line("you are a title generator")),
    Marker(_TITLE, _SYSTEM, "Copilot", _line("you are an expert in crafting pithy titles")),
    Marker(
        _TITLE, _SYSTEM, "AI SDK's chat", _line("you will generate a short title based on the first message")
    ),
    Marker(
        _TITLE,
        _SYSTEM,
        "in these words",
        _first(
            rf"(?:you are an? [^.\n]{{0,60}}that )?{_MAKE} [^.\n]{{0,60}}\btitles?\b[^.\n]{{0,60}}"
            r"\b(?:conversations?|(?:coding |chat )?sessions?|chat history|threads?)\b"
        ),
    ),
    Marker(
        _TITLE,
        _ASKED,
        "Claude Code",
        _line(r"please write a \d{1,2}-\d{1,2} word title for the following conversation"),
    ),
    Marker(
        _TITLE, _ASKED, "Zed", _line(r"generate a concise \d-\d word title for this conversation, omitting")
    ),
    Marker(_TITLE, _ASKED, "Open WebUI", _line(r"task:\s{0,8}generate a concise, \d-\d word title")),
    Marker(
        _TITLE,
        _ALONE,
        "in these words",
        _first(
            r"(?:please )?(?:based on the (?:following|recent) [^\n]{0,80}\bconversation\b[^\n,]{0,60}, )?"
            rf"{_MAKE} [^.\n]{{0,60}}\btitle\b[^.\n]{{0,60}}\b(?:this|the following|the) {_THREAD}"
        ),
    ),
    Marker(
        _QUICK, _SYSTEM, "Claude Code", _line("extract any file paths that this command reads or modifies")
    ),
    Marker(_QUICK, _SYSTEM, "Claude Code", _line("claude code (?:code )?bash command prefix detection")),
    Marker(
        _QUICK,
        _SYSTEM,
        "Copilot",
        _line("you are an AI programming assistant, helping a software developer to come with the best git"),
    ),
    Marker(_QUICK, _SYSTEM, "Copilot", _line("you are an expert in crafting pithy branch names")),
    Marker(
        _QUICK,
        _SYSTEM,
        "Aider",
        _line("you are an expert software engineer that generates concise, one-line git commit messages"),
    ),
    Marker(
        _QUICK,
        _ASKED,
        "Open WebUI",
        _line(
            r"task:\s{0,8}(?:generate 1-3 broad tags categorizing|suggest 3-5 relevant follow-up questions)"
        ),
    ),
)
"""Who asks for what in which words. The first that fits decides."""


def kind_of(request: Request, max_tokens: object) -> Kind:
    """The kind of call; ``max_tokens`` is the request's own limit, if it has one.

    Only compaction comes with tools, because it sends the conversation as it stands.
    """
    if not request.messages:
        return Kind.OTHER
    talk = [message for message in request.messages if message.role not in _INSTRUCTING]
    asked = _asked(talk[-1]) if talk else ""
    if max_tokens == 1 and asked in _PROBES:
        return Kind.OTHER
    texts = {_SYSTEM: _system(request), _ASKED: asked, _ALONE: asked if len(talk) == 1 else ""}
    for marker in MARKERS:
        if marker.kind is not _COMPACT and request.tool_names:
            continue
        if marker.opening.search(texts[marker.place]):
            return marker.kind
    return Kind.CHAT_TURN


def _system(request: Request) -> str:
    """The beginnings of the instructions, wherever the dialect has them."""
    said = [_text(message) for message in request.messages[:3] if message.role in _INSTRUCTING]
    return "\n".join([request.system[:_HEAD], *said]).lstrip()


def _asked(message: RequestMessage) -> str:
    """What a message asks: nothing where the assistant speaks."""
    return "" if message.role in ("assistant", "model") else _text(message)


def _text(message: RequestMessage) -> str:
    """The beginnings of a message's texts; results of tools are not said by anybody."""
    return "\n".join(block.text[:_HEAD] for block in message.blocks if block.type == "text")
