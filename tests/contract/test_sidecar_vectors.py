"""The reference sidecar's observed behaviour: posts and drop reasons, case by case.

Each vector's messages go through an Exchange and are assembled. Where ours differs on
purpose, ``DIFFERENCES`` says what happens instead and why.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest

from capture.classify import Classifier
from capture.outcomes import Outcome, State
from extproc.assemble import TurnIdentity, assemble
from extproc.events import Body, Event, Headers, Side, StreamEnd, Trailers
from extproc.exchange import Concluded, Exchange, ExchangeRules
from extproc.policy import OnePolicy
from ingest_client.sink import Record
from tests.paths import CORPORA, needs_shared
from tests.unit.extproc.playbook import LATER, START

VECTORS: list[dict[str, Any]] = (
    [
        json.loads(line)
        for line in (CORPORA / "sidecar-vectors.jsonl").read_text(errors="surrogateescape").splitlines()
    ]
    if CORPORA.is_dir()
    else []
)


@dataclass(frozen=True)
class Difference:
    """What ours does instead: an outcome, or None for a turn that is sent; and why."""

    instead: Outcome | None
    reason: str


DIFFERENCES = {
    "path /v1/chat/completions": Difference(
        None, "we read Chat Completions, and know an Anthropic answer behind a translating gateway"
    ),
    "path /api/chat": Difference(None, "we read Ollama"),
    "path /v1/completions": Difference(None, "we read legacy Completions"),
    "br-response": Difference(Outcome.RESPONSE_DECODE, "we read brotli; the vector's bytes are none"),
    "br-request": Difference(Outcome.REQUEST_DECODE, "we read brotli; the vector's bytes are none"),
    "request-never-ends": Difference(
        Outcome.REQUEST_DECODE, "kept for a person: the reference posts it with request null"
    ),
    "two-responses-after-eos": Difference(None, "one exchange is one turn: the reference posts it twice"),
    "close-mid-request-eof": Difference(Outcome.CLIENT_DISCONNECT, "every exchange has an outcome"),
    "close-after-request-headers-eof": Difference(Outcome.CLIENT_DISCONNECT, "every exchange has an outcome"),
    "close-mid-request-error": Difference(Outcome.CLIENT_DISCONNECT, "every exchange has an outcome"),
    "close-after-request-headers-error": Difference(
        Outcome.CLIENT_DISCONNECT, "every exchange has an outcome"
    ),
}

_TRANSPORT_NOT_ASSEMBLY = ("ingest-",)  # delivery's verdicts are tested in test_delivery


def _events(vector: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    for message in vector["messages"]:
        kind = message["t"]
        side = Side.REQUEST if kind.startswith("request") else Side.RESPONSE
        if kind.endswith("headers"):
            pairs = tuple((name.lower(), value) for name, value in message["headers"])
            events.append(Headers(side, pairs, message["end_of_stream"], observe=False))
        elif kind.endswith("body"):
            data = message.get("body", "").encode()
            if "body_b64" in message:
                data = base64.b64decode(message["body_b64"])
            if "fill_bytes" in message:
                data = b" " * message["fill_bytes"]
            events.append(Body(side, data, message["end_of_stream"], observe=False))
        else:
            events.append(Trailers(side, observe=False))
    return [*events, StreamEnd.EOF if vector["end"] == "eof" else StreamEnd.ERROR]


def _run(vector: dict[str, Any]) -> Record | Outcome:
    rules = ExchangeRules(OnePolicy(), Classifier(vector.get("provider_map") or {}))
    exchange = Exchange(rules, START)
    conclusions = [
        command
        for event in _events(vector)
        for command in exchange.receive(event, LATER)
        if isinstance(command, Concluded)
    ]
    assert len(conclusions) == 1
    end = conclusions[0]
    return end.outcome if end.outcome is not None else assemble(end.captured, TurnIdentity("turn-1"))


def _expected_reason(vector: dict[str, Any]) -> str | None:
    for counter in vector["expect"]["counters"]:
        if counter.startswith("tapes_extproc_turns_dropped_total"):
            return str(counter.rpartition("reason=")[2].partition("}")[0])
    return None


def _comparable(body: dict[str, Any]) -> dict[str, Any]:
    """A post without the clock, and without what is ours in ``meta``."""
    body = json.loads(json.dumps(body))
    response: dict[str, Any] = body.get("response") or {}
    meta: dict[str, Any] = body["meta"]
    response.pop("created_at", None)
    usage: dict[str, Any] = response.get("usage") or {}
    usage.pop("total_duration_ns", None)
    extra: dict[str, Any] = response.get("extra") or {}
    if "error" in extra:
        extra["error"].pop("message", None)
    if "reducer_error" in extra:
        extra["reducer_error"] = "<made by the implementation>"
    contract = (
        "content_type", "thread_id", "method", "path", "endpoint", "model", "model_family", "stream",
        "content_encoding", "upstream_status", "upstream_status_class", "request_bytes", "response_bytes",
    )  # fmt: skip
    body["meta"] = {name: meta[name] for name in contract if name in meta}
    return body


@needs_shared
@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS if v["mode"] == "off" and not v["name"].startswith(_TRANSPORT_NOT_ASSEMBLY)],
    ids=lambda vector: vector["name"],
)
def test_posts_and_reasons_are_the_references_or_a_listed_difference(vector: dict[str, Any]) -> None:
    made = _run(vector)
    difference = DIFFERENCES.get(vector["name"])
    got = made.quarantine.outcome if isinstance(made, Record) and made.quarantine else made
    if difference is not None:
        assert (got if isinstance(got, Outcome) else None) is difference.instead
        return
    reason = _expected_reason(vector)
    if reason is not None:
        assert got is Outcome(reason)
        assert Outcome(reason).state is not State.QUARANTINED or isinstance(made, Record)
        return
    assert isinstance(got, Record)
    posted = vector["expect"]["posts"][0]["body"]
    assert _comparable(json.loads(got.body)) == _comparable(posted)


def test_every_difference_is_a_vector() -> None:
    """A difference whose vector is gone would go stale unseen."""
    assert not VECTORS or set(DIFFERENCES) <= {vector["name"] for vector in VECTORS}
