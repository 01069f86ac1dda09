"""The seam between a transport and what is above it.

A transport accepts ext_proc streams, asks the ``StreamAcceptor`` for a handler for each,
gives it every event in order, and writes the answers that come back. The reader never
waits: handlers are plain functions that return at once, so a transport reads its next
message without delay whatever happens with the last one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from extproc.events import Answer, Body, Finish, Headers, StreamEnd, Trailers
from extproc.transport.address import Address
from extproc.transport.health import Health
from extproc.transport.reasons import Reason
from extproc.wire import Undecodable

# Envoy sends up to 1 MiB in a message, more when it gathers an upload (2 MiB was seen);
# gRPC's default limit of 4 MiB would end a stream whose buffer limit an operator has raised.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

Message: TypeAlias = Headers | Body | Trailers
Command: TypeAlias = Answer | Finish


class StreamHandler(Protocol):
    """What one ext_proc stream's messages are given to."""

    def receive(self, event: Message) -> Sequence[Command]:
        """Take the next message; return the answers to write, in order.

        Must return at once. A ``Finish`` ends the RPC with OK after the answers before it;
        nothing is received after it. In observability mode answers are neither needed nor
        written. An exception costs the stream its capture, never its traffic: the
        transport answers pass-through from there on (see ``extproc.transport.stream``).
        """
        ...

    def ended(self, end: StreamEnd) -> None:
        """The stream is over. Called exactly once, and last.

        ``EOF`` also after our own ``Finish``; ``ERROR`` when ``receive`` raised, when a
        message could not be decoded, or when the connection broke.
        """
        ...


class StreamAcceptor(Protocol):
    """Makes a handler for each new stream."""

    def open(self, initial_metadata: Mapping[str, str]) -> StreamHandler:
        """A stream has begun. ``initial_metadata``: the RPC's headers, names in lower case;
        repeated ones are joined with a comma, binary ones (``-bin``) left out.
        """
        ...


@dataclass(slots=True)
class TransportCounters:
    """What a transport did, for the metrics. Monotonic; the owner reads, the transport writes."""

    streams_opened: int = 0
    streams_ended: Counter[StreamEnd] = field(default_factory=Counter[StreamEnd])
    messages: int = 0
    message_bytes: int = 0
    answers: int = 0
    undecodable: Counter[Undecodable] = field(default_factory=Counter[Undecodable])
    handler_errors: int = 0
    broken_connections: Counter[Reason] = field(default_factory=Counter[Reason])

    @property
    def streams_open(self) -> int:
        """Streams that are open now."""
        return self.streams_opened - self.streams_ended.total()


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM texts of a TLS server. With ``client_ca``, clients must show a certificate it signed."""

    certificate_chain: bytes
    private_key: bytes
    client_ca: bytes | None = None


class Transport(Protocol):
    """A server of ``ExternalProcessor/Process`` and of ``grpc.health.v1`` on one address."""

    @property
    def address(self) -> Address:
        """Where it listens; after ``start`` with the port that was really bound."""
        ...

    @property
    def counters(self) -> TransportCounters:
        """What it did so far."""
        ...

    @property
    def health(self) -> Health:
        """What it answers to health checks; the owner sets it."""
        ...

    async def start(self) -> None:
        """Bind and accept. Raises ``AddressError`` when the address cannot be had."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let open streams end within ``grace_s`` seconds, cancel the rest.

        Every handler has heard ``ended`` when this returns. Called again, it can only end earlier.
        """
        ...

    async def retire(self, grace_s: float) -> None:
        """Stop as ``stop`` does, where another generation listens on the address already.

        New connections go there, and the old ones are asked to move before anything is refused:
        no stream that the peer opens meanwhile is lost. May be cancelled by who then calls ``stop``.
        """
        ...
