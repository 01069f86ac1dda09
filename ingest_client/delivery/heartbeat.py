"""``GET /ping``: whether an endpoint is alive, and what it says about itself.

Any answer is a sign of life, for not every ingest has the route. Only an explicit word
keeps turns away: a 5xx (``not_ready``), or JSON whose ``status`` is ``draining``. The
JSON may also name the batch it prefers: ``{"batch": {"turns": 64, "bytes": 1048576}}``.
"""

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from ingest_client.delivery.endpoints import Readiness

PING_PATH: Final = "/ping"

_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heartbeat's answer says. None: it names no preference."""

    readiness: Readiness
    batch_turns: int | None = None
    batch_bytes: int | None = None


class _Batch(Struct):
    turns: int | None = None
    bytes: int | None = None


class _Ping(Struct):
    status: str = ""
    batch: _Batch | None = None


_DECODER: Final = msgspec.json.Decoder(_Ping)


def read_pulse(status: int, body: bytes) -> Pulse:
    """Read the answer to a heartbeat. Never raises: an unreadable body says nothing."""
    try:
        ping = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        ping = _Ping()
    batch = ping.batch or _Batch()
    if ping.status == "draining":
        readiness = Readiness.DRAINING
    elif status >= _SERVER_ERROR:
        readiness = Readiness.NOT_READY
    else:
        readiness = Readiness.READY
    return Pulse(readiness, batch.turns, batch.bytes)
