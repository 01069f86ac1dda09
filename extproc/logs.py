"""Logs as one JSON object a line on stderr: names and reasons, never contents."""

import json
import logging
import time
from collections.abc import Callable, Hashable
from typing import Final

EVERY_S: Final = 1.0

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a record as JSON. Members given by ``extra`` follow the standard ones.

    JSON escapes every control character, so no value can forge a line of its own.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        members: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "source": self._source,
            "logger": record.name,
            "message": record.getMessage(),
        }
        members |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members, default=str)


class Seldom:
    """Which lines to log of what may come by the thousand: of each kind one a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: monotonic seconds."""
        self._clock = clock
        self._logged_s: dict[Hashable, float] = {}

    def due(self, kind: Hashable) -> bool:
        """Whether to log one of this kind now; if so, the next is due in a second."""
        now_s = self._clock()
        if now_s - self._logged_s.get(kind, -EVERY_S) < EVERY_S:
            return False
        self._logged_s[kind] = now_s
        return True


def log_to_stderr(source: str, level: str) -> None:
    """Send the process's logs to stderr as JSON lines. ``source`` names the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(source))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
