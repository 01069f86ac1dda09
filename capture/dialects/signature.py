"""Whose format an answer really has, by its first event.

Behind a translating gateway the request can speak one format and the answer another:
an ``EnvoyExtensionPolicy`` puts capture after the gateway's own filter, where the
request is still the client's and the answer already the provider's (``envoy.md`` §3).
The formats that gateways translate between say their name in the first event.
"""

import re
from typing import Final

from capture.turn import Dialect

_HEAD_BYTES: Final = 2048

# The formats that clients of a translating gateway speak. A Responses request is held to
# the contract, which refuses an answer that is none (``behaviour.md`` §7).
_TRANSLATED: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_CHAT})

_SIGNATURES: Final = {
    Dialect.ANTHROPIC_MESSAGES: re.compile(rb'"type"\s*:\s*"message(?:_start)?"'),
    Dialect.OPENAI_RESPONSES: re.compile(
        rb'"type"\s*:\s*"response\.(?:created|queued|in_progress)"|"object"\s*:\s*"response"'
    ),
    Dialect.OPENAI_CHAT: re.compile(rb'"object"\s*:\s*"chat\.completion(?:\.chunk)?"'),
    Dialect.OPENAI_COMPLETIONS: re.compile(rb'"object"\s*:\s*"text_completion"'),
}


def spoken(first: bytes, declared: Dialect) -> Dialect:
    """The dialect of an answer whose first event (or whole document) is ``first``:
    ``declared``, unless gateways translate that one and another's signature is there.
    """
    head = first[:_HEAD_BYTES]
    if declared not in _TRANSLATED or _SIGNATURES[declared].search(head):
        return declared
    # A chunk of text may quote anything: only a top-level member this early counts.
    top = head.partition(b'"content"')[0].partition(b'"output"')[0]
    return next((dialect for dialect, mark in _SIGNATURES.items() if mark.search(top)), declared)
