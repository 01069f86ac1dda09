"""The schema, and the forward-only steps that lead to it.

``docs/ingest.md`` explains the tables. A step is never edited once released: the next
change is a new step. ``{int}``, ``{blob}`` and ``{strict}`` stand for each engine's
spelling (BIGINT/BYTEA in PostgreSQL; INTEGER/BLOB and STRICT tables in SQLite); a statement
that begins with ``{postgresql}`` or ``{sqlite}`` is for that engine alone.

Invariants
* ``turns`` and ``bodies`` are the truth; every other table but ``audit`` can be
  made again from them.
* A row of ``pending`` exists from the commit of a turn until the commit of what was
  derived from it. Of a rejected turn nothing is; it waits until it was told of. A row of
  ``derive_again`` goes with one of ``pending``.
* ``key_hash`` covers tenant and idempotency key (:mod:`ingest.store.keys`); ``variant`` is empty
  for a strict key, the body's digest without one, and ``r`` and the digest for a rejected turn. The
  pair is unique: the guard behind the look-up that finds duplicates, for several writers on
  PostgreSQL. A rejected turn can never take an accepted one's place.
"""

from typing import Final

from ingest.store.keys import PATTERN

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
  reused {int} NOT NULL,
  provider TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  model TEXT NOT NULL,
  harness_id TEXT NOT NULL,
  harness_session_id TEXT NOT NULL,
  thread_id TEXT NOT NULL,
  received_at_us {int} NOT NULL,
  body_bytes {int} NOT NULL,
  raw_dropped {int} NOT NULL,
  key_hash {blob},
  variant {blob},
  digest {blob} NOT NULL
) {strict};
CREATE UNIQUE INDEX turns_key ON turns (key_hash, variant) WHERE key_hash IS NOT NULL;
CREATE INDEX turns_time ON turns (tenant, received_at_us, seq);
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
CREATE TABLE sessions (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  harness_id TEXT NOT NULL,
  harness_session_id TEXT NOT NULL,
  placeholder {int} NOT NULL,
  auth_subject TEXT NOT NULL,
  harness_version TEXT NOT NULL,
  cwd TEXT NOT NULL,
  name TEXT NOT NULL,
  parent_id TEXT NOT NULL,
  metadata TEXT NOT NULL,
  label TEXT NOT NULL,
  first_at_us {int} NOT NULL,
  last_at_us {int} NOT NULL,
  first_seq {int} NOT NULL,
  last_seq {int} NOT NULL,
  turns {int} NOT NULL,
  input_tokens {int} NOT NULL,
  output_tokens {int} NOT NULL,
  total_tokens {int} NOT NULL,
  PRIMARY KEY (tenant, id)
) {strict};
CREATE INDEX sessions_newest ON sessions (tenant, last_at_us, id);
CREATE TABLE runs (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  thread_id TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  label TEXT NOT NULL,
  first_at_us {int} NOT NULL,
  last_at_us {int} NOT NULL,
  first_seq {int} NOT NULL,
  last_seq {int} NOT NULL,
  steps {int} NOT NULL,
  input_tokens {int} NOT NULL,
  output_tokens {int} NOT NULL,
  total_tokens {int} NOT NULL,
  PRIMARY KEY (tenant, id)
) {strict};
CREATE INDEX runs_session ON runs (tenant, session_id, first_at_us, id);
CREATE TABLE steps (
  seq {int} PRIMARY KEY,
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  received_at_us {int} NOT NULL,
  kind TEXT NOT NULL,
  operation TEXT NOT NULL,
  status TEXT NOT NULL,
  result TEXT NOT NULL,
  stop_reason TEXT NOT NULL,
  leaf {blob},
  duration_ns {int} NOT NULL,
  label TEXT NOT NULL,
  excerpt TEXT NOT NULL,
  tool_calls {int} NOT NULL,
  input_tokens {int},
  output_tokens {int},
  total_tokens {int},
  cache_read_tokens {int},
  cache_write_tokens {int},
  reasoning_tokens {int}
) {strict};
CREATE INDEX steps_session ON steps (tenant, session_id, received_at_us, seq);
CREATE INDEX steps_run ON steps (tenant, run_id, received_at_us, seq);
CREATE INDEX steps_agent ON steps (tenant, agent_name, received_at_us, seq);
CREATE INDEX steps_model ON steps (tenant, model, received_at_us, seq);
CREATE INDEX steps_provider ON steps (tenant, provider, received_at_us, seq);
CREATE TABLE usage (
  tenant TEXT NOT NULL,
  day TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  session_id TEXT NOT NULL,
  turns {int} NOT NULL,
  input_tokens {int} NOT NULL,
  output_tokens {int} NOT NULL,
  total_tokens {int} NOT NULL,
  cache_read_tokens {int} NOT NULL,
  cache_write_tokens {int} NOT NULL,
  reasoning_tokens {int} NOT NULL,
  PRIMARY KEY (tenant, day, provider, model, agent_name, session_id)
) {strict};
CREATE INDEX usage_session ON usage (tenant, session_id);
CREATE TABLE audit (
  at_us {int} NOT NULL,
  who TEXT NOT NULL,
  action TEXT NOT NULL,
  tenant TEXT NOT NULL,
  scope TEXT NOT NULL,
  turns {int} NOT NULL
) {strict};
"""


STEP_2: Final = """
CREATE INDEX turns_rejected ON turns (tenant, received_at_us, seq) WHERE state = 'rejected';
CREATE TABLE usage_days (
  tenant TEXT NOT NULL,
  day TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  turns {int} NOT NULL,
  input_tokens {int} NOT NULL,
  output_tokens {int} NOT NULL,
  total_tokens {int} NOT NULL,
  cache_read_tokens {int} NOT NULL,
  cache_write_tokens {int} NOT NULL,
  reasoning_tokens {int} NOT NULL,
  PRIMARY KEY (tenant, day, provider, model, agent_name)
) {strict};
INSERT INTO usage_days
  SELECT tenant, day, provider, model, agent_name, sum(turns), sum(input_tokens), sum(output_tokens),
    sum(total_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(reasoning_tokens)
  FROM usage GROUP BY tenant, day, provider, model, agent_name;
{postgresql} ALTER TABLE bodies
  ALTER COLUMN request SET STORAGE EXTERNAL, ALTER COLUMN response SET STORAGE EXTERNAL,
  ALTER COLUMN meta SET STORAGE EXTERNAL, ALTER COLUMN session SET STORAGE EXTERNAL,
  ALTER COLUMN raw_response SET STORAGE EXTERNAL;
"""
"""Lists whose cost grew with the table: of rejected turns, and of usage without its sessions. Bodies
are compressed when they come, so the server need not try again."""

STEP_3: Final = """
CREATE INDEX turns_transcripts ON turns (tenant, harness_id, harness_session_id) WHERE source = 'transcript';
CREATE INDEX sessions_placeholders ON sessions (tenant) WHERE placeholder = 1;
CREATE INDEX sessions_children ON sessions (tenant, parent_id) WHERE parent_id <> '';
DROP INDEX node_sessions_hash;
CREATE INDEX node_sessions_hash ON node_sessions (tenant, hash, session_id);
"""
"""What a deletion looks up of a session: small, because few rows are in them. And who else holds a node:
with the session in it, because without statistics SQLite takes the index that has all it asks for."""

STEP_4: Final = f"""
DROP INDEX turns_key;
{{postgresql}} UPDATE turns SET key_hash =
    decode(substr(request_id, 1, 8) || substr(request_id, 10, 4), 'hex') || substr(key_hash, 1, 10)
  WHERE key_hash IS NOT NULL AND request_id ~ '^{PATTERN}$';
{{sqlite}} UPDATE turns SET key_hash =
    unhex(substr(request_id, 1, 8) || substr(request_id, 10, 4) || hex(substr(key_hash, 1, 10)))
  WHERE key_hash IS NOT NULL AND request_id GLOB '{PATTERN}';
CREATE UNIQUE INDEX turns_key ON turns (key_hash, variant) WHERE key_hash IS NOT NULL;
"""  # noqa: S608 -- a constant
"""The hashes of keys that are UUIDv7, put where :func:`ingest.store.keys.placed` puts them. A request
id of that form is the key itself: one that was cut or repaired on its way into the column is longer, or
has U+FFFD."""


STEP_5: Final = "CREATE TABLE derive_again (seq {int} PRIMARY KEY) {strict};"
"""Which of the turns that wait were derived before: whoever hears of them then has heard of them."""

STEP_6: Final = """
CREATE INDEX turns_rejected_provider ON turns (tenant, provider, received_at_us, seq)
  WHERE state = 'rejected';
CREATE INDEX turns_rejected_model ON turns (tenant, model, received_at_us, seq) WHERE state = 'rejected';
CREATE INDEX turns_rejected_agent ON turns (tenant, agent_name, received_at_us, seq)
  WHERE state = 'rejected';
"""
"""Rejected turns have no step: filters look at what they said of themselves."""

STEP_7: Final = """
ALTER TABLE node_sessions RENAME TO node_sessions_before;
CREATE TABLE node_sessions (
  tenant TEXT NOT NULL,
  session_id TEXT NOT NULL,
  hash {blob} NOT NULL,
  agent_name TEXT NOT NULL,
  PRIMARY KEY (tenant, session_id, hash, agent_name)
) {strict};
INSERT INTO node_sessions
  SELECT o.tenant, o.session_id, o.hash, s.agent_name FROM node_sessions_before o
  JOIN (SELECT DISTINCT tenant, session_id, agent_name FROM steps) s
    ON s.tenant = o.tenant AND s.session_id = o.session_id;
DROP TABLE node_sessions_before;
CREATE INDEX node_sessions_hash ON node_sessions (tenant, hash, agent_name, session_id);
"""
"""Whose turns hold a node, in each session: of what was there before, any agent's of that session."""


class NewerSchemaError(Exception):
    """The database was written by a newer release: this one must not touch it."""


DERIVED: Final = ("nodes", "node_agents", "node_sessions", "sessions", "runs", "steps", "usage", "usage_days")
"""The tables that are made again from the turns."""
_POSTGRESQL: Final = "{postgresql}"
_SQLITE: Final = "{sqlite}"
STEPS: Final = (STEP_1, STEP_2, STEP_3, STEP_4, STEP_5, STEP_6, STEP_7)
"""Step n leads from version n to n + 1; version 0 is the empty database."""


def statements(step: str, *, integer: str, blob: str, strict: str) -> list[str]:
    """The statements of one step, in one engine's spelling: SQLite's if it has ``strict`` tables."""
    text = step.replace("{int}", integer).replace("{blob}", blob).replace("{strict}", strict)
    found = [statement.strip() for statement in text.split(";") if statement.strip()]
    own, others = (_SQLITE, _POSTGRESQL) if strict else (_POSTGRESQL, _SQLITE)
    return [statement.removeprefix(own) for statement in found if not statement.startswith(others)]
