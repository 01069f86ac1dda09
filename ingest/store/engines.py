"""Which engine a database URL names."""

from pathlib import Path
from urllib.parse import urlsplit

from ingest.store.connection import Engine
from ingest.store.postgres import PostgresEngine
from ingest.store.sqlite import SqliteEngine


class UrlError(ValueError):
    """The URL names no engine; the text is for the operator."""


def engine_of(url: str) -> Engine:
    """The engine that a database URL names. Raises :class:`UrlError`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path.strip("/"):
        return SqliteEngine(Path(parts.path.removeprefix("/")))
    if parts.scheme in ("postgresql", "postgres"):
        return PostgresEngine(url)
    raise UrlError(f"database_url must be sqlite:///PATH or postgresql://…, not {parts.scheme or url!r}")
