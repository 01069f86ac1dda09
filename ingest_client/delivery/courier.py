"""Carries turns to one endpoint: builds the request, sends it, says what the answer means for each turn."""

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import zstandard
from msgspec import Struct

from ingest_client.delivery import batching
from ingest_client.delivery.attempt import ANSWER_FIELDS
from ingest_client.delivery.backoff import retry_after_s
from ingest_client.delivery.classify import (
    Fate,
    Reason,
    Scope,
    Verdict,
    classify_failure,
    classify_status,
)
from ingest_client.delivery.clock import Clock
from ingest_client.delivery.connection import ExchangeFailed, Reply
from ingest_client.delivery.counters import DeliveryCounters
from ingest_client.delivery.endpoints import Endpoint
from ingest_client.delivery.http import HttpEndpoint
from ingest_client.delivery.learned import Coding
from ingest_client.delivery.plaintext import readable
from ingest_client.spool.api import Claimed

TURN_PATH: Final = "/v1/ingest"

_CODING_REFUSED: Final = frozenset({400, 415, 422})
"""What peers answer that do not know a content coding: some read the coded bytes as JSON."""

_OFF_LOOP_BYTES: Final = 256 * 1024
"""Larger bodies are compressed in a thread (both coders let go of the GIL)."""

_TOO_LARGE: Final = 413


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one request led to: a verdict per turn, and one on the endpoint.

    Where something failed, also what the answer said, fit to be kept (``attempt.Attempt``).
    """

    verdicts: Sequence[Verdict]
    overall: Verdict
    request_bytes: int
    answer_bytes: int
    answer_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    answer_body: str = ""


@dataclass(slots=True)
class Courier:
    """One endpoint's knowledge and its connections."""

    endpoint: Endpoint
    http: HttpEndpoint
    counters: DeliveryCounters
    clock: Clock

    async def deliver(self, turns: Sequence[Claimed]) -> Delivered:
        """Send the turns in one request: one turn to the turn route, several as a batch."""
        batched = len(turns) > 1
        body = batching.join([turn.body for turn in turns]) if batched else turns[0].body
        coding = self.endpoint.learned.coding
        if coding != "identity" and len(body) >= self.http.delivery.compress_min_bytes:
            body = await _encode(body, coding)
        else:
            coding = "identity"
        self._count(len(turns), len(body))
        path = batching.BATCH_PATH if batched else TURN_PATH
        try:
            reply = await self.http.post(
                path, body, turn_id=None if batched else turns[0].turn_id, coding=coding
            )
        except ExchangeFailed as failed:
            verdict = classify_failure(failed.reason, self._readable(str(failed)))
            return Delivered([verdict] * len(turns), verdict, len(body), 0)
        verdicts, overall = self._read(reply, turns, coding)
        if all(verdict.fate is Fate.ACCEPTED for verdict in verdicts):
            return Delivered(verdicts, overall, len(body), reply.answer.size)
        return Delivered(
            verdicts,
            overall,
            len(body),
            reply.answer.size,
            answer_headers=self._headers(reply),
            answer_body=self._readable(reply.answer.body),
        )

    def _count(self, turns: int, size: int) -> None:
        self.counters.requests += 1
        self.counters.request_bytes += size
        if turns > 1:
            self.counters.batches += 1
            self.counters.batched_turns += turns

    def _read(
        self, reply: Reply, turns: Sequence[Claimed], coding: Coding
    ) -> tuple[Sequence[Verdict], Verdict]:
        """The verdict on each turn, then on the endpoint."""
        learned, now_s = self.endpoint.learned, self.clock.monotonic_s()
        learned.accepts(reply.answer.fields, now_s)
        if coding != "identity" and reply.answer.status in _CODING_REFUSED:
            learned.coding_refused(now_s)
            return self._all(turns, Reason.CODING_REFUSED, reply)
        if len(turns) > 1:
            return self._read_batch(reply, turns)
        verdict = self._verdict(reply)
        return [verdict], verdict

    def _read_batch(self, reply: Reply, turns: Sequence[Claimed]) -> tuple[Sequence[Verdict], Verdict]:
        learned, now_s = self.endpoint.learned, self.clock.monotonic_s()
        status = reply.answer.status
        if status in batching.UNSUPPORTED:
            learned.batch_missing(now_s)
            return self._all(turns, Reason.BATCH_UNSUPPORTED, reply)
        if status == _TOO_LARGE:
            learned.batch_too_large(len(turns), sum(len(turn.body) for turn in turns), now_s)
            return self._all(turns, Reason.BATCH_TOO_LARGE, reply)
        overall = self._verdict(reply)
        if overall.fate in (Fate.ACCEPTED, Fate.REFUSED) and reply.shortfall is None:
            learned.batch_works()
        found = batching.verdicts(
            status, reply.answer.body, [turn.turn_id for turn in turns], reply.shortfall
        )
        explained = [self._explained(verdict, overall) for verdict in found]
        return explained, _about_endpoint(explained, overall)

    def _all(
        self, turns: Sequence[Claimed], reason: Reason, reply: Reply
    ) -> tuple[Sequence[Verdict], Verdict]:
        """The form of the request was wrong: every turn goes again at once, the endpoint is well."""
        verdict = Verdict(Fate.RETRY, reason, Scope.TURN, reply.answer.status, self._text(reply))
        return [verdict] * len(turns), verdict

    def _verdict(self, reply: Reply) -> Verdict:
        fields, status = reply.answer.fields, reply.answer.status
        cap_s = self.http.delivery.retry_after_cap_s
        wait_s = retry_after_s(fields.get("retry-after"), self.clock.now_ns(), cap_s)
        if status in (200, 202) and reply.shortfall is None:  # of a batch, perhaps not all of it
            return classify_status(status, retry_after_s=wait_s)
        return classify_status(
            status, text=self._text(reply), retry_after_s=wait_s, shortfall=reply.shortfall
        )

    def _explained(self, verdict: Verdict, overall: Verdict) -> Verdict:
        """A turn's verdict with words fit to be kept, and the wait that the whole answer asked for."""
        if verdict.fate is Fate.ACCEPTED:
            return verdict
        text = self._readable(verdict.text) or overall.text
        wait_s = None if verdict.reason is Reason.BATCH_UNDECIDED else overall.retry_after_s
        status = overall.status if verdict.status is None else verdict.status
        return Verdict(verdict.fate, verdict.reason, verdict.scope, status, text, wait_s)

    def _text(self, reply: Reply) -> str:
        """The answer's words; of a redirect, where it points, without anything secret."""
        location = reply.answer.fields.get("location")
        if location is not None and 300 <= reply.answer.status < 400:  # noqa: PLR2004 - redirects
            return self._readable(f"redirects to {_without_query(location)}")
        return self._readable(_error_member(reply.answer.body) or reply.answer.body)

    def _headers(self, reply: Reply) -> dict[str, str]:
        fields = reply.answer.fields
        return {
            name: self._readable(_without_query(fields[name]) if name == "location" else fields[name])
            for name in ANSWER_FIELDS
            if name in fields
        }

    def _readable(self, raw: bytes | str) -> str:
        token = self.http.credentials.token
        return readable(raw, () if token is None else (token,))


def _without_query(url: str) -> str:
    return url.split("?", 1)[0].split("#", 1)[0]


class _ErrorBody(Struct):
    error: str = ""


_ERROR_DECODER: Final = msgspec.json.Decoder(_ErrorBody)


def _error_member(body: bytes) -> str:
    """The text of ``{"error": …}``, the contract's form of an error; empty for any other body."""
    try:
        return _ERROR_DECODER.decode(body).error
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""


def _about_endpoint(found: Sequence[Verdict], overall: Verdict) -> Verdict:
    """A batch is one tenant's: what a result says of the tenant outweighs the status of the whole."""
    return next((verdict for verdict in found if verdict.scope is Scope.TENANT), overall)


async def _encode(body: bytes, coding: Coding) -> bytes:
    if len(body) > _OFF_LOOP_BYTES:
        return await asyncio.to_thread(_compress, body, coding)
    return _compress(body, coding)


def _compress(body: bytes, coding: Coding) -> bytes:
    match coding:
        case "zstd":
            return zstandard.ZstdCompressor(level=1).compress(body)
        case "gzip":
            return gzip.compress(body, compresslevel=1, mtime=0)
        case "identity":
            return body
