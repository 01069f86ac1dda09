"""The contract's content-encoding cases (``behaviour.md`` §3), each as it is and byte by byte.

Where we differ from the reference on purpose, ``DIFFERENT`` has our expectation.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from capture.coding import CodingError, decode, decoder
from tests.paths import CORPORA, needs_shared
from tests.unit.capture.coders import ENCODERS

Json = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """What we answer instead, and why."""

    expect: Json
    reason: str


DIFFERENT: Final = {
    "error-unsupported-encoding": Difference(
        expect={"outcome": "error", "error": {"class": "undecodable"}},
        reason="its coding is br, which we undo; its body is plain JSON, which is no brotli stream",
    ),
}

CASES: Final = sorted((CORPORA / "content-encoding" / "cases").glob("*.json"))
LARGE: Final = frozenset({"limit-decoded-at-cap", "limit-decoded-over-cap"})


def load(path: Path) -> Json:
    case: Json = json.loads(path.read_text())
    return case


def plaintext(recipe: Json) -> bytes:
    match recipe:
        case {"utf8": str(text)}:
            return text.encode()
        case {"repeat_utf8": {"text": str(text), "count": int(count)}}:
            return text.encode() * count
        case {"repeat_byte": {"byte": int(byte), "count": int(count)}}:
            return bytes((byte,)) * count
        case _:
            raise AssertionError(f"unknown recipe {recipe}")


def split(text: bytes, members: int) -> list[bytes]:
    size = len(text) // members
    return [text[i * size : (i + 1) * size] for i in range(members - 1)] + [text[(members - 1) * size :]]


def cut(body: bytes, truncate: Json) -> bytes:
    match truncate:
        case {"drop_tail_bytes": int(count)}:
            return body[:-count]
        case {"keep_head_bytes": int(count)}:
            return body[:count]
        case {"keep_head_ratio": [int(numerator), int(denominator)]}:
            return body[: len(body) * numerator // denominator]
        case _:
            raise AssertionError(f"unknown truncation {truncate}")


def build(body: Json) -> tuple[bytes, bytes]:
    """The encoded body and the plain text behind it (empty when the case has none)."""
    if "bytes_b64" in body:
        return base64.b64decode(body["bytes_b64"]), b""
    recipe: Json = body["build"]
    text = plaintext(recipe["plaintext"])
    parts = split(text, recipe.get("members", 1))
    for name in recipe["layers"]:
        parts = [ENCODERS[name](part) for part in parts]
    encoded = b"".join(parts)
    return (cut(encoded, recipe["truncate"]) if "truncate" in recipe else encoded), text


def assert_text(text: bytes, plain: bytes, decoded: Json) -> None:
    match decoded:
        case {"equals_plaintext": True}:
            assert text == plain
        case {"bytes_b64": str(expected)}:
            assert text == base64.b64decode(expected)
        case {"nonempty_prefix_of_plaintext": True}:
            assert text
            assert plain.startswith(text)
        case _:
            raise AssertionError(f"unknown expectation {decoded}")


def bytewise(encoding: str, body: bytes) -> tuple[bytes, bool]:
    content = decoder(encoding)
    text = b"".join(content.feed(body[i : i + 1]) for i in range(len(body))) + content.finish()
    return text, content.truncated


@needs_shared
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = load(path)
    difference = DIFFERENT.get(path.stem)
    expect: Json = difference.expect if difference else case["expect"]
    body, plain = build(case["body"])
    ways = [decode] if path.stem in LARGE else [decode, bytewise]
    for way in ways:
        if expect["outcome"] == "error":
            with pytest.raises(CodingError) as caught:
                way(case["encoding"] or "", body)
            assert caught.value.reason == expect["error"]["class"]
            assert all(part in str(caught.value) for part in expect["error"].get("message_contains", []))
        else:
            text, truncated = way(case["encoding"] or "", body)
            assert_text(text, plain, expect["decoded"])
            assert truncated == (expect["outcome"] == "salvaged")


@needs_shared
def test_every_difference_names_a_case_of_the_contract() -> None:
    assert DIFFERENT.keys() <= {path.stem for path in CASES}
    assert len(CASES) == 27


RECORDED: Final = (CORPORA / "recordings-expected.jsonl").read_text().splitlines() if CORPORA.is_dir() else []


@needs_shared
def test_the_contracts_recorded_responses_decode() -> None:
    """The 17 responses, gzip as they came off the wire, give the text that the reference read."""
    folders = {path.parent.name: path.parent for path in CORPORA.glob("recordings/**/meta.json")}
    assert len(RECORDED) == 17
    for expected in map(json.loads, RECORDED):
        folder = folders[Path(expected["case"]).name]
        encoding: str = load(folder / "meta.json")["content_encoding"]
        text, truncated = decode(encoding, (folder / "response.sse").read_bytes())
        assert hashlib.sha256(text).hexdigest() == expected["decoded_response_sha256"]
        assert not truncated
