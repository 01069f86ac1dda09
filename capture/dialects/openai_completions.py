"""OpenAI Completions (legacy), streamed and one-shot: a chat answer of text alone.

A choice carries ``text`` where a chat choice carries a message; everything else
(choices by index, usage, errors, ``[DONE]``) is the same, so the fold is too.
"""

from typing import ClassVar

from capture.dialects.openai_chat import ChatFold
from capture.turn import Dialect


class CompletionsFold(ChatFold):
    """Folds the chunks of one completion, or one completion object."""

    __slots__ = ()

    dialect: ClassVar[Dialect] = Dialect.OPENAI_COMPLETIONS
