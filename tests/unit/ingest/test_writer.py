"""The writer when its connection fails: what is committed is said to be, and nothing waits for ever."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import cast

import pytest_asyncio

from ingest.store.connection import BeginError, Connection, Row, UnavailableError, Value
from ingest.store.writer import WriteLimits, Writer
from tests.patience import eventually


class Scripted:
    """A connection that notes what is committed, and fails where it is told to."""

    def __init__(self, log: list[str], *, begins: Sequence[Exception | None] = ()) -> None:
        self.log = log
        self.open: list[str] = []
        self.begins = list(begins)

    def run(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        self.open.append(sql)
        return [tuple(values)]

    def begin(self) -> None:
        self.open = []
        failure = self.begins.pop(0) if self.begins else None
        if failure is not None:
            raise failure

    def commit(self) -> None:
        self.log += self.open

    def rollback(self) -> None:
        self.open = []

    def close(self) -> None:
        """Nothing is held."""


class Bench:
    """A writer on connections that a test scripts, the first one first."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.made: list[Callable[[], Scripted]] = []
        self.writer = Writer(self.connect, WriteLimits(), lambda _connection, _turns: [])

    def connect(self) -> Connection:
        make = self.made.pop(0) if self.made else lambda: Scripted(self.log)
        return cast("Connection", make())

    def then(self, *begins: Exception | None) -> None:
        """The next connection, which fails to begin its transactions as told."""
        self.made.append(lambda: Scripted(self.log, begins=begins))

    async def group(self, *names: str) -> list[object]:
        """Several writes in one group: the first, which the others wait behind, holds the writer."""
        held, gate = threading.Event(), threading.Event()

        def hold(_: Connection) -> None:
            held.set()
            gate.wait(60)

        first = asyncio.ensure_future(self.writer.write(hold))
        await eventually(held.is_set)
        others = [asyncio.ensure_future(self.writer.write(self.work(name))) for name in names]
        await asyncio.sleep(0.05)  # in which each has begun to wait
        gate.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    def work(self, name: str) -> Callable[[Connection], str]:
        def do(connection: Connection) -> str:
            connection.run(name)
            if name == "bad":
                raise ZeroDivisionError
            return name

        return do


@pytest_asyncio.fixture
async def bench() -> AsyncGenerator[Bench]:
    made = Bench()
    yield made
    await asyncio.wait_for(made.writer.close(), 60)


async def test_a_connection_that_dies_amid_single_writes_spoils_no_answer_given(bench: Bench) -> None:
    """One by one, because of a bad neighbour: a is committed, then the connection is gone."""
    bench.then(None, None, None, UnavailableError("gone"))
    answers = await bench.group("a", "b", "bad")
    assert answers[0] == "a"
    assert isinstance(answers[1], UnavailableError)
    assert isinstance(answers[2], UnavailableError)
    assert bench.log == ["a"]


async def test_what_is_committed_is_not_done_again_on_a_new_connection(bench: Bench) -> None:
    bench.then(None, None, None, BeginError("gone"))
    answers = await bench.group("a", "bad", "b")
    assert answers[0] == "a"
    assert isinstance(answers[1], ZeroDivisionError)
    assert answers[2] == "b"
    assert bench.log == ["a", "b"]


async def test_an_unexpected_failure_to_connect_is_told_and_the_next_write_works(bench: Bench) -> None:
    def refusing() -> Scripted:
        raise PermissionError("no such role")

    bench.made.append(refusing)
    bench.then(BeginError("idle too long"))
    bench.made.append(refusing)
    for _ in range(2):
        (failure,) = await asyncio.wait_for(
            asyncio.gather(bench.writer.write(bench.work("a")), return_exceptions=True), 30
        )
        assert isinstance(failure, UnavailableError)
        assert "no such role" in str(failure)
    assert await asyncio.wait_for(bench.writer.write(bench.work("b")), 30) == "b"
    assert bench.log == ["b"]
