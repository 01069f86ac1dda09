"""A whole ingest service in this process, over ASGI: no socket, a real store."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from starlette.applications import Starlette

from ingest.app import build, running
from ingest.service import Service
from ingest.settings import IngestSettings

JSON = {"content-type": "application/json"}


class Client(httpx.AsyncClient):
    """Speaks to a service in this process, whose parts tests may look at."""

    service: Service
    asgi: Starlette

    async def turn(self, body: dict[str, Any] | bytes | str, **headers: str) -> httpx.Response:
        """Post one turn; ``idempotency_key=…`` becomes the header of that name."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = json.dumps(body) if isinstance(body, dict) else body
        return await self.post("/v1/ingest", content=content, headers=JSON | named)

    async def rows(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """Look into the database."""
        return cast(
            "list[tuple[Any, ...]]",
            await self.service.store.read(lambda connection: connection.run(sql, values)),
        )


@asynccontextmanager
async def service(directory: Path, **settings: Any) -> AsyncGenerator[Client]:
    """The service on an empty SQLite database in ``directory``, unless ``settings`` say otherwise."""
    settings.setdefault("database_url", f"sqlite:///{directory / 'ingest.db'}")
    application = build(IngestSettings(**settings))
    transport = httpx.ASGITransport(application.asgi, raise_app_exceptions=False)
    async with running(application) as parts:
        client = Client(transport=transport, base_url="http://ingest", timeout=60)
        client.service = parts
        client.asgi = application.asgi
        async with client:
            yield client


def turn(text: str = "hi", answer: str = "x", **members: Any) -> dict[str, Any]:
    """An Anthropic turn of one question and one answer; ``members`` replace its own."""
    return {
        "provider": "anthropic",
        "request": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": text}]},
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            "done": True,
            "stop_reason": "end_turn",
        },
        "meta": {},
    } | members
