"""Between a transport's streams and the pipeline: one Exchange for each stream."""

from collections.abc import Callable, Mapping, Sequence

from extproc.captured import Instant
from extproc.checkpoints import Checkpointer
from extproc.events import Body, Headers, StreamEnd, Trailers
from extproc.exchange import Command as Decided
from extproc.exchange import Concluded, Exchange, ExchangeRules, RequestEnded
from extproc.pipeline import Pipeline
from extproc.reconcile.feed import Feed, metadata_request_id
from extproc.transport.base import Command
from ingest_client.ledger import Ledger


class Recorder:
    """Opens an Exchange for each stream (a ``StreamAcceptor``)."""

    def __init__(
        self,
        *,
        rules: ExchangeRules,
        pipeline: Pipeline,
        checkpointer: Checkpointer,
        ledger: Ledger,
        clock: Callable[[], Instant],
        feed: Feed | None = None,
    ) -> None:
        """``feed`` tells the supervisor of exchanges, where it reads Envoy's access log."""
        self.rules = rules
        self.pipeline = pipeline
        self.checkpointer = checkpointer
        self.clock = clock
        self.feed = feed
        self._ledger = ledger
        self.unexpected_messages = 0

    def open(self, initial_metadata: Mapping[str, str]) -> "RecordedStream":
        """A stream began: an exchange is observed."""
        self._ledger.observe()
        return RecordedStream(self, metadata_request_id(initial_metadata))


class RecordedStream:
    """One stream and its Exchange (a ``StreamHandler``)."""

    __slots__ = ("_at", "_exchange", "_number", "_recorder", "_watched")

    def __init__(self, recorder: Recorder, request_id: str) -> None:
        self._recorder = recorder
        self._number = 0
        self._at = recorder.clock()
        self._exchange = Exchange(recorder.rules, self._at)
        self._watched = recorder.checkpointer.watch(self._exchange, self._at)
        self._tell_of_it(request_id)

    def receive(self, event: Headers | Body | Trailers) -> Sequence[Command]:
        """Take one message; return the answers to write."""
        # The machine reads the time of headers and endings only: body chunks in between
        # come by the million and need no clock.
        if isinstance(event, Body) and not event.end_of_stream:
            commands = self._exchange.receive(event, self._at)
            return self._carry_out(commands) if commands else ()
        self._at = self._recorder.clock()
        commands = self._exchange.receive(event, self._at)
        if not self._number and isinstance(event, Headers):
            self._tell_of_it(self._exchange.captured.envelope.request_id)
        return self._carry_out(commands)

    def ended(self, end: StreamEnd) -> None:
        """The stream is over; so is the exchange, if it was not before."""
        self._at = self._recorder.clock()
        self._carry_out(self._exchange.receive(end, self._at))
        self._recorder.unexpected_messages += self._exchange.unexpected

    def _carry_out(self, commands: Sequence[Decided]) -> Sequence[Command]:
        """Do what is ours to do; return what the transport must."""
        answers: list[Command] = []
        for command in commands:
            if isinstance(command, Concluded):
                self._watched.end()
                command.captured.exchange_number = self._number
                self._recorder.pipeline.conclude(command)
            elif isinstance(command, RequestEnded):
                self._recorder.pipeline.shelf.put(command.request)
            else:
                answers.append(command)
        return answers

    def _tell_of_it(self, request_id: str) -> None:
        """Announce the exchange as soon as it has a name."""
        if request_id and self._recorder.feed is not None:
            self._number = self._recorder.feed.begun(request_id, self._at.wall_ns)
