"""The envelope of ``POST /v1/ingest/transcript`` (``contracts/wire.md`` §8)."""

from hashlib import sha256

import msgspec
from msgspec import Struct

from ingest.envelope import EnvelopeError, SessionFacts, session_facts, text_member
from ingest.members import MembersError, elements, fold, split
from ingest.store.rows import Body

_KINDS = ("", "interacted")
_TEXTS = ("agent_id", "agent_type", "description", "tool_use_id", "kind")


class Transcript(Struct, frozen=True, kw_only=True):
    """A harness's own record of a session. ``records`` are kept as sent.

    ``tenant`` is the one that the request names beside the body, or empty: the contract's body has no
    member for it, and a member more might be one of a later contract.
    """

    tenant: str = ""
    facts: SessionFacts
    session: bytes
    records: bytes
    count: int
    texts: dict[str, str]

    @property
    def agent_id(self) -> str:
        """Whose transcript it is; empty for the main agent."""
        return self.texts["agent_id"]

    @property
    def key(self) -> str:
        """The row's id: the same records of the same agent are one row."""
        digest = sha256(self.records).hexdigest()[:16]
        return f"transcript:{self.facts.harness_session_id}:{self.agent_id or 'main'}:{digest}"

    def body(self) -> Body:
        """What is stored: the records in the place of the request."""
        meta = {"records": self.count, "transcript": True} | {k: v for k, v in self.texts.items() if v}
        return Body(request=self.records, meta=msgspec.json.encode(meta), session=self.session)


def decode(body: bytes, subject: str, tenant: str = "") -> Transcript:
    """Read a transcript envelope, for ``tenant``; ``subject`` overrides the session's.

    Raises :class:`EnvelopeError`.
    """
    try:
        members = fold(split(body), ("session", "records", *_TEXTS))
    except MembersError as error:
        raise EnvelopeError(str(error)) from error
    session = members.get("session", b"null")
    facts = session_facts(session) if session != b"null" else SessionFacts()
    if not facts.harness_session_id:
        raise EnvelopeError("transcript ingest requires session.harness_session_id")
    texts = {name: text_member(members, name) for name in _TEXTS}
    if texts["kind"] not in _KINDS:
        raise EnvelopeError('kind must be "" or "interacted"')
    records = members.get("records", b"")
    try:
        count = 0 if records == b"null" else len(elements(records))
    except MembersError as error:
        raise EnvelopeError(f"records must be a JSON array: {error}") from error
    return Transcript(
        tenant=tenant,
        facts=facts,
        session=_cleared(session, subject),
        records=records,
        count=count,
        texts=texts,
    )


def _cleared(session: bytes, subject: str) -> bytes:
    """The session as stored: no org, and the subject of the header if there is one."""
    members = split(session) | {"org_id": b'""'}
    if subject:
        members["auth_subject"] = msgspec.json.encode(subject)
    return b"{" + b",".join(msgspec.json.encode(k) + b":" + v for k, v in members.items()) + b"}"
