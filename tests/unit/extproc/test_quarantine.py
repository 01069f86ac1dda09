"""What cannot be made a turn is kept, shown, and delivered after all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from capture import redact
from capture.outcomes import Outcome
from capture.reduce import ResponseReducer
from capture.turn import Ending, Refused
from extproc.events import Event, Headers, StreamEnd
from extproc.policy import Policy
from extproc.quarantine import VERSION, QuarantineError, read
from extproc.revival import revive
from ingest_client.ledger import Ledger
from ingest_client.payload import MAX_BODY_BYTES
from ingest_client.sink import Kept, Record
from ingest_client.spool.api import Claimed
from ingest_client.spool.settings import SpoolSettings
from ingest_client.spool.spool import Spool
from steno.cli import main
from tests.unit.extproc.playbook import SSE, ending, request, request_headers, response, response_headers

LONG = b'{"model": "m", "messages": ["' + b"x" * (MAX_BODY_BYTES - (2 << 20)) + b'"]}'
DELTA = SSE[SSE.index(b"event: content_block_delta") : SSE.index(b"event: content_block_stop")]
LONG_ANSWER = SSE.replace(DELTA, DELTA.replace(b"world", b"a" * (1 << 19)) * 8)


@dataclass(frozen=True)
class Case:
    """A request that cannot be embedded, and how the turn is made after all."""

    body: bytes
    as_text: bool
    answer: bytes = SSE
    raw: bool = False
    """Kept as it came: to search forty megabytes for credentials takes seconds."""

    @property
    def policy(self) -> Policy:
        return Policy(quarantine_raw=self.raw)


CASES = {
    "unpaired surrogate": Case(b'{"model": "m", "messages": ["\\ud800"]}', as_text=True),
    "too deep": Case(b"[" * 5000 + b"]" * 5000, as_text=True),
    "no JSON": Case(b"What is the time?", as_text=True),
    "two values": Case(b'{"a": 1} {"b": 2}', as_text=True),
    "too long": Case(LONG, as_text=False, answer=LONG_ANSWER, raw=True),
}


def quarantined(*events: Event, policy: Policy | None = None) -> Record:
    record = ending(*events, policy=policy)
    assert isinstance(record, Record)
    assert record.quarantine is not None
    return record


def turn(body: bytes, answer: bytes = SSE, *headers: tuple[str, str]) -> tuple[Event, ...]:
    return (request_headers(*headers), request(body), response_headers(), response(answer))


def revived(body: bytes, *, request_as_text: bool = False) -> dict[str, Any]:
    record = revive(body, request_as_text=request_as_text)
    assert isinstance(record, Record), record
    payload: dict[str, Any] = json.loads(record.body)
    return payload


# -- marshal errors ---------------------------------------------------------------


@pytest.mark.parametrize("name", list(CASES))
def test_a_turn_that_cannot_be_marshalled_is_revived_whole(name: str) -> None:
    """With the answer that was reduced, and the request as JSON or as a string."""
    case = CASES[name]
    record = quarantined(*turn(case.body, case.answer), policy=case.policy)
    assert record.quarantine is not None
    assert record.quarantine.outcome is Outcome.MARSHAL_ERROR
    payload = revived(record.body, request_as_text=case.as_text)
    wanted = case.body.decode() if case.as_text else json.loads(case.body)
    assert payload["request"] == wanted
    assert payload["response"]["message"]["content"][0]["text"].startswith("Hello, ")
    assert payload["meta"]["request_id"] == record.turn_id
    assert payload["provider"] == "anthropic"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.as_text])
def test_a_request_that_is_still_no_json_is_refused_with_the_way_out(name: str) -> None:
    why = revive(quarantined(*turn(CASES[name].body)).body)
    assert isinstance(why, str)
    assert "--request-as-text" in why


def test_a_revived_record_has_the_name_owner_and_time_of_the_turn() -> None:
    """So that ingest stores it once, whenever and however often it comes."""
    record = quarantined(*turn(b"no JSON"), policy=Policy(tenant="acme"))
    again = revive(record.body, request_as_text=True)
    assert isinstance(again, Record)
    assert (again.turn_id, again.tenant, again.created_at_ns) == (
        record.turn_id,
        record.tenant,
        record.created_at_ns,
    )
    assert again.quarantine is None


@pytest.mark.parametrize("name", list(CASES))
async def test_a_quarantined_turn_is_counted_visible_and_never_sent_by_itself(
    name: str, tmp_path: Path
) -> None:
    """Under marshal_error in the ledger, and not among the turns that delivery claims."""
    case = CASES[name]
    ledger = Ledger()
    spool = await Spool.open(tmp_path, SpoolSettings(reserve_bytes=0, quota_age_s=0), ledger=ledger)
    try:
        ledger.observe()
        assert await spool.keep(quarantined(*turn(case.body, case.answer), policy=case.policy)) == Kept()
        assert await spool.claim(10, 1 << 30, 2**62, per_tenant=10) == []
        assert ledger.ended == {Outcome.MARSHAL_ERROR: 1}
        assert (ledger.open, ledger.imbalance) == (0, 0)
    finally:
        await spool.close(60)


# -- what could not be decoded or reduced -----------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        turn(b"{}plain", SSE, ("content-encoding", "gzip")),
        (request_headers(), request(b'{"model":', end=False), response_headers(), response(SSE)),
    ],
    ids=["a coding that is none", "half a request"],
)
def test_an_answer_beside_an_undecodable_request_is_kept_reduced_and_revived(events: Sequence[Event]) -> None:
    record = quarantined(*events)
    assert record.quarantine is not None
    assert record.quarantine.outcome is Outcome.REQUEST_DECODE
    why = revive(record.body)
    assert isinstance(why, str)
    assert "--request-as-text" in why
    payload = revived(record.body, request_as_text=True)
    assert payload["request"] in ("{}plain", '{"model":')
    assert payload["response"]["message"]["content"] == [{"type": "text", "text": "Hello, world"}]


def test_an_answer_that_could_not_be_reduced_is_assembled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fix of ours: the whole document was kept."""
    answer = (
        b'{"id": "m", "type": "message", "role": "assistant", "model": "claude-x",'
        b' "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {}}'
    )
    events = (
        request_headers(),
        request(b'{"model": "claude-x", "messages": []}'),
        response_headers(content_type="application/json"),
        response(answer),
    )
    with monkeypatch.context() as fault:
        finish = ResponseReducer.finish

        def refuse(reducer: ResponseReducer, ending: Ending) -> Refused:
            finish(reducer, ending)
            return Refused("a bug of ours")

        fault.setattr(ResponseReducer, "finish", refuse)
        record = quarantined(*events)
        assert revive(record.body) == "reducer_error: a bug of ours"
    payload = revived(record.body)
    assert payload["response"]["message"]["content"] == [{"type": "text", "text": "Hi"}]
    assert payload["meta"]["request_id"] == record.turn_id
    assert payload["meta"]["model"] == "claude-x"


def test_an_answer_whose_bytes_are_gone_is_no_empty_turn() -> None:
    """Its coding could not be undone: reviving it would invent an answer."""
    record = quarantined(
        request_headers(),
        request(b'{"model": "claude-x", "messages": []}'),
        response_headers("200", ("content-encoding", "gzip")),
        response(b"no gzip"),
    )
    assert revive(record.body) == "it is no turn: empty_response"


# -- the format ---------------------------------------------------------------------


SECRET = "sk-ant-api03-" + "a1" * 20


def test_text_is_redacted_and_headers_are() -> None:
    """In the request, the answer that was reduced, the reason, the path and the headers."""
    answer = SSE.replace(b"world", SECRET.encode())
    record = quarantined(*turn(f"no JSON {SECRET}".encode(), answer, ("authorization", f"Bearer {SECRET}")))
    assert SECRET.encode() not in record.body
    assert read(record.body).request.text == f"no JSON {redact.REDACTED}"


def test_originals_are_kept_only_where_policy_says_so() -> None:
    record = quarantined(*turn(f"no JSON {SECRET}".encode()), policy=Policy(quarantine_raw=True))
    kept = read(record.body)
    assert kept.raw
    assert kept.request.data == f"no JSON {SECRET}".encode()
    assert revived(record.body, request_as_text=True)["request"] == f"no JSON {SECRET}"


def test_bytes_that_are_no_text_are_withheld_and_said_to_be() -> None:
    noise = bytes(range(128, 256)) * 10
    record = quarantined(*turn(noise, SSE, ("content-encoding", "gzip")))
    assert read(record.body).request.withheld_bytes == len(noise)
    assert revive(record.body) == f"the request was no text and its {len(noise)} bytes were not kept"
    raw = quarantined(*turn(noise, SSE, ("content-encoding", "gzip")), policy=Policy(quarantine_raw=True))
    assert read(raw.body).request.data == noise


def test_a_newer_or_foreign_document_is_refused() -> None:
    body = quarantined(*turn(b"no JSON")).body
    newer = body.replace(f'"version":{VERSION}'.encode(), b'"version":99')
    for document in (newer, b"{}", b"\xff", b""):
        with pytest.raises(QuarantineError):
            read(document)
        assert isinstance(revive(document), str)


def test_the_document_is_one_json_object_that_a_person_can_read() -> None:
    record = quarantined(*turn(b"no JSON", SSE, ("x-tapes-cwd", "/home")))
    document = msgspec.json.decode(record.body)
    assert document["quarantined"] == "marshal_error"
    assert document["version"] == VERSION
    assert document["request"] == {"text": "no JSON"}
    assert document["request_headers"]["x-tapes-cwd"] == "/home"
    assert document["payload"]["response"]["message"]["content"] == [{"type": "text", "text": "Hello, world"}]


@pytest.mark.parametrize("end", list(StreamEnd))
def test_whatever_the_end_a_quarantined_record_has_a_body(end: StreamEnd) -> None:
    head: Headers = request_headers(("content-encoding", "br"))
    record = ending(head, request(b"\0"), response_headers(), response(SSE, end=False), end)
    assert isinstance(record, Record)
    assert read(record.body).turn_id == record.turn_id


# -- with the tool ------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CASES))
async def test_steno_spool_shows_it_and_requeue_delivers_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Listed under its outcome; refused while it is still no JSON; then pending as the whole turn."""
    case = CASES[name]
    record = replace(quarantined(*turn(case.body, case.answer), policy=case.policy), turn_id=TURN_ID)
    await _with_spool(tmp_path, [record])
    at = f"--data-dir={tmp_path}"
    assert main(["spool", "list", "--quarantine", "--json", at]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["outcome"] == "marshal_error"
    if case.as_text:
        assert main(["spool", "requeue", "--quarantine", at]) == 1
        assert "--request-as-text" in capsys.readouterr().out
    more = ["--request-as-text"] if case.as_text else []
    assert main(["spool", "requeue", "--quarantine", at, *more]) == 0
    (claimed,) = await _with_spool(tmp_path, [])
    assert claimed.turn_id == TURN_ID
    payload = json.loads(claimed.body)
    assert payload["request"] == (case.body.decode() if case.as_text else json.loads(case.body))
    assert payload["response"]["message"]["role"] == "assistant"
    assert main(["ledger", at, "--json"]) == 0
    balance = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (balance["observed"], balance["imbalance"], balance["quarantined"]) == (1, 0, 0)


TURN_ID = "01890000-0000-7000-8000-000000000001"


async def _with_spool(root: Path, records: Sequence[Record]) -> list[Claimed]:
    """Keep records in the spool of a process that then ends; what delivery would be given."""
    ledger = Ledger()
    spool = await Spool.open(root, SpoolSettings(reserve_bytes=0, quota_age_s=0), ledger=ledger)
    try:
        for record in records:
            ledger.observe()
            assert await spool.keep(record) == Kept()
        return await spool.claim(10, 1 << 30, 2**62, per_tenant=10)
    finally:
        await spool.close(60)
