"""OpenAI Responses, and everything that speaks it (``/codex/responses`` too).

Source: the Responses streaming reference for the events, ``behaviour.md`` §7 for what
the contract's reduced response says of them. The kind of an event is ``type`` in its
data; the ``event:`` line speaks only where that is absent.

Theory of operation. A terminal event carries the whole response, and then nothing else
matters: reading stops there. Until it comes, items and their deltas are kept, so that a
stream that is cut shows what came. The contract asks for less of a cut stream than the
neutral view: finished items in order of arrival, else the joined text deltas.
"""

from collections.abc import Sequence
from typing import Final

from capture.dialects import openai_items as items_of
from capture.dialects.document import answer_object, object_in
from capture.dialects.fold import DamageLog, RequestFacts
from capture.dialects.members import as_int, as_list, as_mapping, as_text
from capture.dialects.openai_chat import rfc3339
from capture.dialects.openai_errors import error_in, provider_error
from capture.dialects.openai_events import DELTAS, DONES, EVENTS, TERMINALS, UNREAD, Event, part_index
from capture.dialects.openai_items import OpenItem, Slot
from capture.dialects.openai_usage import usage_of, wire_usage_of
from capture.dialects.pieces import Pieces
from capture.stop_words import result_of
from capture.turn import (
    Block,
    Choice,
    Damage,
    Diagnostic,
    Dialect,
    Ending,
    JsonObject,
    ProviderError,
    Refused,
    Turn,
    WireFacts,
)

_KEPT: Final = ("id", "object", "created_at", "status", "model", "usage", "error", "incomplete_details")
"""What is kept of a response besides its output: its echo of the request can be long."""

_ENDED_EARLY: Final = "stream ended before terminal response event"


class ResponsesFold:
    """Folds the events of one response, or one response object."""

    __slots__ = (
        "_broken",
        "_by_id",
        "_by_index",
        "_damage",
        "_document",
        "_error",
        "_finished",
        "_items",
        "_output",
        "_refused",
        "_response",
        "_terminal",
        "_text",
        "_usage",
        "_whole",
    )

    def __init__(self, request: RequestFacts) -> None:
        del request  # a response names its own model
        self._response: dict[str, object] = {}
        self._usage: JsonObject | None = None
        self._items: list[OpenItem] = []
        self._by_index: dict[int, OpenItem] = {}
        self._by_id: dict[str, OpenItem] = {}
        self._finished: list[object] = []
        self._text: Pieces | None = Pieces()
        """All text deltas, while no finished item makes them needless."""
        self._terminal = ""
        self._whole = False
        self._output: list[object] = []
        self._error: ProviderError | None = None
        self._broken = False
        """An error took the place of an event."""
        self._document = False
        self._refused: Refused | None = None
        self._damage = DamageLog()

    # -- stream -----------------------------------------------------------------

    def events(self, names: Sequence[bytes], datas: Sequence[bytes]) -> None:
        """Fold a batch of stream events."""
        if b"[DONE]" in datas:
            kept = [at for at, data in enumerate(datas) if data != b"[DONE]"]
            names, datas = [names[at] for at in kept], [datas[at] for at in kept]
        touched: set[Pieces] = set()
        for at, event in enumerate(EVENTS.read(datas)):
            if self._terminal:
                self._damage.add(Damage.UNKNOWN_EVENT, "after the terminal event", len(datas) - at)
                break
            if event is None:
                self._damage.add(Damage.UNPARSEABLE_EVENT, datas[at][:80].decode("utf-8", "replace"))
                continue
            kind = event.type
            if type(kind) is not str or not kind:
                kind = names[at].decode("utf-8", "replace")
            slot = DELTAS.get(kind)
            if slot is None:
                self._apply(kind, event, datas[at])
            elif type(event.delta) is str:
                touched.add(self._append(slot, event, event.delta))
        for pieces in touched:
            pieces.settle()
        if self._text is not None:
            self._text.settle()

    def _append(self, slot: Slot, event: Event, delta: str) -> Pieces:
        pieces = self._item(event).pieces(slot, part_index(slot, event))
        pieces.append(delta)
        if slot is items_of.TEXT and self._text is not None:
            self._text.append(delta)
        return pieces

    def _apply(self, kind: str, event: Event, data: bytes) -> None:
        """Every kind of event but the deltas."""
        match kind:
            case "response.created" | "response.in_progress" | "response.queued":
                self._learn(as_mapping(event.response) or {})
            case "response.output_item.added":
                self._open(event)
            case "response.output_item.done":
                self._finish(event)
            case "error" | "response.error":
                self._fail(event)
            case _ if kind in TERMINALS:
                self._end(kind, as_mapping(event.response))
            case _ if kind in DONES:
                self._replace(DONES[kind], event)
            case _ if not kind:
                self._read_untyped(data)
            case _ if not kind.startswith(UNREAD):
                self._damage.add(Damage.UNKNOWN_EVENT, kind)
            case _:
                pass

    def _learn(self, response: JsonObject) -> None:
        """Keep what a response object says; the first id and model stay."""
        for name in _KEPT:
            value = response.get(name)
            if value is not None and not (name in {"id", "model"} and as_text(self._response.get(name))):
                self._response[name] = value
        self._usage = as_mapping(response.get("usage")) or self._usage

    def _item(self, event: Event) -> OpenItem:
        """The item that an event speaks of: by ``output_index``, else by ``item_id``."""
        index = as_int(event.output_index)
        item_id = as_text(event.item_id)
        item = self._by_id.get(item_id) if index is None else self._by_index.get(index)
        return item if item is not None else self._new(index, item_id, {})

    def _new(self, index: int | None, item_id: str, start: JsonObject) -> OpenItem:
        item = OpenItem(index, start)
        self._items.append(item)
        if index is not None:
            self._by_index[index] = item
        self._by_id[item_id] = item
        return item

    def _find(self, event: Event, item_id: str) -> OpenItem | None:
        """The item that is opened or finished, unless another took its place before."""
        index = as_int(event.output_index)
        if index is None:
            return self._by_id.get(item_id) if item_id else None
        return self._by_index.get(index)

    def _open(self, event: Event) -> None:
        start = as_mapping(event.item)
        if start is None:
            return
        item_id = as_text(start.get("id"))
        item = self._find(event, item_id)
        if item is None or item.is_finished:
            self._new(as_int(event.output_index), item_id, start)
        else:
            item.restart(start)

    def _finish(self, event: Event) -> None:
        if event.item is None:
            return
        self._finished.append(event.item)
        item_id = as_text((as_mapping(event.item) or {}).get("id"))
        item = self._find(event, item_id)
        if item is None or item.is_finished:
            item = self._new(as_int(event.output_index), item_id, {})
        item.finish(event.item)
        if self._text is not None and items_of.blocks([event.item]):
            self._text = None

    def _replace(self, slot: Slot, event: Event) -> None:
        """The whole text of a place: deltas that were missed do not matter any more."""
        text = {
            items_of.REFUSAL: event.refusal,
            items_of.ARGUMENTS: event.arguments,
            items_of.INPUT: event.input,
        }.get(slot, event.text)
        if isinstance(text, str):
            item = self._item(event)
            if not item.is_finished:
                item.replace(slot, part_index(slot, event), text)

    def _end(self, kind: str, response: JsonObject | None) -> None:
        self._terminal = kind
        if response is None:
            self._response["status"] = TERMINALS[kind]
            return
        self._whole = True
        self._learn(response)
        if not as_text(response.get("status")):
            self._response["status"] = TERMINALS[kind]
        self._output = as_list(response.get("output"))
        if self._output:  # everything is said again there
            self._items.clear()
            self._by_index.clear()
            self._by_id.clear()
            self._finished.clear()
        self._fail_response()

    def _fail(self, event: Event) -> None:
        """An ``error`` event: the error is the event itself, or an object in it."""
        own: JsonObject = {"code": event.code, "message": event.message}
        self._break(error_in({"error": event.error}) or own)

    def _break(self, error: JsonObject | str) -> None:
        self._broken = True
        if self._error is None:
            self._error = provider_error(error, "stream")

    def _fail_response(self) -> None:
        error = as_mapping(self._response.get("error"))
        if error and self._error is None:
            self._error = provider_error(error, "http" if self._document else "stream")

    def _read_untyped(self, data: bytes) -> None:
        """An event without a kind: an error in a gateway's shape, or unknown."""
        error = error_in(object_in(data) or {})
        if error is None:
            self._damage.add(Damage.UNKNOWN_EVENT, data[:80].decode("utf-8", "replace"))
        else:
            self._break(error)

    # -- one-shot ---------------------------------------------------------------

    def document(self, body: bytes) -> None:
        """Fold a response object. Anything else is refused, as the contract does."""
        self._document = True
        response = answer_object(body)
        if isinstance(response, Refused):
            self._refused = response
            return
        if response.get("object") != "response":
            self._refused = Refused("the answer is not a response object")
            return
        created_at = response.get("created_at")
        if isinstance(created_at, float) and not created_at.is_integer():
            self._refused = Refused("created_at is not a whole number of seconds")
            return
        self._whole = True
        self._learn(response)
        self._output = as_list(response.get("output"))
        self._fail_response()

    # -- the turn ---------------------------------------------------------------

    def turn(self, ending: Ending) -> Turn | Refused:
        """Read the turn off."""
        del ending  # the terminal event alone says that the response is whole
        if self._refused is not None:
            return self._refused
        items = self._output or self._items_in_order()
        partial = not self._document and (not self._terminal or self._broken)
        choice = self._choice(items, partial=partial)
        return Turn(
            dialect=Dialect.OPENAI_RESPONSES,
            model=as_text(self._response.get("model")),
            response_id=as_text(self._response.get("id")) or None,
            role="assistant",
            blocks=self._blocks(),
            choices=(choice,),
            usage=usage_of(self._usage),
            partial=partial,
            wire=self._wire(),
            provider_error=self._error,
            diagnostics=self._diagnostics(items),
            unparsed=items_of.unknown_items(items),
        )

    def _items_in_order(self) -> list[object]:
        """Items by ``output_index``; those without one come last, as they arrived."""
        ordered = sorted(self._items, key=lambda item: (item.output_index is None, item.output_index or 0))
        return [item.item() for item in ordered]

    def _choice(self, items: list[object], *, partial: bool) -> Choice:
        calls = items_of.tool_calls(items)
        refusal = items_of.refusals(items)
        word = self._word()
        return Choice(
            text=items_of.texts(items),
            thinking=items_of.thinking(items),
            refusal=refusal or None,
            tool_calls=calls,
            stop_reason=word,
            result=result_of(
                word,
                partial=partial,
                has_tool_calls=bool(calls),
                refused=bool(refusal),
                failed=self._error is not None,
            ),
        )

    def _word(self) -> str | None:
        return self._incomplete_reason() or as_text(self._response.get("status")) or None

    def _incomplete_reason(self) -> str:
        details = as_mapping(self._response.get("incomplete_details")) or {}
        return as_text(details.get("reason"))

    def _blocks(self) -> tuple[Block, ...]:
        if self._output:
            return items_of.blocks(self._output)
        blocks = items_of.blocks(self._finished)
        if blocks or self._whole or not self._text:
            return blocks
        return (Block(type="text", text=self._text.text()),)

    def _wire(self) -> WireFacts:
        response = self._response
        created_at = rfc3339(as_int(response.get("created_at")) or 0)
        if not self._whole:
            reason = f"terminal event {self._terminal} carried no response object"
            extra = {"partial": True, "reducer_error": reason if self._terminal else _ENDED_EARLY}
            return WireFacts(done=False, created_at=created_at, extra=extra)
        return WireFacts(
            done=True,
            stop_reason=self._wire_word(as_text(response.get("status"))),
            created_at=created_at,
            usage=wire_usage_of(as_mapping(response.get("usage"))),
            extra={name: as_text(response.get(name)) for name in ("id", "object", "status")},
        )

    def _wire_word(self, status: str) -> str:
        match status:
            case "completed":
                return "stop"
            case "incomplete":
                return self._incomplete_reason() or "incomplete"
            case _:
                return status

    def _diagnostics(self, items: list[object]) -> tuple[Diagnostic, ...]:
        found = list(self._damage.diagnostics())
        bad = items_of.unreadable_calls(items)
        if bad:
            found.append(Diagnostic(Damage.UNPARSEABLE_TOOL_INPUT, len(bad), bad[0][:200]))
        unknown = items_of.unknown_items(items)
        if unknown:
            kind = as_text((as_mapping(unknown[0]) or {}).get("type"))
            found.append(Diagnostic(Damage.UNKNOWN_CONTENT, len(unknown), kind[:200]))
        return tuple(found)
