"""The state behind ``grpc.health.v1``: one truth for the server and for the service it offers."""

from collections.abc import Callable

from extproc.wire import PROCESS_SERVICE, Serving

# Health is asked for the server as a whole (no name) or for its one service.
_SERVICES = frozenset({"", PROCESS_SERVICE})


class Health:
    """Serving or not; transports answer Check from it and follow it for Watch.

    Starts as not serving: the owner says when capture works. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._serving = False
        self._watchers: set[Callable[[], None]] = set()

    @property
    def serving(self) -> bool:
        """Whether new streams are welcome."""
        return self._serving

    @serving.setter
    def serving(self, serving: bool) -> None:
        """Say so; every watcher is called when it changed."""
        if serving == self._serving:
            return
        self._serving = serving
        for changed in tuple(self._watchers):
            changed()

    def status(self, service: str) -> Serving:
        """The answer for ``service``."""
        if service not in _SERVICES:
            return Serving.SERVICE_UNKNOWN
        return Serving.SERVING if self._serving else Serving.NOT_SERVING

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` at every change until the function returned here is called."""
        self._watchers.add(changed)
        return lambda: self._watchers.discard(changed)
