"""One choice of an OpenAI-family answer while its deltas arrive.

A one-shot message is one delta that says everything, so both forms take the same path
and give the same blocks. Thinking comes under four names; vendors repeat themselves
under several at once, so each name is collected apart and one of them is believed.
"""

from collections.abc import Iterator
from typing import Final, cast

from capture.dialects.json_text import text_of
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.pieces import Pieces, parse_arguments
from capture.stop_words import result_of
from capture.turn import Block, Choice, JsonObject, ToolCall

_NO_ID: Final = frozenset({"", "null"})
"""What stands for an absent call id (Mistral's own library writes the string)."""


def call_id(sent: object) -> str | None:
    """The id of a call as sent, or None when there is none."""
    given = as_text(sent)
    return None if given in _NO_ID else given


class Call:
    """A tool call while its fragments arrive."""

    __slots__ = ("_last", "custom", "fragments", "given", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.fragments = Pieces()
        self._last = ""
        self.given: JsonObject | None = None
        """Arguments sent as an object instead of as text."""
        self.custom = False
        """A custom tool: its input is text, not JSON."""

    def add(self, fragment: JsonObject) -> None:
        """Take a fragment, or a whole call. An id or name that came before stays."""
        custom = as_mapping(fragment.get("custom"))
        function = custom if custom is not None else as_mapping(fragment.get("function")) or {}
        self.custom = self.custom or custom is not None
        self.id = self.id or as_text(fragment.get("id"))
        self.add_function(function)

    def add_function(self, function: JsonObject) -> None:
        """Take the name and arguments part of a fragment (all of a legacy ``function_call``)."""
        self.name = self.name or as_text(function.get("name"))
        arguments = function.get("input" if self.custom else "arguments")
        if isinstance(arguments, str):
            if arguments:
                self.extend(arguments)
        elif arguments is not None:
            self.given = as_mapping(arguments)
            if self.given is None:
                self.fragments.append(text_of(arguments))

    def extend(self, arguments: str) -> None:
        """Take the next of the arguments' text."""
        self.fragments.append(arguments)
        self._last = arguments

    def is_followed_by(self, fragment: JsonObject) -> bool:
        """Whether ``fragment`` opens another call under this call's index.

        Gateways that translate whole calls number them all 0. Such a call does not repeat
        this one's id, has a name, and its arguments begin anew after complete ones.
        """
        other = as_text(fragment.get("id"))
        if (other and other == self.id) or not self.fragments:
            return False
        function = as_mapping(fragment.get("function")) or {}
        begins_anew = as_text(function.get("arguments")).lstrip().startswith("{")
        return bool(function.get("name")) and begins_anew and self._last.rstrip().endswith("}")

    def tool_call(self) -> ToolCall:
        """The call of the neutral view."""
        arguments, raw = self._parsed()
        return ToolCall(id=call_id(self.id), name=self.name, arguments=arguments, raw_arguments=raw)

    def block(self) -> Block:
        """The block of the contract: arguments that are no object keep the whole call instead."""
        arguments, raw = self._parsed()
        return Block(
            type="tool_use",
            tool_use_id=call_id(self.id) or "",
            tool_name=self.name,
            tool_input=arguments,
            content=self._item(raw) if raw is not None else None,
        )

    def _parsed(self) -> tuple[JsonObject | None, str | None]:
        if self.custom:
            return None, self.fragments.text()
        if self.given is not None and not self.fragments:
            return self.given, None
        return parse_arguments(self.fragments.text())

    def _item(self, raw: str) -> JsonObject:
        kind, text = ("custom", "input") if self.custom else ("function", "arguments")
        return {"id": self.id, "type": kind, kind: {"name": self.name, text: raw}}


class Answer:
    """One choice: what its deltas have said so far."""

    __slots__ = (
        "_audio",
        "_audio_texts",
        "_calls",
        "_details",
        "_images",
        "_legacy",
        "_open",
        "_parts",
        "_plain",
        "_reasoning",
        "_refusal",
        "_touched",
        "finish_reason",
        "index",
        "role",
        "text",
        "unknown",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.role = ""
        self.finish_reason = ""
        self.text = Pieces()
        self.unknown: list[object] = []
        """Content of kinds that have no place in a turn."""
        # Thinking, in the order of belief: reasoning_content, reasoning, reasoning_details, parts.
        self._plain = Pieces()
        self._reasoning: Pieces | None = None
        self._details: Pieces | None = None
        self._parts: Pieces | None = None
        self._refusal: Pieces | None = None
        self._calls: list[Call] = []
        self._open: dict[int, Call] = {}
        self._legacy: Call | None = None
        self._images: list[str] = []
        self._audio: dict[str, object] = {}
        self._audio_texts: dict[str, Pieces] = {}
        self._touched: set[Pieces] = set()

    # -- what arrives -----------------------------------------------------------

    def add_content(self, content: object) -> None:
        """Text, a list of parts (Mistral, Databricks), or an object (Cloudflare)."""
        if isinstance(content, str):
            self.text.append(content)
        elif isinstance(content, list):
            for part in cast("list[object]", content):
                self._add_part(part)
        elif content is not None:
            self.text.append(text_of(content))

    def add_thinking(self, reasoning_content: object, reasoning: object, details: object) -> None:
        """What one delta says of its thinking; once a name is believed, lower ones are not kept."""
        if isinstance(reasoning_content, str) and reasoning_content:
            self._plain.append(reasoning_content)
        elif isinstance(reasoning, str) and reasoning and not self._plain:
            self._reasoning = _append(self._reasoning, reasoning)
        elif details is not None and not self._plain and not self._reasoning:
            for text in _detail_texts(details):
                self._details = _append(self._details, text)

    def add_refusal(self, refusal: object) -> None:
        """A fragment of the refusal's words."""
        if isinstance(refusal, str) and refusal:
            self._refusal = _append(self._refusal, refusal)

    def add_calls(self, fragments: object) -> None:
        """Tool call fragments, by ``index``, else by position in the list."""
        for position, given in enumerate(as_list(fragments)):
            fragment = as_mapping(given)
            if fragment is None:
                continue
            index = as_int(fragment.get("index"))
            key = position if index is None else index
            call = self._open.get(key)
            text = _arguments_alone(fragment)
            if text and call is not None:
                call.extend(text)
            else:
                if call is None or call.is_followed_by(fragment):
                    call = self._open[key] = Call()
                    self._calls.append(call)
                call.add(fragment)
            self._touched.add(call.fragments)

    def add_function_call(self, function: object) -> None:
        """The legacy form: one call, without an id."""
        given = as_mapping(function)
        if given is None:
            return
        if self._legacy is None:
            self._legacy = Call()
            self._calls.append(self._legacy)
        self._legacy.add_function(given)
        self._touched.add(self._legacy.fragments)

    def add_media(self, audio: object, images: object) -> None:
        """Generated sound (its strings come in fragments) and images (OpenRouter)."""
        for name, value in (as_mapping(audio) or {}).items():
            if isinstance(value, str) and name != "id":
                self._audio_texts[name] = _append(self._audio_texts.get(name), value)
                self._touched.add(self._audio_texts[name])
            elif value is not None:
                self._audio[name] = value
        for image in as_list(images):
            url = as_mapping((as_mapping(image) or {}).get("image_url")) or {}
            self._images.append(as_text(url.get("url")))

    def _add_part(self, given: object) -> None:
        part = as_mapping(given)
        kind = as_text(part.get("type")) if part is not None else ""
        if isinstance(given, str):
            self.text.append(given)
        elif part is not None and kind == "text":
            self.text.append(as_text(part.get("text")))
        elif part is not None and kind == "refusal":
            self.add_refusal(part.get("refusal"))
        elif part is not None and kind in {"thinking", "reasoning"}:
            for text in _part_texts(part):
                self._parts = _append(self._parts, text)
        else:
            self.unknown.append(given)

    def settle(self) -> None:
        """Call once for each batch that touched this choice."""
        for pieces in (self.text, self._plain, self._reasoning, self._details, self._parts, self._refusal):
            if pieces is not None:
                pieces.settle()
        for pieces in self._touched:
            pieces.settle()
        self._touched.clear()

    # -- what it comes to -------------------------------------------------------

    def choice(self, *, partial: bool, failed: bool) -> Choice:
        """The choice of the neutral view."""
        calls = tuple(call.tool_call() for call in self._calls)
        refusal = self.refusal()
        word = self.finish_reason or None
        return Choice(
            index=self.index,
            text=self.text.text(),
            thinking=self.thinking(),
            refusal=refusal or None,
            tool_calls=calls,
            stop_reason=word,
            result=result_of(
                word, partial=partial, has_tool_calls=bool(calls), refused=bool(refusal), failed=failed
            ),
        )

    def blocks(self) -> tuple[Block, ...]:
        """The contract's blocks: thinking, text, refusal, media, the unknown whole, tool calls."""
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        thinking, text, refusal, audio = self.thinking(), self.text.text(), self.refusal(), self.audio()
        if thinking:
            yield Block(type="thinking", thinking=thinking)
        if text:
            yield Block(type="text", text=text)
        if refusal:
            yield Block(type="refusal", text=refusal)
        for url in self._images:
            yield Block(type="image", image_url=url)
        if audio is not None:
            yield Block(type="audio", content=audio)
        for content in self.unknown:
            kind = as_text((as_mapping(content) or {}).get("type"))
            yield Block(type=kind or "unparsed", content=content)
        for call in self._calls:
            yield call.block()

    def thinking(self) -> str:
        """The thinking in plain words, under the name that is believed."""
        for pieces in (self._plain, self._reasoning, self._details, self._parts):
            if pieces:
                return pieces.text()
        return ""

    def refusal(self) -> str:
        """The refusal's words."""
        return self._refusal.text() if self._refusal is not None else ""

    def audio(self) -> JsonObject | None:
        """The audio object with its fragments joined, or None."""
        if not self._audio and not self._audio_texts:
            return None
        return {**self._audio, **{name: pieces.text() for name, pieces in self._audio_texts.items()}}

    def unreadable_calls(self) -> list[str]:
        """The names of calls whose arguments are no JSON object, as they should be."""
        json_calls = [call.tool_call() for call in self._calls if not call.custom]
        return [call.name for call in json_calls if call.arguments is None]

    def is_empty(self) -> bool:
        """Whether nothing has been said yet."""
        said = self.text or self._refusal or self._calls or self.unknown
        return not (said or self.thinking() or self.audio())


def _append(pieces: Pieces | None, text: str) -> Pieces:
    if pieces is None:
        return Pieces(text)
    pieces.append(text)
    return pieces


def _arguments_alone(fragment: JsonObject) -> str:
    """The arguments of a fragment that has nothing else, as nearly all are; else empty."""
    function = as_mapping(fragment.get("function"))
    if function is None or fragment.get("id") or function.get("name"):
        return ""
    arguments = function.get("arguments")
    return arguments if isinstance(arguments, str) else ""


def _detail_texts(details: object) -> Iterator[str]:
    """OpenRouter's ``reasoning_details``: text or summary; encrypted ones have neither."""
    for detail in as_list(details):
        given = as_mapping(detail) or {}
        text = as_text(given.get("text")) or as_text(given.get("summary"))
        if text:
            yield text


def _part_texts(part: JsonObject) -> Iterator[str]:
    """Mistral: ``{"type": "thinking", "thinking": [text parts] | "…"}``;
    Databricks: ``{"type": "reasoning", "summary": [summary parts]}``.
    """
    for name in ("thinking", "summary", "text"):
        given = part.get(name)
        if isinstance(given, str):
            yield given
        for inner in as_list(given):
            yield as_text((as_mapping(inner) or {}).get("text"))
