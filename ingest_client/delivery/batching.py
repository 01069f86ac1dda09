"""Several turns in one request: how the body is joined, and what the answer says of each.

The bodies were marshalled once and are joined as bytes, never read again. The answer of
``/v1/ingest/batch`` is ``{accepted, rejected, errors, results: [{index, id, status,
error}]}``; ``results`` decide turn by turn. What an answer leaves undecided is sent again
singly: ingest drops repeats, so that costs time and never a turn.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from ingest_client.delivery.classify import Fate, Reason, Scope, Verdict, classify_status

BATCH_PATH: Final = "/v1/ingest/batch"

_OPEN: Final = b'{"turns":['
_CLOSE: Final = b"]}"

UNSUPPORTED: Final = frozenset({404, 405, 501})
"""Statuses by which an endpoint says that it has no such route."""


def join(bodies: Sequence[bytes]) -> bytes:
    """The batch request body: marshalled turns side by side, byte for byte as they are."""
    return b"".join((_OPEN, b",".join(bodies), _CLOSE))


class _Result(Struct):
    index: int | None = None
    id: str | None = None
    status: int | str | None = None
    error: object = None


class _BatchAnswer(Struct):
    rejected: int = 0
    errors: object = None
    results: list[_Result] | None = None


_DECODER: Final = msgspec.json.Decoder(_BatchAnswer)

_WORDS: Final = {"accepted": 202, "duplicate": 202, "ok": 202}

UNDECIDED: Final = Verdict(Fate.RETRY, Reason.BATCH_UNDECIDED, Scope.TURN)
"""The answer does not say what became of this turn: send it again, alone."""


def verdicts(status: int, body: bytes, turn_ids: Sequence[str], shortfall: Reason | None) -> list[Verdict]:
    """What the answer to a batch says of each of its turns, in their order.

    ``UNDECIDED`` stands for every turn that the answer says nothing usable about: send
    it again singly. ``shortfall`` is why the answer is not complete, None for a complete one.
    """
    whole = classify_status(status, shortfall=shortfall)
    answer = None if shortfall is not None else _decode(body)
    if answer is not None and answer.results:
        return _by_result(answer.results, turn_ids)
    if whole.fate is Fate.ACCEPTED and (answer is None or not (answer.rejected or answer.errors)):
        return [whole] * len(turn_ids)
    if whole.fate in (Fate.ACCEPTED, Fate.REFUSED) or whole.reason is Reason.ANSWER_TOO_LARGE:
        # Some turn was rejected and the answer does not say which, or says it beyond the bound.
        return [UNDECIDED] * len(turn_ids)
    return [whole] * len(turn_ids)


def _decode(body: bytes) -> _BatchAnswer | None:
    """The answer's members; None for a body that is no JSON. JSON of another shape counts as a rejection."""
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError:
        return _BatchAnswer(rejected=1)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _by_result(results: Sequence[_Result], turn_ids: Sequence[str]) -> list[Verdict]:
    """Each result speaks of the turn at its index; where it names another id, it speaks of none."""
    found = [UNDECIDED] * len(turn_ids)
    for position, result in enumerate(results):
        index = position if result.index is None else result.index
        if 0 <= index < len(turn_ids) and result.id in (None, "", turn_ids[index]):
            found[index] = _verdict(result)
    return found


def _verdict(result: _Result) -> Verdict:
    status = _WORDS.get(result.status.lower()) if isinstance(result.status, str) else result.status
    if status is None or not 100 <= status <= 599:  # noqa: PLR2004 - the range of HTTP
        return UNDECIDED
    text = "" if result.error is None else str(result.error)
    return classify_status(status, text=text)
