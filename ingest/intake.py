"""From posted bytes to a stored turn and an answer: the write path, without HTTP.

    bytes → envelope (400) → tenant (403) → its limits (429) → judgement (422, kept) → store (502, 503) → 202

``prepare`` is pure: the time and the random bytes are arguments. A turn that cannot be
processed is stored as rejected before it is refused, and never takes its id.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from ingest.access import AccessError, Principal, TenantNameError
from ingest.aside import beside
from ingest.envelope import Envelope, EnvelopeError, decode
from ingest.ids import RANDOM_BYTES, uuid7
from ingest.judgement import PROVIDERS, unprocessable
from ingest.limits import Overrun
from ingest.metrics import Metrics, WriteStatus, provider_label
from ingest.rawonly import with_reduction
from ingest.replies import told
from ingest.store.connection import BusyError, StoreError, TooLargeError, UnavailableError
from ingest.store.rows import Body, Fate, NewTurn, Put, Source, State
from ingest.store.store import Store
from ingest.store.turns import CONFLICT, digest_of, packed
from ingest.throttle import Throttle
from ingest.transcript import Transcript

_log = logging.getLogger("steno.ingest")
RAW_RESPONSE_CAP: Final = 8_388_608
"""Most bytes of a raw response that are kept (``contracts/wire.md`` §7)."""
_TROUBLE_S: Final = 10.0
"""How long a failed write counts as trouble: without an end nobody would send the one that works again."""
_OTHER_KEY: Final = (
    "send it under another key: that one is an earlier turn's for good; this turn was kept as rejected"
)
_CODED: Final = b"raw_response_encoding"
_LONG_S: Final = "\u017f".encode()
_LETTER: Final = re.compile(rb"\\u00[4-7]|\\u017f")
"""A letter that is escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the producer is told. ``error`` is empty for 202; ``id`` is the stored turn's,
    ``request_id`` the producer's own, each if there is one. ``action``: what to do, where it is not what
    the status asks for. ``overrun`` is why it is a 429, and ``tenant`` whose.
    """

    status: int
    outcome: WriteStatus
    provider: str = ""
    error: str = ""
    action: str = ""
    id: str = ""
    request_id: str = ""
    duplicate: bool = False
    reused: bool = False
    tenant: str = ""
    overrun: Overrun | None = None


Allow = Callable[[str, int], Overrun | None]
"""Whether a turn of so many bytes of a tenant may pass, or why not."""


def allow_all(_tenant: str, _size: int) -> None:
    """No limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """One posted turn: the decoded body, and the idempotency key of its own, if it came with one."""

    body: bytes
    key: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When and as what a turn is stored."""

    now_us: int
    random: bytes


def _may_unfold(body: bytes) -> bool:
    """Whether it may bring coded bytes to reduce, up to a thousand times its size, under any spelling.

    Asked of every body on the event loop: one pattern for all of it took longer than preparing the turn.
    """
    lowered = body.lower()
    return _CODED in lowered or _LONG_S in lowered or (b"\\u0" in lowered and bool(_LETTER.search(lowered)))


def stamp() -> Stamp:
    """Now."""
    return Stamp(time.time_ns() // 1000, os.urandom(RANDOM_BYTES))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn to store, where the times of a raw-only turn came from, and what of it says no time."""

    turn: NewTurn
    stamps: tuple[tuple[str, str], ...] = ()
    unusable: tuple[str, ...] = ()


def prepare(
    posted: Posted, writer: Principal, project: str, at: Stamp, *, allow: Allow = allow_all
) -> Prepared | Answer:
    """The turn to store (accepted or rejected), or the refusal of one that is not stored."""
    try:
        envelope = decode(posted.body)
    except EnvelopeError as error:
        return _no_envelope(str(error))
    key = posted.key or envelope.facts.request_id or ""
    try:
        tenant = writer.tenant(envelope.facts.tenant or "")
    except TenantNameError as error:
        return _no_envelope(f"meta.tenant: {error}", envelope.provider, key)
    except AccessError as error:
        return Answer(
            status=403,
            outcome=WriteStatus.REJECT_ACCESS,
            provider=envelope.provider,
            error=str(error),
            request_id=key,
        )
    if overrun := allow(tenant, len(posted.body)):
        return _over(overrun, tenant, envelope.provider, key)
    reduction = with_reduction(envelope, datetime.fromtimestamp(at.now_us / 1e6, UTC))
    turn = _turn(reduction.envelope, posted, tenant, project, at)
    return Prepared(turn, reduction.stamps, reduction.unusable)


def _no_envelope(error: str, provider: str = "", request_id: str = "") -> Answer:
    return Answer(
        status=400,
        outcome=WriteStatus.REJECT_ENVELOPE,
        provider=provider,
        error=f"invalid envelope: {error}",
        request_id=request_id,
    )


def _over(overrun: Overrun, tenant: str, provider: str = "", request_id: str = "") -> Answer:
    return Answer(
        status=429,
        outcome=WriteStatus.REJECT_QUOTA,
        provider=provider,
        request_id=request_id,
        error=f'tenant "{tenant}" is over its limit: {overrun.words}',
        tenant=tenant,
        overrun=overrun,
    )


def _turn(envelope: Envelope, posted: Posted, tenant: str, project: str, at: Stamp) -> NewTurn:
    reason = unprocessable(envelope)
    facts, session = envelope.facts, envelope.session_facts
    over = len(envelope.raw_response) > RAW_RESPONSE_CAP
    return NewTurn(
        id=uuid7(at.now_us // 1000, at.random),
        tenant=tenant,
        project=facts.project or project,
        state=State.REJECTED if reason else State.ACCEPTED,
        reason=reason or "",
        key=posted.key or facts.request_id or "",
        strict=bool(posted.key),
        digest=digest_of(posted.body),
        provider=envelope.provider,
        agent_name=envelope.agent_name,
        model=envelope.reduced.model or facts.model or "",
        harness_id=(session.harness_id or "unknown") if session else "",
        harness_session_id=(session.harness_session_id or "") if session else "",
        thread_id=facts.thread_id or "",
        received_at_us=at.now_us,
        body_bytes=len(posted.body),
        raw_dropped=over or (envelope.raw_response_withheld and not envelope.raw_response),
        body=packed(
            Body(
                request=envelope.request,
                response=envelope.response,
                meta=envelope.meta,
                session=envelope.session,
                raw_response=b"" if over else envelope.raw_response,
                raw_response_encoding="" if over else envelope.raw_response_encoding,
            )
        ),
    )


def prepare_transcript(
    transcript: Transcript, size: int, writer: Principal, project: str, at: Stamp, *, allow: Allow = allow_all
) -> Prepared | Answer:
    """The row of a transcript, or the refusal of one that is not stored."""
    try:
        tenant = writer.tenant(transcript.tenant)
    except TenantNameError as error:
        return _no_envelope(f"tenant: {error}")
    except AccessError as error:
        return Answer(status=403, outcome=WriteStatus.REJECT_ACCESS, error=str(error))
    if overrun := allow(tenant, size):
        return _over(overrun, tenant)
    turn = NewTurn(
        id=uuid7(at.now_us // 1000, at.random),
        tenant=tenant,
        project=project,
        source=Source.TRANSCRIPT,
        key=transcript.key,
        digest=digest_of(transcript.records),
        harness_id=transcript.facts.harness_id or "unknown",
        harness_session_id=transcript.facts.harness_session_id or "",
        thread_id=transcript.agent_id,
        received_at_us=at.now_us,
        body_bytes=size,
        body=packed(transcript.body()),
    )
    return Prepared(turn)


def settle(turn: NewTurn, put: Put) -> Answer:
    """The answer for a turn that went through the store."""
    if turn.state is State.REJECTED or put.fate is Fate.CONFLICT:
        known = turn.provider in PROVIDERS
        return Answer(
            status=422,
            outcome=WriteStatus.REJECT_PARSE if known else WriteStatus.UNKNOWN_PROVIDER,
            provider=turn.provider,
            error=f"unprocessable turn: {turn.reason or CONFLICT}",
            action=_OTHER_KEY if put.fate is Fate.CONFLICT else "",
            id=put.id,
            request_id=turn.key,
        )
    return Answer(
        status=202,
        outcome=WriteStatus.ACCEPTED,
        provider=turn.provider,
        id=put.id,
        request_id=turn.key,
        duplicate=put.fate is Fate.DUPLICATE,
        reused=put.reused,
    )


def _downstream(error: StoreError, turn: NewTurn) -> Answer:
    match error:
        case BusyError():
            status, outcome = 502, WriteStatus.QUEUE_FULL
            why = f"downstream failure: {error}; send it again later"
        case TooLargeError():
            status, outcome = 413, WriteStatus.REJECT_OVERSIZE
            why = f"the turn is too large for the store: {error}"
        case _:
            status, outcome = 503, WriteStatus.DOWNSTREAM_ERROR
            why = f"downstream failure: {told(error)}; nothing was stored, send it again later"
    return Answer(status=status, outcome=outcome, provider=turn.provider, request_id=turn.key, error=why)


def _internal(turn: NewTurn | None = None) -> Answer:
    return Answer(
        status=500,
        outcome=WriteStatus.INTERNAL_ERROR,
        provider=turn.provider if turn else "",
        request_id=turn.key if turn else "",
        error="internal error; nothing was stored, and the log of the service says why",
    )


def _guarded(make: Callable[[], Prepared | Answer]) -> Prepared | Answer:
    """What ``make`` returns; whatever one turn provokes, the others of its batch go on."""
    try:
        return make()
    except Exception:  # noqa: BLE001 -- a bug that one turn meets is told for it alone
        _log.exception("a turn could not be taken, and nothing of it is stored")
        return _internal()


class Intake:
    """Takes posted turns into the store and counts what became of each."""

    def __init__(
        self, store: Store, metrics: Metrics, throttle: Throttle, project: str, stored: Callable[[], None]
    ) -> None:
        self._throttle = throttle
        self._stored = stored
        self._store = store
        self._metrics = metrics
        self._project = project
        self._failed_at_s: float | None = None

    @property
    def trouble(self) -> bool:
        """Whether the last write failed, and that was a moment ago."""
        return self._failed_at_s is not None and time.monotonic() < self._failed_at_s + _TROUBLE_S

    async def take(self, posts: Sequence[Posted], writer: Principal) -> list[Answer]:
        """Store what can be stored, in one commit; one answer for each of ``posts``."""

        def work() -> list[Prepared | Answer]:
            allow = self._throttle.allow
            return [
                _guarded(partial(prepare, post, writer, self._project, stamp(), allow=allow))
                for post in posts
            ]

        sizes = [len(post.body) for post in posts]
        unfolds = any(_may_unfold(post.body) for post in posts)
        prepared = await (asyncio.to_thread(work) if unfolds else beside(work, sum(sizes)))
        return await self._keep(prepared, sizes)

    async def take_transcript(self, transcript: Transcript, size: int, writer: Principal) -> Answer:
        """Store a transcript."""

        def work() -> Prepared | Answer:
            allow = self._throttle.allow
            make = partial(prepare_transcript, transcript, size, writer, self._project, stamp(), allow=allow)
            return _guarded(make)

        return (await self._keep([await beside(work, size)], [size]))[0]

    async def _keep(self, prepared: Sequence[Prepared | Answer], sizes: Sequence[int]) -> list[Answer]:
        turns = [item.turn for item in prepared if isinstance(item, Prepared)]
        settled = iter(await self._put(turns) if turns else ())
        answers = [item if isinstance(item, Answer) else next(settled) for item in prepared]
        for item, answer, size in zip(prepared, answers, sizes, strict=True):
            self._count(answer, size)
            if isinstance(item, Prepared):
                for field, source in item.stamps:
                    self._metrics.stamps.labels(provider_label(answer.provider), field, source).inc()
                for name in item.unusable:
                    _log.warning("meta.%s of turn %s is no time that can be used", name, item.turn.id)
        return answers

    async def _put(self, turns: Sequence[NewTurn]) -> list[Answer]:
        began = time.perf_counter()
        try:
            puts = await self._store.put(turns)
        except StoreError as error:
            # A queue that is full is emptied by waiting, and others' turns are not too large.
            if not isinstance(error, BusyError | TooLargeError):
                self._failed_at_s = time.monotonic()
            if not isinstance(error, BusyError | UnavailableError):  # the writer's log tells of these
                _log.warning("%d turns could not be stored: %a", len(turns), str(error))
            return [_downstream(error, turn) for turn in turns]
        except Exception:  # noqa: BLE001 -- a bug is told for each turn, and counted
            _log.exception("%d turns could not be stored", len(turns))
            return [_internal(turn) for turn in turns]
        self._failed_at_s = None
        self._stored()
        took = time.perf_counter() - began
        for turn, put in zip(turns, puts, strict=True):
            self._metrics.dag_write.labels(provider_label(turn.provider)).observe(took)
            if put.id == turn.id:  # not one that was there already
                self._throttle.kept(turn)
        return [settle(turn, put) for turn, put in zip(turns, puts, strict=True)]

    def _count(self, answer: Answer, body_bytes: int) -> None:
        provider = provider_label(answer.provider)
        self._metrics.writes.labels(provider, answer.outcome).inc()
        if answer.overrun is not None:
            self._throttle.refused(answer.tenant, answer.overrun.excess)
        if answer.status == 202:  # noqa: PLR2004 -- the contract's word for stored
            self._metrics.body_bytes.labels(provider).observe(body_bytes)
            if answer.duplicate:
                self._metrics.duplicates.inc()
            if answer.reused:
                self._metrics.reused_ids.inc()
