"""Google Gemini ``generateContent`` and ``streamGenerateContent``, also under Vertex.

A stream is a sequence of ``GenerateContentResponse`` objects, each with the next parts
of its candidates: as SSE, or as the elements of one JSON array. Nothing but
``finishReason`` or ``blockReason`` marks the end. Members: the API reference of
``GenerateContentResponse``; the Code Assist API wraps each in ``response``.
"""

from collections.abc import Sequence
from typing import Final

from capture.dialects.document import answer_object
from capture.dialects.fold import DamageLog, EventReader, RequestFacts
from capture.dialects.gemini_enums import block_reason, finish_reason, is_vertex
from capture.dialects.gemini_parts import Parts, either
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.wire_usage import total_of, wire_usage
from capture.stop_words import result_of
from capture.turn import (
    Choice,
    Damage,
    Diagnostic,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Result,
    Turn,
    Usage,
    WireFacts,
)
from capture.wire_response import wire_block

_READER: Final = EventReader(object)

# A response with no other members, whose candidate has not ended, only goes on.
_GOING_ON: Final = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId"})
_ENDS: Final = frozenset({"finishReason", "finish_reason"})


class _Candidate:
    __slots__ = ("finish", "parts")

    def __init__(self, damage: DamageLog) -> None:
        self.parts = Parts(damage)
        self.finish = ""


class GeminiFold:
    """Folds the response objects of one answer."""

    __slots__ = (
        "_block_reason",
        "_candidates",
        "_created_at",
        "_damage",
        "_error",
        "_is_document",
        "_model",
        "_refused",
        "_response_id",
        "_usage",
        "_vertex",
    )

    def __init__(self, request: RequestFacts) -> None:
        self._vertex = is_vertex(request.path)
        self._damage = DamageLog()
        self._candidates: dict[int, _Candidate] = {}
        self._block_reason = ""
        self._usage: JsonObject | None = None
        self._model = ""
        self._response_id = ""
        self._created_at = ""
        self._error: JsonObject | None = None
        self._is_document = False
        self._refused: Refused | None = None

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of response objects."""
        del names
        for data, value in zip(datas, _READER.read(datas), strict=True):
            for given in as_list(value) or [value]:
                response = as_mapping(given)
                if response is None:
                    self._damage.add(Damage.UNPARSEABLE_EVENT, repr(data[:80]))
                elif not self._goes_on(response):
                    self._read(response)

    def _goes_on(self, response: JsonObject) -> bool:
        """Take the next parts of the first candidate, as nearly all responses are; False of any other."""
        candidate = self._candidates.get(0)
        items = as_list(response.get("candidates"))
        if candidate is None or len(items) != 1 or not (self._model and self._response_id):
            return False
        item = as_mapping(items[0])
        if item is None or not response.keys() <= _GOING_ON or not _ENDS.isdisjoint(item):
            return False
        if item.get("index") not in (None, 0):
            return False
        for part in as_list((as_mapping(item.get("content")) or {}).get("parts")):
            candidate.parts.add(part)
        usage = as_mapping(response.get("usageMetadata"))
        self._usage = self._usage if usage is None else usage
        return True

    def document(self, body: bytes) -> None:
        """Fold a one-shot answer (or an error object: an empty turn with its error)."""
        response = answer_object(body)
        if isinstance(response, Refused):
            self._refused = response
            return
        self._is_document = True
        self._read(response)

    # -- one response object --------------------------------------------------

    def _read(self, response: JsonObject) -> None:
        response = as_mapping(response.get("response")) or response
        candidates = response.get("candidates")
        feedback = as_mapping(either(response, "promptFeedback", "prompt_feedback"))
        usage = as_mapping(either(response, "usageMetadata", "usage_metadata"))
        error = as_mapping(response.get("error"))
        if error is not None:
            self._error = self._error or error
        elif candidates is None and feedback is None and usage is None:
            self._damage.add(Damage.UNKNOWN_EVENT, ",".join(response))
        self._read_candidates(as_list(candidates))
        if feedback is not None:
            given = either(feedback, "blockReason", "block_reason")
            self._block_reason = block_reason(given, vertex=self._vertex) or self._block_reason
        self._usage = self._usage if usage is None else usage
        self._model = self._model or as_text(either(response, "modelVersion", "model_version"))
        self._response_id = self._response_id or as_text(either(response, "responseId", "response_id"))
        self._created_at = self._created_at or as_text(either(response, "createTime", "create_time"))

    def _read_candidates(self, items: Sequence[object]) -> None:
        given = [as_mapping(item) or {} for item in items]
        # Proto JSON leaves out a 0; a server that numbers none of several means their order.
        numbered = any(as_int(item.get("index")) is not None for item in given)
        for position, item in enumerate(given):
            index = as_int(item.get("index"))
            if index is None:
                index = 0 if numbered else position
            candidate = self._candidates.get(index)
            if candidate is None:
                candidate = self._candidates[index] = _Candidate(self._damage)
            for part in as_list((as_mapping(item.get("content")) or {}).get("parts")):
                candidate.parts.add(part)
            reason = either(item, "finishReason", "finish_reason")
            candidate.finish = finish_reason(reason, vertex=self._vertex) or candidate.finish

    # -- the turn -------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # a finish or block reason alone says that the answer is whole
        if self._refused is not None:
            return self._refused
        candidates = sorted(self._candidates.items()) or [(0, _Candidate(self._damage))]
        done = self._is_document or self._ended()
        partial = not done or (self._error is not None and not self._is_document)
        answer = candidates[0][1]
        usage = _usage(self._usage)
        choices = tuple(
            self._choice(index, candidate, done=done, partial=partial) for index, candidate in candidates
        )
        return Turn(
            dialect=Dialect.GEMINI,
            model=self._model,
            response_id=self._response_id or None,
            role="assistant",
            blocks=answer.parts.blocks(whole=done),
            choices=choices,
            usage=usage,
            partial=partial,
            wire=self._wire(candidates, usage, done=done),
            provider_error=self._provider_error(),
            diagnostics=self._damage.diagnostics() + _unparseable_input(choices),
            unparsed=tuple(part for _, candidate in candidates for part in candidate.parts.unparsed()),
        )

    def _ended(self) -> bool:
        if self._block_reason:
            return True
        return bool(self._candidates) and all(candidate.finish for candidate in self._candidates.values())

    def _choice(self, index: int, candidate: _Candidate, *, done: bool, partial: bool) -> Choice:
        calls = candidate.parts.tool_calls(whole=done)
        word = candidate.finish or self._block_reason or None
        failed = self._error is not None
        result = result_of(word, partial=partial, has_tool_calls=bool(calls), failed=failed)
        return Choice(
            index=index,
            text=candidate.parts.text("text"),
            thinking=candidate.parts.text("thinking"),
            tool_calls=calls,
            stop_reason=word,
            result=Result.BLOCKED if self._block_reason and not failed else result,
        )

    def _provider_error(self) -> ProviderError | None:
        if self._error is None:
            return None
        return ProviderError(
            status=200,
            type=as_text(self._error.get("type")) or as_text(self._error.get("status")) or None,
            message=as_text(self._error.get("message")),
            where="http" if self._is_document else "stream",
        )

    def _wire(self, candidates: Sequence[tuple[int, _Candidate]], usage: Usage, *, done: bool) -> WireFacts:
        extra: dict[str, object] = {}
        if self._response_id:
            extra["id"] = self._response_id
        error = self._provider_error()
        if error is not None:
            extra["error"] = {"type": error.type or "", "message": error.message}
        if not done:
            extra["partial"] = True
        if len(candidates) > 1:
            extra["choices"] = [
                _wire_choice(index, candidate, done=done) for index, candidate in candidates[1:]
            ]
        return WireFacts(
            done=done,
            stop_reason=candidates[0][1].finish or self._block_reason or ("error" if error else ""),
            created_at=self._created_at,
            usage=wire_usage(usage),
            extra=extra,
        )


def _unparseable_input(choices: Sequence[Choice]) -> tuple[Diagnostic, ...]:
    names = [call.name for choice in choices for call in choice.tool_calls if call.raw_arguments is not None]
    return (Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(names), names[0][:200]),) if names else ()


def _wire_choice(index: int, candidate: _Candidate, *, done: bool) -> dict[str, object]:
    blocks = candidate.parts.blocks(whole=done)
    return {
        "index": index,
        "message": {"role": "assistant", "content": [wire_block(block) for block in blocks]},
        "stop_reason": candidate.finish,
    }


def _usage(usage: JsonObject | None) -> Usage:
    """Cached tokens lie inside the prompt's; a tool's own prompt and the thoughts outside."""
    if usage is None:
        return Usage()
    count = {name: as_int(either(usage, name, snake)) for name, snake in _COUNTS}
    prompt = _sum(count["promptTokenCount"], count["toolUsePromptTokenCount"])
    output = _sum(count["candidatesTokenCount"], count["thoughtsTokenCount"])
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        total_tokens=total_of(count["totalTokenCount"], prompt, output),
        cache_read_tokens=count["cachedContentTokenCount"],
        reasoning_tokens=count["thoughtsTokenCount"],
        raw=usage,
    )


_COUNTS: Final = (
    ("promptTokenCount", "prompt_token_count"),
    ("toolUsePromptTokenCount", "tool_use_prompt_token_count"),
    ("candidatesTokenCount", "candidates_token_count"),
    ("thoughtsTokenCount", "thoughts_token_count"),
    ("cachedContentTokenCount", "cached_content_token_count"),
    ("totalTokenCount", "total_token_count"),
)


def _sum(first: int | None, second: int | None) -> int | None:
    if first is None and second is None:
        return None
    return (first or 0) + (second or 0)
