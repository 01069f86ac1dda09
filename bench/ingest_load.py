"""What the bench of ingest posts, and how: turns of 10 KiB, and a client that costs little."""

import asyncio
import json
import os
import random
import time
from urllib.parse import urlsplit

from ingest.ids import RANDOM_BYTES, uuid7

SIZE = 10 * 1024
WORDS = [f"w{number:x}" for number in range(4096)]
_random = random.Random(7)


def envelope(number: int, key: str = "") -> bytes:
    """A turn of :data:`SIZE` bytes: the tenth of a conversation, with text that compresses like text.

    Without a ``key`` its request id is a UUIDv7 of now, as our sidecar's are.
    """
    talk = number // 10
    messages: list[dict[str, str]] = []
    for step in range(number % 10 + 1):
        _random.seed(talk * 100 + step)
        text = " ".join(_random.choices(WORDS, k=120))
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": f"answer {step}"}]
    messages.pop()
    value = {
        "provider": "anthropic",
        "agent_name": f"agent-{talk % 20}",
        "request": {"model": "m", "max_tokens": 100, "messages": messages},
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": [{"type": "text", "text": f"answer {number % 10}"}]},
            "done": True,
            "stop_reason": "end_turn",
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        },
        "meta": {
            "request_id": key or uuid7(time.time_ns() // 1_000_000, os.urandom(RANDOM_BYTES)),
            "filler": "",
        },
        "session": {
            "org_id": "",
            "auth_subject": "",
            "harness_id": "bench",
            "harness_session_id": f"s{talk}",
        },
    }
    short = SIZE - len(json.dumps(value))
    _random.seed(number)
    value["meta"]["filler"] = "".join(_random.choices("abcdefghijklmnop qrstuv", k=max(0, short)))  # type: ignore[index]
    return json.dumps(value).encode()


class Load:
    """A client that costs little: one connection, requests one after another."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode()
        self.latencies: list[float] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    async def post(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes) -> None:
        reader, writer = connection
        began = time.perf_counter()
        writer.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode())
        self.latencies.append(time.perf_counter() - began)


async def flood(url: str, path: str, bodies: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Post everything as fast as it goes; seconds, and each request's latency."""
    load = Load(url, path)
    waiting = iter(bodies)

    async def worker() -> None:
        connection = await load.connect()
        for body in waiting:
            await load.post(connection, body)
        connection[1].close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    return time.perf_counter() - began, load.latencies


async def steady(url: str, bodies: list[bytes], rate: float) -> list[float]:
    """Post at a rate, whatever the answers take (open loop); each request's latency."""
    load = Load(url, "/v1/ingest")
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(64):
        idle.put_nowait(await load.connect())
    latencies: list[float] = []

    async def one(body: bytes, due: float) -> None:
        connection = await idle.get()
        await load.post(connection, body)
        latencies.append(time.perf_counter() - due)
        idle.put_nowait(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(bodies):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(body, due))
    return latencies


def batches(bodies: list[bytes], size: int) -> list[bytes]:
    return [
        b'{"turns":[' + b",".join(bodies[start : start + size]) + b"]}"
        for start in range(0, len(bodies), size)
    ]


def percentile(latencies: list[float], share: float) -> float:
    """A percentile in milliseconds."""
    return sorted(latencies)[int(share * (len(latencies) - 1))] * 1000
