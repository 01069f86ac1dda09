"""Steps and runs, in the manner of a debug recorder.

A step is one captured call. A run is one turn of an agent: the calls from what a person
said to the answer. All calls of one run share their conversation up to that message, so
the run is named by session, thread and the hash of that message's node: whatever order
the turns arrive in, and however often, they meet in the same run.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum, unique
from hashlib import sha256
from typing import Final

from msgspec import Struct

from capture.merkle import Node
from capture.requests.harness import normalise, strip_tags
from capture.requests.request import Request, RequestMessage
from capture.turn import Result
from ingest.derivation.canonical import as_list, as_mapping, as_text
from ingest.derivation.kinds import Kind, kind_of
from ingest.store.rows import MOST, TurnRow

LABEL: Final = 200
"""Characters of a label."""
EXCERPT: Final = 10_000
"""Characters of a text in lists."""
_NS: Final = 1_000_000_000
_MAX_ELAPSED_S: Final = 604_800


@unique
class Status(StrEnum):
    """How a step or a run stands. All but ``in_progress`` are terminal."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    ERROR = "error"
    INTERRUPTED = "interrupted"


class Tokens(Struct, frozen=True, kw_only=True):
    """Normalised token counts; None: the provider did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Step(Struct, frozen=True, kw_only=True):
    """One call, and what it means for its run. ``duration_ns`` is 0 when unknown."""

    run_id: str
    kind: Kind
    operation: str
    status: Status
    run_status: Status
    result: str
    stop_reason: str
    model: str
    leaf: str
    duration_ns: int
    label: str
    text: str
    tool_calls: int
    tokens: Tokens


class Call(Struct, frozen=True, kw_only=True):
    """What a step is made of. ``max_tokens`` is the request's own limit, ``view`` the canonical view."""

    turn: TurnRow
    request: Request
    max_tokens: object
    meta: Mapping[str, object]
    nodes: Sequence[Node]
    session_id: str
    view: Mapping[str, object]


def step_of(call: Call) -> Step:
    """The step of a turn."""
    view, nodes = call.view, call.nodes
    anchor, said = _anchor(call.request, nodes)
    result = as_text(view.get("result"))
    status = _status(result, view, call.meta)
    waits = status is Status.COMPLETED and result == Result.TOOL_CALL
    return Step(
        run_id=_run_id(call.session_id, call.turn.thread_id, anchor or call.turn.id),
        kind=kind_of(call.request, call.max_tokens),
        operation="stream" if view.get("stream") or call.request.stream else "generate",
        status=status,
        run_status=Status.IN_PROGRESS if waits else status,
        result=result,
        stop_reason=as_text(view.get("stop_reason")),
        model=as_text(view.get("model")) or call.turn.model,
        leaf=nodes[-1].hash if nodes else "",
        duration_ns=_duration(call.meta),
        label=_label(said),
        text=as_text(view.get("text"))[:EXCERPT],
        tool_calls=len(as_list(view.get("tool_calls"))),
        tokens=tokens_of(as_mapping(view.get("usage"))),
    )


def _status(result: str, view: Mapping[str, object], meta: Mapping[str, object]) -> Status:
    if result == Result.ERROR or view.get("provider_error"):
        return Status.ERROR
    if view.get("partial") or meta.get("interrupted") or result == Result.INCOMPLETE:
        return Status.INTERRUPTED
    return Status.COMPLETED


def _duration(meta: Mapping[str, object]) -> int:
    elapsed = meta.get("elapsed_seconds")
    if isinstance(elapsed, int | float) and 0 < elapsed < _MAX_ELAPSED_S:
        return int(elapsed * _NS)
    return 0


def tokens_of(usage: Mapping[str, object]) -> Tokens:
    """The counts of a canonical usage; a total that was not sent is the sum of both halves."""
    counts = {name: _count(usage.get(name)) for name in Tokens.__struct_fields__}
    halves = (counts["input_tokens"], counts["output_tokens"])
    if counts["total_tokens"] is None and halves[0] is not None and halves[1] is not None:
        counts["total_tokens"] = min(halves[0] + halves[1], MOST)
    return Tokens(**counts)


def _count(value: object) -> int | None:
    """A count that every engine can hold."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST
    return value if usable and isinstance(value, int) else None


def _run_id(session_id: str, thread_id: str, anchor: str) -> str:
    words = f"{session_id}\0{thread_id}\0{anchor}"
    return sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _anchor(request: Request, nodes: Sequence[Node]) -> tuple[str, str]:
    """The last message that a person wrote: its node's hash, and its text.

    Where nobody wrote any it is the first message, without a text.
    """
    asked = nodes[: len(request.messages)]
    for message, node in zip(reversed(request.messages), reversed(asked), strict=False):
        said = _said(message) if node.on_spine else ""
        if said:
            return node.hash, said
    return (asked[0].hash if asked else ""), ""


def _said(message: RequestMessage) -> str:
    """What a person said in a message: nothing in the results of tools and injected texts."""
    if message.role != "user" or any(block.type == "tool_result" for block in message.blocks):
        return ""
    return normalise(strip_tags("\n".join(block.text for block in message.blocks if block.text)))


def label_of(request: Request) -> str:
    """The first thing that a person said in the conversation, as a label."""
    return next((_label(said) for message in request.messages if (said := _said(message))), "")


def _label(said: str) -> str:
    """White space normalised, at most :data:`LABEL` characters."""
    return " ".join(said[: 20 * LABEL].split())[:LABEL]
