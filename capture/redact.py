"""What must not leave the process in clear: the stage every turn passes before marshalling.

Today: credentials in headers, in the query of a path, and in text that could not be parsed. Bodies
pass unchanged; the stage is where their rules will live.
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
    r"|subscription[-_]?key|client[-_]?secret|x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature|x-goog-credential)=)[^&;#]*"
)


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """The headers (names in lower case) with every credential's value replaced, also in the query of
    a value that holds a path; pseudo-headers are left out.
    """
    return {
        name: REDACTED if _is_secret(name) else path(value)
        for name, value in given.items()
        if not name.startswith(":")
    }


def path(given: str) -> str:
    """The path with the values of credential parameters replaced in its query."""
    return _SECRET_QUERY.sub(rf"\1{REDACTED}", given)


def _is_secret(name: str) -> bool:
    return name in _SECRET_HEADERS or _SECRET_HEADER_WORDS.search(name) is not None


_LONGEST: Final = 16 * 1024
_SLICE: Final = 256 * 1024


def _word(*starts: str) -> str:
    r"""Any of these, at the start of a word. The look-behind stands after the first letter (and
    no ``\b`` before it), so that the search can skip to letters that begin one.
    """
    return "(?:" + "|".join(rf"{start[0]}(?<!\w{start[0]}){start[1:]}" for start in starts) + ")"


def _cases(*words: str) -> str:
    """Each word in the cases it comes in: ``(?i:…)`` would make the search slow."""
    return "(?:" + "|".join(form for word in words for form in (word, word.upper(), word.capitalize())) + ")"


_SECRET_TEXT: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]{0,12288}(?:-----END [A-Z ]{0,32}PRIVATE KEY-----)?|"
    # A JWT: header, claims and (often) signature, each base64url.
    + _word("eyJ")
    + r"[\w-]{8,4096}\.[\w-]{8,8192}(?:\.[\w-]{0,1024})?|"
    # What OpenAI, Anthropic, OpenRouter, Stripe, Groq, Hugging Face, Replicate, npm, GitHub, xAI, Perplexity,
    # GitLab, Slack, Google, AWS and SendGrid give out begins with a word of their own.
    + _word(*(f"{name}[-_]" for name in ("sk", "rk", "pk")))
    + r"[\w-]{16,512}|"
    + _word(*(f"{name}_" for name in ("gsk", "hf", "r8", "npm", "gh[pousr]", "github_pat")))
    + r"\w{16,512}|"
    + _word(*(f"{name}-" for name in ("xai", "pplx", "glpat", "xox[abeoprs]")))
    + r"[\w-]{16,512}|"
    + _word("AIza", r"ya29\.")
    + r"[\w-]{16,1024}|"
    + _word("AKIA", "ASIA", "ABIA", "ACCA")
    + r"[0-9A-Z]{12,32}|"
    + _word(r"SG\.")
    + r"[\w-]{12,64}\.[\w-]{12,128}|"
    # "Authorization: Bearer …": the scheme stays, what follows goes.
    + r"(?P<scheme>"
    + _cases("bearer", "basic")
    + r"\s{1,4})[\w.~+/=-]{12,8192}|"
    # api_key = …, "password": "…", with or without (escaped) quotes. A bare JSON number stays: the
    # text would be no JSON without its digits.
    + r"(?P<name>"
    + _cases("key", "token", "secret", "password", "passwd", "passphrase", "credential")
    + r"(?:_\w{1,16})?(?:\\?[\"'])?\s{0,4}(?:=\s{0,4}|:\s{0,4}(?:\\?[\"']|(?=[A-Za-z])))(?:\\?[\"'])?)"
    + r"[^\s\"'\\,;&{}\[\]]{6,4096}"
)


def text(given: str) -> str:
    """The text with what looks like a credential replaced: the shapes above, and values that a
    name ending like ``api_key`` or ``password`` stands before. JSON stays JSON.

    This is the text mode for what could not be parsed. Reads in slices, so that in a thread it
    never holds the interpreter for long.
    """
    kept: list[str] = []
    at = 0
    while at < len(given):
        end = min(at + _SLICE, len(given))
        for match in _SECRET_TEXT.finditer(given, at, end + _LONGEST):
            if match.start() >= end:
                break
            kept += (given[at : match.start()], match["scheme"] or match["name"] or "", REDACTED)
            at = match.end()
        end = max(at, end)
        kept.append(given[at:end])
        at = end
    return "".join(kept)
