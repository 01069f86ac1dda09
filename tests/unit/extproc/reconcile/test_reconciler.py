"""The supervisor's side, with a gRPC client for Envoy and a stream for a worker."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest

from capture.classify import Classifier
from extproc.pb.access_log_pb2 import HttpAccessLogEntry
from extproc.reconcile.decoding import ACCESS_LOG_METHOD, ACCESS_LOG_SERVICE
from extproc.reconcile.matcher import Matcher
from extproc.reconcile.reconciler import LINES_A_TICK, RECENT, Reconciler
from extproc.reconcile.summary import Begun, Counted, Ended, Line, Missed, decode_missed, encode
from extproc.transport.address import AddressError, TcpAddress
from tests.unit.extproc.reconcile.test_decoding import entry, message

GRACE_S = 0.05


@dataclass
class StubWorker:
    """A worker that writes what a test says, and answers orders like a real one."""

    reconciler: Reconciler
    confirms: bool = True
    orders: list[Missed] = field(default_factory=list[Missed])

    def __post_init__(self) -> None:
        self.lines = asyncio.StreamReader()
        self.following = asyncio.ensure_future(self.reconciler.follow(self.lines, self._obey))

    def write(self, *lines: Line) -> None:
        """Write lines."""
        for line in lines:
            self.lines.feed_data(encode(line))

    async def die(self, last: bytes = b"") -> None:
        """End, in the middle of a line perhaps."""
        self.lines.feed_data(last)
        self.lines.feed_eof()
        await self.following

    def _obey(self, data: bytes) -> None:
        order = decode_missed(data.strip())
        self.orders.append(order)
        if self.confirms:
            self.write(Counted(order.count, order.instead_of))


@pytest.fixture
async def reconciler(tmp_path: Path) -> AsyncGenerator[Reconciler]:
    """A running one."""
    running = make(tmp_path)
    await running.start()
    yield running
    await running.stop()


def make(directory: Path) -> Reconciler:
    """One on a free port."""
    return Reconciler(
        TcpAddress("127.0.0.1", 0), data_dir=directory, classifier=Classifier(), grace_s=GRACE_S
    )


async def send(reconciler: Reconciler, *messages: bytes) -> None:
    """Send messages as Envoy does, on one stream."""
    async with grpc.aio.insecure_channel(str(reconciler.address)) as channel:
        call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
            f"/{ACCESS_LOG_SERVICE}/{ACCESS_LOG_METHOD}"
        )
        assert await call(iter(messages)) == b""


def served(request_id: str, *, path: str = "/v1/messages?key=secret") -> HttpAccessLogEntry:
    """A turn request that Envoy finished just now."""
    made = entry()
    made.common_properties.start_time.FromNanoseconds(time.time_ns())
    made.common_properties.response_flags.Clear()
    made.request.request_id, made.request.path = request_id, path
    return made


async def settle(reconciler: Reconciler) -> None:
    """Let the grace pass, and tick twice: to decide, and to hear the worker's answer."""
    await asyncio.sleep(GRACE_S * 2)
    reconciler.tick()
    await lines_are_read()
    reconciler.tick()


async def lines_are_read() -> None:
    """Let whoever follows a worker begin, and read what there is: it waits for nothing but the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_what_a_worker_saw_is_matched_and_what_nobody_saw_is_counted_by_it(
    reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    worker = StubWorker(reconciler)
    worker.write(Begun(1, "seen", time.time_ns()), Ended(1, "", True, 200, 20))
    await lines_are_read()
    await send(reconciler, message(served("seen"), served("lost")), message(served("x", path="/v1/models")))
    await settle(reconciler)
    assert worker.orders == [Missed(1)]
    state = reconciler.state()
    assert (state["uncounted"], state["waiting_entries"], state["waiting_exchanges"]) == (0, 0, 0)
    page = reconciler.metrics().decode()
    assert 'steno_access_log_entries_total{ending="complete",verdict="matched"} 1.0' in page
    assert 'steno_access_log_entries_total{ending="complete",verdict="not_seen"} 1.0' in page
    assert 'steno_access_log_exchanges_total{fate="matched"} 1.0' in page
    assert "steno_access_log_other_requests_total 1.0" in page
    assert 'steno_access_log_status_total{status="2xx"} 2.0' in page
    assert 'steno_access_log_body_bytes_total{ending="complete",side="response"} 40.0' in page
    (record,) = (each for each in caplog.records if each.message == "a turn was served, but not seen")
    said = vars(record)
    assert (said["client_request_id"], said["status"], said["details"]) == ("lost", 200, "via_upstream")
    assert said["path"] == "/v1/messages", "a query may hold a key"
    await worker.die()


async def test_what_envoy_says_of_a_turn_is_found_by_its_id(
    reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    """On the state page, newest first and not for ever; in the log where somebody asks for all of it."""
    caplog.set_level(logging.DEBUG, "extproc.reconcile.reconciler")
    worker = StubWorker(reconciler)
    worker.write(Begun(1, "left", time.time_ns()), Ended(1, "", True, 200, 20, "turn-1"))
    await lines_are_read()
    aborted = served("left")
    aborted.common_properties.response_flags.downstream_connection_termination = True
    await send(reconciler, message(aborted))
    await settle(reconciler)
    told = cast("list[dict[str, object]]", reconciler.state()["recent"])
    wanted = {
        "turn_id": "turn-1", "client_request_id": "left", "verdict": "matched", "ending": "client_abort",
        "status": 200, "request_bytes": 10, "response_bytes": 20, "seen_bytes": 20, "path": "/v1/messages",
    }  # fmt: skip
    assert [told[0][name] for name in wanted] == list(wanted.values())
    (line,) = (vars(each) for each in caplog.records if each.message == "what Envoy says of a turn request")
    assert {name: line[name] for name in told[0]} == told[0]
    await send(reconciler, message(*(served(f"r{number}") for number in range(RECENT + 5))))
    await settle(reconciler)
    again = cast("list[dict[str, object]]", reconciler.state()["recent"])
    assert len(again) == RECENT
    assert "left" not in {each["client_request_id"] for each in again}
    await worker.die()


async def test_what_a_dying_worker_did_not_confirm_is_counted_by_the_next(reconciler: Reconciler) -> None:
    first = StubWorker(reconciler, confirms=False)
    await lines_are_read()
    await send(reconciler, message(served("lost")))
    await settle(reconciler)
    assert first.orders == [Missed(1)]
    await first.die(b'{"type":"begun","num')
    second = StubWorker(reconciler)
    await lines_are_read()
    await settle(reconciler)
    assert second.orders == [Missed(1)]
    assert reconciler.state()["uncounted"] == 0
    assert 'steno_access_log_unreadable_total{source="worker"} 1.0' in reconciler.metrics().decode()
    await second.die()


async def test_what_waits_at_a_stop_is_decided_and_owed_to_the_next_start(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.start()
    await send(first, message(served("lost")))
    await first.stop()
    second = make(tmp_path)
    await second.start()
    worker = StubWorker(second)
    await lines_are_read()
    second.tick()
    assert worker.orders == [Missed(1)]
    await worker.die()
    await second.stop()


async def test_many_losses_are_named_up_to_a_bound_and_counted_beyond(
    reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await send(reconciler, message(*(served(f"r{number}") for number in range(LINES_A_TICK + 5))))
    await asyncio.sleep(GRACE_S * 2)
    reconciler.tick()
    named = [each for each in caplog.records if each.message == "a turn was served, but not seen"]
    (more,) = (each for each in caplog.records if each.message == "more turn requests were not matched")
    assert (len(named), vars(more)["requests"]) == (LINES_A_TICK, 5)
    assert reconciler.state()["uncounted"] == LINES_A_TICK + 5


async def test_an_unreadable_message_is_counted_and_the_stream_goes_on(reconciler: Reconciler) -> None:
    worker = StubWorker(reconciler)
    await send(reconciler, b"\xff", message(served("lost")))
    assert 'steno_access_log_unreadable_total{source="envoy"} 1.0' in reconciler.metrics().decode()
    assert reconciler.state()["waiting_entries"] == 1
    await worker.die()


async def test_a_line_that_never_ends_is_counted_and_skipped(reconciler: Reconciler) -> None:
    worker = StubWorker(reconciler)
    worker.lines.feed_data(b"x" * 200_000 + b"\n")
    await lines_are_read()
    worker.write(Begun(1, "seen", time.time_ns()))
    await lines_are_read()
    assert reconciler.state()["waiting_exchanges"] == 1
    await worker.die()


async def test_a_fault_of_our_own_is_counted_and_stays_in_the_accounting(
    reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The supervisor's tasks live on, and read the next line."""

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    worker = StubWorker(reconciler)
    with monkeypatch.context() as patched:
        patched.setattr(Matcher, "begun", broken)
        patched.setattr(Matcher, "entry", broken)
        worker.write(Begun(1, "a", time.time_ns()))
        await send(reconciler, message(served("a")))
    worker.write(Begun(2, "b", time.time_ns()))
    await lines_are_read()
    assert "steno_access_log_faults_total 2.0" in reconciler.metrics().decode()
    assert [each.message for each in caplog.records] == ["reconciliation failed; capture goes on"] * 2
    assert reconciler.state()["waiting_exchanges"] == 1
    await worker.die()


async def test_a_taken_port_is_refused(reconciler: Reconciler, tmp_path: Path) -> None:
    second = Reconciler(reconciler.address, data_dir=tmp_path, classifier=Classifier(), grace_s=GRACE_S)
    with pytest.raises(AddressError, match=str(reconciler.address)):
        await second.start()
