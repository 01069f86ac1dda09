"""What coding harnesses put into messages that the user did not write.

Clocks, reminders and lists of skills drift between two sendings of one conversation.
The hash and the label of a turn leave them out (``behaviour.md`` §8). Every function
is linear in its text: a client chooses what stands in it.
"""

import re
from collections.abc import Iterable
from typing import Final

from capture.turn import Block

STRIPPED_TAGS: Final = (
    "system-reminder",
    "command-name",
    "command-message",
    "command-args",
    "local-command-stdout",
    "local-command-stderr",
    "local-command-caveat",
    "session",
    "conversation",
    "new-diagnostics",
    "task-notification",
    "status",
    "summary",
    "transcript",
    "event",
    "tool-use-id",
    "output-file",
    "task-id",
    "environment_context",
)
"""Tags whose spans are removed, in the order of removal."""

INJECTED_OPENINGS: Final = (
    "# MCP Server Instructions",
    "The following skills are available",
    "Plan mode is active",
    "Exited Plan Mode",
    "## Exited Plan Mode",
    "## Exit Plan Mode",
    "## Plan Mode",
    "[SYSTEM NOTIFICATION",
    "<user_claude_md>",
)
"""How the text of a message begins that is injected context as a whole."""

WHITE_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space property. ``str.strip()`` alone would take U+001C to U+001F too."""

_BLANK_LINES: Final = re.compile(r"\n{2,}")


def strip_tags(text: str) -> str:
    """Remove every span of every stripped tag; a tag without its close takes the rest."""
    for tag in STRIPPED_TAGS:
        if "<" not in text:
            break
        text = _strip_tag(text, f"<{tag}>", f"</{tag}>")
    return text


def _strip_tag(text: str, opening: str, closing: str) -> str:
    """Remove the spans of one tag until none is left.

    Joining what stood around a span can spell a new opening, which counts as well.
    Looking for it only where the two parts meet keeps this linear.
    """
    kept: list[_Range] = []
    at = 0
    while True:
        straddling = _overlap(text, kept, at, opening)
        if straddling:
            _drop_tail(kept, straddling)
            start = at + len(opening) - straddling
        else:
            found = text.find(opening, at)
            if found < 0:
                kept.append((at, len(text)))
                break
            if found > at:
                kept.append((at, found))
            start = found + len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        at = end + len(closing)
    return "".join(text[first:last] for first, last in kept)


_Range = tuple[int, int]
"""From and to where a kept part stands in the text: shortening one copies nothing."""


def _overlap(text: str, kept: list[_Range], at: int, opening: str) -> int:
    """How many characters of ``opening`` end what was kept, when ``text[at:]`` has the others."""
    wanted = len(opening) - 1
    tail = ""
    for first, last in reversed(kept):
        tail = text[max(first, last - wanted) : last] + tail
        if len(tail) >= wanted:
            break
    # An opening has one "<", its first character, so only the last one kept can begin it.
    begun = tail[tail.rfind("<") :] if "<" in tail else ""
    if begun and opening.startswith(begun) and text.startswith(opening[len(begun) :], at):
        return len(begun)
    return 0


def _drop_tail(kept: list[_Range], count: int) -> None:
    while count:
        first, last = kept.pop()
        if last - first > count:
            kept.append((first, last - count))
            return
        count -= last - first


def normalise(text: str) -> str:
    """Fold white space that carries no meaning: line ends, blanks before them, blank lines, both ends."""
    text = text.replace("\r\n", "\n")
    if " \n" in text or "\t\n" in text:
        *lines, last = text.split("\n")
        text = "\n".join((*(line.rstrip(" \t") for line in lines), last))
    if "\n\n" in text:
        text = _BLANK_LINES.sub("\n", text)
    return text.strip(WHITE_SPACE)


def is_injected(role: str, blocks: Iterable[Block]) -> bool:
    """Whether a whole message is injected context: it is hashed, but nothing follows it."""
    if role not in {"user", "system"}:
        return False
    texts: list[str] = []
    for block in blocks:
        if block.type not in {"text", ""}:
            return False
        texts.append(block.text)
    return "".join(texts).strip(WHITE_SPACE).startswith(INJECTED_OPENINGS)
