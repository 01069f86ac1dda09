"""Who read content: one log line of JSON for each read, whatever the level of the other logs."""

import logging

import msgspec

_audit = logging.getLogger("steno.ingest.audit")
_audit.setLevel(logging.INFO)


def read_of(who: str, what: str, tenant: str) -> None:
    """Note that ``who`` read ``what`` of ``tenant``. JSON escapes whatever the names hold."""
    entry = {"who": who, "read": what, "tenant": tenant}
    _audit.info("%s", msgspec.json.encode(entry).decode())
