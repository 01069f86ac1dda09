"""A durable queue of turns on a local disk: see ``docs/spool.md`` for format, invariants and crash points."""
