"""Why a connection cannot go on: raised where it shows, caught once, told in a GOAWAY."""

from extproc.transport.http2.frames import ErrorCode
from extproc.transport.reasons import Reason


class BrokenError(Exception):
    """The connection cannot go on. ``code`` and ``reason`` are what its GOAWAY says."""

    def __init__(self, code: ErrorCode, reason: Reason) -> None:
        super().__init__(reason.value)
        self.code = code
        self.reason = reason


def violation() -> BrokenError:
    """What most violations are."""
    return BrokenError(ErrorCode.PROTOCOL_ERROR, Reason.PROTOCOL)


def wrong_size() -> BrokenError:
    """A frame of a length that its kind cannot have."""
    return BrokenError(ErrorCode.FRAME_SIZE_ERROR, Reason.FRAME_SIZE)


def overrun() -> BrokenError:
    """A window was overrun, or widened too far."""
    return BrokenError(ErrorCode.FLOW_CONTROL_ERROR, Reason.FLOW_CONTROL)


def too_much(reason: Reason) -> BrokenError:
    """No violation, but more than is good for us."""
    return BrokenError(ErrorCode.ENHANCE_YOUR_CALM, reason)
