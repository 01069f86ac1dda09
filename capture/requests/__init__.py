"""Request bodies of every dialect, read into one shape.

``read(dialect, body)`` gives a :class:`Request` and never raises; ``label(request)`` names a turn.
"""

from capture.requests.catalog import dialect_of, read
from capture.requests.label import estimate_tokens, label
from capture.requests.request import Request, RequestMessage

__all__ = ["Request", "RequestMessage", "dialect_of", "estimate_tokens", "label", "read"]
