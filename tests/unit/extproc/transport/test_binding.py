"""An address has one owner, and goes from one generation to the next without a gap."""

import asyncio
import contextlib
import itertools
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from extproc.transport.address import AddressError, TcpAddress, UnixAddress
from extproc.transport.binding import claim, prefer_newest, probe
from tests.patience import kept_port
from tests.unit.extproc.transport.conftest import MakeTransport
from tests.unit.extproc.transport.peer import Peer, Recorder, events_of, exchange, status

CONNECTIONS = 20


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A foreign program that even shares its port with whoever asks."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


def of(listener: socket.socket) -> TcpAddress:
    return TcpAddress("127.0.0.1", int(listener.getsockname()[1]))


@pytest.fixture
def free_port() -> Iterator[Callable[[], TcpAddress]]:
    """Ports that nobody else gets while the test runs."""
    with contextlib.ExitStack() as held:

        def found() -> TcpAddress:
            return TcpAddress("127.0.0.1", held.enter_context(kept_port()))

        yield found


def test_a_port_that_another_program_shares_out_is_taken_all_the_same(
    listener: socket.socket, tmp_path: Path
) -> None:
    with pytest.raises(AddressError, match=f"127.0.0.1:{of(listener).port}.*another program"):
        claim(of(listener), tmp_path)


def test_a_refused_claim_leaves_no_lock_behind(listener: socket.socket, tmp_path: Path) -> None:
    address = of(listener)
    with pytest.raises(AddressError):
        claim(address, tmp_path)
    listener.close()
    claim(address, tmp_path).release()


CLAIM_AND_WAIT = """
import sys
from pathlib import Path
from extproc.transport.address import parse_address
from extproc.transport.binding import claim
claimed = claim(parse_address(sys.argv[1]), Path(sys.argv[2]))
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_claim_keeps_another_process_off_and_ends_with_its_owner(
    kind: str, tmp_path: Path, free_port: Callable[[], TcpAddress]
) -> None:
    address = free_port() if kind == "tcp" else UnixAddress(str(tmp_path / "s"))
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_WAIT, str(address), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        with pytest.raises(
            AddressError, match=f"{address}.*process {owner.pid} does so already.*kill -HUP {owner.pid}"
        ):
            claim(address, tmp_path)
        owner.kill()
    claim(address, tmp_path).release()


def test_two_data_directories_may_claim_two_addresses_of_one_machine(
    tmp_path: Path, free_port: Callable[[], TcpAddress]
) -> None:
    first, second = claim(free_port(), tmp_path), claim(free_port(), tmp_path)
    first.release()
    second.release()


def test_an_address_of_another_machine_is_refused_with_the_kernels_reason(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.1:4000: Cannot assign requested address"):
        claim(TcpAddress("192.0.2.1", 4000), tmp_path)


def test_a_socket_somebody_answers_at_is_taken_and_a_leftover_is_not(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(address.path)
        taken.listen()
        with pytest.raises(AddressError, match="another program answers there"):
            probe(address)
    assert Path(address.path).exists()
    probe(address)


def test_a_socket_in_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="create it first"):
        probe(UnixAddress(str(tmp_path / "absent" / "s")))


async def test_a_transport_on_a_taken_port_refuses_to_start_and_names_the_address(
    make_transport: MakeTransport, listener: socket.socket
) -> None:
    transport = make_transport(of(listener), Recorder())
    with pytest.raises(AddressError, match=str(of(listener))):
        await transport.start()
    await transport.stop(0)


async def test_two_transports_cannot_share_a_port_by_accident(make_transport: MakeTransport) -> None:
    first = make_transport(TcpAddress("127.0.0.1", 0), Recorder())
    await first.start()
    second = make_transport(first.address, Recorder())
    with pytest.raises(AddressError):
        await second.start()
    await second.stop(0)
    await first.stop(0)


def listening_on(address: TcpAddress) -> socket.socket:
    """One more listener of a port that several share."""
    generation = socket.socket()
    generation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    generation.bind((address.host, address.port))
    generation.listen()
    generation.setblocking(False)
    return generation


def taken_up(*generations: socket.socket) -> tuple[int, ...]:
    """How many of the connections that were made wait at each listener: a busy kernel may hand them over late."""
    counts = dict.fromkeys(generations, 0)
    until_s = time.monotonic() + 20
    while sum(counts.values()) < CONNECTIONS and time.monotonic() < until_s:
        for ready in select.select(generations, [], [], 1.0)[0]:
            ready.accept()[0].close()
            counts[ready] += 1
    return tuple(counts.values())


def test_while_two_generations_listen_every_new_connection_goes_to_the_newer(listener: socket.socket) -> None:
    """And to the only one before and after; also to the third, once the first has left."""
    listener.setblocking(False)
    address = of(listener)

    def connect() -> None:
        for _ in range(CONNECTIONS):
            socket.create_connection((address.host, address.port)).close()

    assert prefer_newest(address)
    connect()
    assert taken_up(listener) == (CONNECTIONS,)
    with listening_on(address) as second:
        connect()
        assert taken_up(listener, second) == (0, CONNECTIONS)
        listener.close()
        connect()
        assert taken_up(second) == (CONNECTIONS,)
        with listening_on(address) as third:
            connect()
            assert taken_up(second, third) == (0, CONNECTIONS)
        connect()
        assert taken_up(second) == (CONNECTIONS,)


def test_no_rule_is_made_for_a_port_that_is_not_ours(listener: socket.socket) -> None:
    assert not prefer_newest(TcpAddress("127.0.0.1", of(listener).port + 1))


async def hand_over(make_transport: MakeTransport, address: TcpAddress | UnixAddress) -> None:
    """Restart under traffic: the new generation binds first, then the old one stops with grace."""
    old_recorder, new_recorder = Recorder(), Recorder()
    messages = exchange(observe=True)
    old = make_transport(address, old_recorder, reuse_port=True)
    await old.start()
    async with Peer(old.address) as envoy:
        open_call = envoy.call()
        await open_call.write(messages[0])
        stream = await old_recorder.stream()
        await stream.until(lambda each: bool(each.events))
        new = make_transport(old.address, new_recorder, reuse_port=True)
        await new.start()
        stopping = asyncio.ensure_future(old.stop(60))
        await asyncio.sleep(0.2)
        for message in messages[1:]:
            await open_call.write(message)
        assert await status(open_call) is grpc.StatusCode.OK
        await stopping
    assert stream.events == events_of(messages)
    async with Peer(new.address) as envoy:
        call = envoy.call()
        for message in messages:
            await call.write(message)
        assert await status(call) is grpc.StatusCode.OK
    await new.stop(0)
    assert [each.events for each in new_recorder.streams] == [events_of(messages)]


async def test_a_new_generation_takes_over_a_port_without_losing_a_stream(
    make_transport: MakeTransport,
) -> None:
    await hand_over(make_transport, TcpAddress("127.0.0.1", 0))


async def test_a_new_generation_takes_over_a_socket_without_losing_a_stream(
    make_transport: MakeTransport, tmp_path: Path
) -> None:
    await hand_over(make_transport, UnixAddress(str(tmp_path / "s")))
    assert not (tmp_path / "s").exists()


async def test_a_public_socket_path_always_leads_somewhere_during_a_handover(
    make_transport: MakeTransport, tmp_path: Path
) -> None:
    public = tmp_path / "s"
    generations = [make_transport(UnixAddress(str(public)), Recorder()) for _ in range(3)]
    await generations[0].start()
    for old, new in itertools.pairwise(generations):
        before = public.stat().st_ino
        await new.start()
        assert public.stat().st_ino != before
        await old.stop(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(public))
    await generations[-1].stop(0)
    assert not public.exists()
