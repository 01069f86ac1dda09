"""Whatever Envoy or an attacker sends, an exchange has exactly one outcome."""

from hypothesis import given
from hypothesis import strategies as st

from capture.outcomes import Outcome
from extproc.assemble import TurnIdentity, assemble
from extproc.events import Body, BodyMode, BodyModes, Event, Headers, Side, StreamEnd, Trailers
from extproc.exchange import Concluded, Exchange, ExchangeRules
from extproc.policy import OnePolicy
from tests.unit.extproc.playbook import LATER, REQUEST, SSE, START

_sides = st.sampled_from(Side)
_modes = st.none() | st.builds(BodyModes, st.sampled_from(BodyMode), st.sampled_from(BodyMode))
_pairs = st.tuples(
    st.sampled_from([":status", ":path", ":method", "content-type", "content-encoding", "x-tapes-cwd"]),
    st.sampled_from(["200", "101", "500", "/v1/messages", "POST", "text/event-stream", "gzip", "\udcff", ""]),
)
_headers = st.builds(
    Headers, _sides, st.lists(_pairs, max_size=6).map(tuple), st.booleans(), st.booleans(), _modes
)
_bodies = st.builds(
    Body, _sides, st.sampled_from([REQUEST, SSE, b"", SSE[:99]]) | st.binary(max_size=40), st.booleans(),
    st.booleans(), _modes,
)  # fmt: skip
_messages = st.one_of(_headers, _bodies, st.builds(Trailers, _sides, st.booleans(), _modes))


@given(st.lists(_messages, max_size=12), st.sampled_from(StreamEnd))
def test_any_message_order_gives_exactly_one_outcome(messages: list[Event], end: StreamEnd) -> None:
    """And what it gives is a record with a body, or an outcome of the closed enum."""
    exchange = Exchange(ExchangeRules(OnePolicy()), START)
    commands = [command for event in (*messages, end, end) for command in exchange.receive(event, LATER)]
    conclusions = [command for command in commands if isinstance(command, Concluded)]
    assert len(conclusions) == 1
    outcome = conclusions[0].outcome
    made = outcome if outcome is not None else assemble(conclusions[0].captured, TurnIdentity("t"))
    assert isinstance(made, Outcome) or made.body
