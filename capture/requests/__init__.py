"""Request bodies of every dialect, read into one shape.

``catalog.read(dialect, body)`` gives a :class:`Request`; ``label`` names a turn by it.
"""

from capture.requests.catalog import dialect_of, read
from capture.requests.request import Request, RequestMessage

__all__ = ["Request", "RequestMessage", "dialect_of", "read"]
