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
_BLOCKS: Final = 64
"""Blocks of a message that are looked at, the last: a hostile one has 100,000."""
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
    """How a call of ``kind`` begins; ``source`` is the harness that asks so.

    ``word`` is in every text that ``opening`` finds, in small letters: most texts are done with it.
    """

    kind: Kind
    place: Place
    source: str
    word: str
    opening: re.Pattern[str]


def _line(opening: str) -> re.Pattern[str]:
    """``opening`` at the beginning of a line, after any list mark or emphasis."""
    return re.compile(rf"^[ \t#*>-]{{0,12}}(?:{opening})", re.MULTILINE)


def _first(opening: str) -> re.Pattern[str]:
    """``opening`` at the beginning of the whole text: for words that anybody might use."""
    return re.compile(rf"\A\s{{0,8}}(?:{opening})")


def _plain(kind: Kind, place: Place, source: str, words: str) -> Marker:
    """A line that begins with just these words."""
    return Marker(kind, place, source, words, _line(re.escape(words)))


_MAKE: Final = r"(?:generate|create|write|provide|suggest)s?"
_THREAD: Final = r"(?:conversations?|sessions?|threads?|chats?)\b(?:[:.,;]| history| between|\s*$)"
_TITLES: Final = (
    rf"(?:you are an? [^.\n]{{0,60}}that )?{_MAKE} [^.\n]{{0,60}}\btitles?\b[^.\n]{{0,60}}"
    r"\b(?:conversations?|(?:coding |chat )?sessions?|chat history|threads?)\b"
)
_TITLE_OF: Final = (
    r"(?:please )?(?:based on the (?:following|recent) [^\n]{0,80}\bconversation\b[^\n,]{0,60}, )?"
    rf"{_MAKE} [^.\n]{{0,60}}\btitle\b[^.\n]{{0,60}}\b(?:this|the following|the) {_THREAD}"
)
_TITLE_FOR: Final = r"please write a \d{1,2}-\d{1,2} word title for the following conversation"
_ZED_TITLE: Final = r"generate a concise \d-\d word title for this conversation, omitting"
_CODING_TITLE: Final = r"generate a concise, sentence-case title \(\d-\d words\)"
_SUMMARY: Final = "your task is to create a detailed summary of the (?:recent portion of the )?conversation"
_SMALL: Final = (
    r"task:\s{0,8}(?:generate 1-3 broad tags categorizing|suggest 3-5 relevant follow-up questions)"
)
_TITLE, _QUICK, _COMPACT = Kind.TITLE_GENERATION, Kind.QUICKGEN, Kind.COMPACTION
_SYSTEM, _ASKED, _ALONE = Place.SYSTEM, Place.ASKED, Place.ALONE

MARKERS: Final = (
    _plain(_COMPACT, _ASKED, "Codex", "you are performing a context checkpoint compaction"),
    Marker(_COMPACT, _ASKED, "Claude Code, Roo Code", "a detailed summary of the", _line(_SUMMARY)),
    _plain(_COMPACT, _ASKED, "Cline", "the current conversation is rapidly running out of context"),
    _plain(_COMPACT, _ASKED, "opencode", "provide a detailed prompt for continuing our conversation above"),
    _plain(_COMPACT, _SYSTEM, "Claude Code", "you are a helpful ai assistant tasked with summarizing"),
    _plain(
        _COMPACT, _SYSTEM, "Copilot", "your task is to create a comprehensive, detailed summary of the entire"
    ),
    _plain(_COMPACT, _SYSTEM, "Gemini CLI", "you are the component that summarizes internal chat history"),
    _plain(_COMPACT, _SYSTEM, "Pi", "you are a context summarization assistant"),
    _plain(_COMPACT, _SYSTEM, "Aider", "briefly* summarize this partial conversation"),
    _plain(_TITLE, _SYSTEM, "Claude Code", "analyze if this message indicates a new conversation topic"),
    _plain(_TITLE, _SYSTEM, "Claude Code", "summarize this coding conversation in under 50 characters"),
    Marker(_TITLE, _SYSTEM, "Claude Code", "sentence-case title", _line(_CODING_TITLE)),
    _plain(_TITLE, _SYSTEM, "opencode", "you are a title generator"),
    _plain(_TITLE, _SYSTEM, "Copilot", "you are an expert in crafting pithy titles"),
    _plain(_TITLE, _SYSTEM, "AI SDK's chat", "you will generate a short title based on the first message"),
    Marker(_TITLE, _SYSTEM, "many", "title", _first(_TITLES)),
    Marker(_TITLE, _ASKED, "Claude Code", "word title for the following", _line(_TITLE_FOR)),
    Marker(_TITLE, _ASKED, "Zed", "word title for this conversation, omitting", _line(_ZED_TITLE)),
    Marker(
        _TITLE, _ASKED, "Open WebUI", "word title", _line(r"task:\s{0,8}generate a concise, \d-\d word title")
    ),
    Marker(_TITLE, _ALONE, "many", "title", _first(_TITLE_OF)),
    _plain(_QUICK, _SYSTEM, "Claude Code", "extract any file paths that this command reads or modifies"),
    _plain(_QUICK, _SYSTEM, "Claude Code", "claude code code bash command prefix detection"),
    _plain(_QUICK, _SYSTEM, "Claude Code", "claude code bash command prefix detection"),
    _plain(
        _QUICK,
        _SYSTEM,
        "Copilot",
        "you are an ai programming assistant, helping a software developer to come with the best git",
    ),
    _plain(_QUICK, _SYSTEM, "Copilot", "you are an expert in crafting pithy branch names"),
    _plain(
        _QUICK,
        _SYSTEM,
        "Aider",
        "you are an expert software engineer that generates concise, one-line git commit messages",
    ),
    Marker(_QUICK, _ASKED, "Open WebUI", "task:", _line(_SMALL)),
)
"""Who asks for what in which words (in small letters). The first that fits decides."""


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
        text = texts[marker.place]
        if marker.word in text and marker.opening.search(text):
            return marker.kind
    return Kind.CHAT_TURN


def _system(request: Request) -> str:
    """The beginnings of the instructions, in small letters, wherever the dialect has them."""
    said = [_text(message) for message in request.messages[:3] if message.role in _INSTRUCTING]
    return "\n".join([request.system[:_HEAD].lower(), *said]).lstrip()


def _asked(message: RequestMessage) -> str:
    """What a message asks: nothing where the assistant speaks."""
    return "" if message.role in ("assistant", "model") else _text(message)


def _text(message: RequestMessage) -> str:
    """The beginnings of a message's texts, in small letters; nobody says what a tool answers."""
    return "\n".join(
        block.text[:_HEAD] for block in message.blocks[-_BLOCKS:] if block.type == "text"
    ).lower()
