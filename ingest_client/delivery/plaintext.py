"""Text from a stranger, made fit for a log line, an attempt record and a dead letter.

An ingest service may echo what it was sent: our own token, a header, part of a turn. So
its words are cut first, then cleaned of control characters (a newline forges log lines,
an escape sequence drives terminals), then redacted. This is the last guard; what a turn
says was redacted before it was spooled.
"""

import re
from collections.abc import Iterable
from typing import Final

MAX_CHARS: Final = 500

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_REDACTED: Final = "[redacted]"
_SECRETS: Final = re.compile(
    r"""
      (?<=bearer\s)[A-Za-z0-9._~+/=-]{6,}
    | (?<=basic\s)[A-Za-z0-9+/=]{6,}
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?      # JSON Web Token
    | \b(?:sk|pk|rk|xox[abprs]|gh[opsru]|glpat|github_pat)[-_][A-Za-z0-9_-]{10,}
    | \bAKIA[0-9A-Z]{12,}\b
    | \bAIza[A-Za-z0-9_-]{20,}
    | (?<=://)[^\s/@:]+:[^\s/@]+(?=@)                                  # user:password in a URL
    | (?:api[-_]?key|token|secret|password|authorization|cookie)["']?\s*[:=]\s*["']?\S{6,}
    """,
    re.IGNORECASE | re.VERBOSE,
)


def readable(raw: bytes | str, secrets: Iterable[str] = (), limit: int = MAX_CHARS) -> str:
    """One line of at most ``limit`` characters, without control characters and known secrets.

    ``secrets`` are texts that must not appear whatever their shape (our own token).
    Bytes are read as UTF-8, damage becomes U+FFFD.
    """
    # Redact before the cut, or half a secret survives at the edge; but look at little.
    text = raw[: limit * 8].decode("utf-8", "replace") if isinstance(raw, bytes) else raw[: limit * 8]
    text = _UNPRINTABLE.sub(" ", text)
    for secret in secrets:
        if secret:
            text = text.replace(secret, _REDACTED)
    text = _SECRETS.sub(_REDACTED, text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
