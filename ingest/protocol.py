"""uvicorn's protocol, and what it leaves out: a client's certificate, and clients that never ask.

TLS has verified the certificate before the connection is made. Its names go into the state of every
request of the connection; what they are good for is looked up for each, so that a key
taken out of the keys file ends on open connections, too.

A connection that brings no whole head of a request in time is closed (uvicorn itself looks after those that
rest after an answer). Where there are as many as the process has files to spare, a new one
takes the place of the one that has waited longest without a head, or is closed itself: the store's files
must open, and those who ask are answered.
"""

import asyncio
import resource
from typing import Final, cast

from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest.certificates import names_of
from ingest.metrics import Closed
from ingest.service import Service
from ingest.writing import CERTIFICATE

HEAD_S: Final = 30.0
"""As long as the body's patience begins with: a head is one packet, or a few."""
_SPARE_FILES: Final = 64
"""For the store's connections, each of up to three files, and for files that are read again."""
_MOST: Final = 10_000
"""Connections cost memory, too, where files are without limit."""


def most_connections() -> int:
    """How many may be open at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(_MOST, soft - _SPARE_FILES))


class ClientProtocol(HttpToolsProtocol):
    """HTTP/1.1 from one client."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who it is, and wait for a head."""
        super().connection_made(transport)
        names = names_of(transport.get_extra_info("peercert"))
        self.app_state = {**self.app_state, CERTIFICATE: names}
        self._wait()
        if len(self.connections) > most_connections():
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, from the first byte of a head to its last."""
        super().data_received(data)
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first head
        if cycle is not None and not cycle.response_complete:
            self._wait_no_more()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def late_at_s(self) -> float | None:
        """When the head that it waits for is too late, by the loop's clock; None when it waits for none."""
        return self._late.when() if self._late is not None else None

    def give_up(self, reason: Closed) -> None:
        """Close the connection, and count it."""
        service = cast("Service", cast("Starlette", self.config.app).state.service)
        service.metrics.closed.labels(reason).inc()
        self._wait_no_more()
        self.transport.abort()

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self.give_up, Closed.NO_HEAD)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _make_room(self) -> None:
        others = (one for one in self.connections if isinstance(one, ClientProtocol) and one is not self)
        waiting = [(one.late_at_s, one) for one in others if one.late_at_s is not None]
        oldest = min(waiting, key=lambda pair: pair[0])[1] if waiting else self
        oldest.give_up(Closed.CROWDED)
