"""The upstream's bytes of a turn, reduced here: at the door for raw-only turns, behind it for the view."""

from msgspec import Struct

from capture.dialects.catalog import CATALOG
from capture.dialects.fold import RequestFacts
from capture.reduce import ResponseFacts, ResponseReducer
from capture.requests.catalog import dialect_of
from capture.turn import Ending, Turn


class Answer(Struct, frozen=True, kw_only=True):
    """The upstream's bytes, and what is known of them; empty texts are not known."""

    provider: str
    dialect: str = ""
    request: object
    path: str = ""
    model: str = ""
    content_type: str = ""
    raw: bytes
    encoding: str = ""


def reduce(answer: Answer) -> tuple[Turn, bool] | None:
    """The turn, and whether it was streamed; None where nothing here reads such bytes.

    Never raises for them.
    """
    dialect = dialect_of(answer.provider, answer.dialect, answer.request)
    if dialect not in CATALOG:
        return None
    reducer = ResponseReducer(
        dialect,
        RequestFacts(path=answer.path, model=answer.model),
        ResponseFacts(content_type=answer.content_type, content_encoding=answer.encoding),
    )
    reducer.feed(answer.raw)
    turn = reducer.finish(Ending.COMPLETE)
    return (turn, reducer.is_stream) if isinstance(turn, Turn) else None
