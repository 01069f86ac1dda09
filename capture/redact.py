"""What must not leave the process in clear: the stage every turn passes before marshalling.

Today: credentials in headers and in the query of a path. Bodies pass unchanged; the
stage is where their rules will live.
"""

import re
from collections.abc import Mapping
from typing import Final

REDACTED: Final = "[redacted]"

_SECRET_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-amz-security-token",
        "x-auth-token",
        "x-functions-key",
        "ocp-apim-subscription-key",
    }
)
_SECRET_HEADER_WORDS: Final = re.compile(r"api-?key|token|secret|password|credential|signature")

# Gemini sends its key as ?key=; presigned AWS and Azure URLs carry signatures.
_SECRET_QUERY: Final = re.compile(
    r"(?i)([?&;](?:key|api[-_]?key|access[-_]?token|token|auth|sig|signature|password|secret|code"
    r"|x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature|x-goog-credential)=)[^&;#]*"
)


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """The headers (names in lower case) with every credential's value replaced."""
    return {name: REDACTED if _is_secret(name) else value for name, value in given.items()}


def path(given: str) -> str:
    """The path with the values of credential parameters replaced in its query."""
    return _SECRET_QUERY.sub(rf"\1{REDACTED}", given)


def _is_secret(name: str) -> bool:
    return name in _SECRET_HEADERS or _SECRET_HEADER_WORDS.search(name) is not None
