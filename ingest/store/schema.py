"""The schema, and the forward-only steps that lead to it.

``docs/ingest.md`` explains the tables. A step is never edited once released: the next
change is a new step. ``{int}``, ``{blob}`` and ``{strict}`` stand for each engine's
spelling (BIGINT/BYTEA in PostgreSQL; INTEGER/BLOB and STRICT tables in SQLite).

Invariants
* ``turns`` and ``bodies`` are the truth; every other table but ``audit`` and
  ``deletions`` can be made again from them.
* A row of ``pending`` exists from the commit of a turn until the commit of what was
  derived from it.
* ``key_hash`` covers tenant and idempotency key; ``variant`` is empty for a strict key,
  the body's digest without one, and ``r`` and the digest for a rejected turn. The pair is
  unique: the guard behind the look-up that finds duplicates, for several writers on
  PostgreSQL. A rejected turn can never take an accepted one's place.
"""

from typing import Final

STEP_1: Final = """
CREATE TABLE turns (
  seq {int} PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  source TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  request_id TEXT NOT NULL,
  key_hash {blob},
  variant {blob},
  digest {blob} NOT NULL,
  reused {int} NOT NULL,
  provider TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  model TEXT NOT NULL,
  harness_id TEXT NOT NULL,
  harness_session_id TEXT NOT NULL,
  thread_id TEXT NOT NULL,
  received_at_us {int} NOT NULL,
  body_bytes {int} NOT NULL,
  raw_dropped {int} NOT NULL
) {strict};
CREATE UNIQUE INDEX turns_key ON turns (key_hash, variant) WHERE key_hash IS NOT NULL;
CREATE INDEX turns_time ON turns (tenant, received_at_us);
CREATE TABLE bodies (
  seq {int} PRIMARY KEY,
  request {blob} NOT NULL,
  response {blob} NOT NULL,
  meta {blob} NOT NULL,
  session {blob} NOT NULL,
  raw_response {blob} NOT NULL,
  raw_response_encoding TEXT NOT NULL
) {strict};
CREATE TABLE pending (seq {int} PRIMARY KEY) {strict};
CREATE TABLE derive_failures (seq {int} PRIMARY KEY, reason TEXT NOT NULL) {strict};
CREATE TABLE nodes (
  tenant TEXT NOT NULL,
  hash {blob} NOT NULL,
  parent {blob},
  role TEXT NOT NULL,
  on_spine {int} NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  first_seq {int} NOT NULL,
  place {int} NOT NULL,
  content {blob} NOT NULL,
  PRIMARY KEY (tenant, hash)
) {strict};
CREATE INDEX nodes_newest ON nodes (tenant, first_seq, place);
CREATE TABLE node_agents (
  tenant TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  hash {blob} NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  seq {int} NOT NULL,
  place {int} NOT NULL,
  PRIMARY KEY (tenant, agent_name, hash)
) {strict};
CREATE INDEX node_agents_newest ON node_agents (tenant, agent_name, seq, place);
CREATE TABLE node_sessions (
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  hash {blob} NOT NULL,
  PRIMARY KEY (tenant, session_id, hash)
) {strict};
CREATE INDEX node_sessions_hash ON node_sessions (tenant, hash);
"""


class NewerSchemaError(Exception):
    """The database was written by a newer release: this one must not touch it."""


STEPS: Final = (STEP_1,)
"""Step n leads from version n to n + 1; version 0 is the empty database."""


def statements(step: str, *, integer: str, blob: str, strict: str) -> list[str]:
    """The statements of one step, in one engine's spelling."""
    text = step.replace("{int}", integer).replace("{blob}", blob).replace("{strict}", strict)
    return [statement.strip() for statement in text.split(";") if statement.strip()]
