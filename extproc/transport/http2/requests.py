"""What a whole header block means: a new RPC, an RPC's trailers, or something too late."""

from extproc.transport.http2.blocks import Block
from extproc.transport.http2.broken import BrokenError, violation
from extproc.transport.http2.frames import ErrorCode
from extproc.transport.http2.happenings import Opened
from extproc.transport.http2.heads import MalformedHeadError, check_trailers, read_head
from extproc.transport.http2.limits import Limits
from extproc.transport.http2.outgoing import Outgoing
from extproc.transport.http2.streams import Change, State, StreamRecord
from extproc.transport.http2.table import StreamTable
from extproc.transport.reasons import Reason

_HTTP_OK = 200


class Requests:
    """Opens streams. ``refusing``: the peer was told the last one that will be taken."""

    def __init__(self, limits: Limits, table: StreamTable, out: Outgoing) -> None:
        self.refusing = False
        self._limits = limits
        self._table = table
        self._out = out

    def take(self, block: Block) -> None:
        """A whole block, whatever it is for."""
        table = self._table
        stream = table.open.get(block.stream_id)
        if stream is not None:
            self._trailers(stream, block)
        elif block.stream_id > table.last_id:
            self._request(block)
        else:
            by_us = table.was_reset_by_us(block.stream_id)
            if by_us is None:
                raise violation()
            if not by_us:
                raise BrokenError(ErrorCode.STREAM_CLOSED, Reason.STREAM_CLOSED)

    def _trailers(self, stream: StreamRecord, block: Block) -> None:
        """A second block ends the peer's side."""
        if stream.state is State.PEER_ENDED:
            self._table.reset(stream.id, ErrorCode.STREAM_CLOSED)
            return
        ended = block.ended
        try:
            check_trailers(block.fields)
        except MalformedHeadError:
            ended = False
        if ended:
            self._table.peer_ends(stream)
        else:
            self._table.reset(stream.id, ErrorCode.PROTOCOL_ERROR)

    def _request(self, block: Block) -> None:
        """A new stream, unless there are too many, or it is none."""
        table = self._table
        if not self.refusing:
            table.last_id = block.stream_id
        if self.refusing or len(table.open) >= self._limits.streams:
            table.reset(block.stream_id, ErrorCode.REFUSED_STREAM)
            return
        try:
            head = read_head(block.fields)
        except MalformedHeadError:
            table.reset(block.stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        stream = table.add(block.stream_id, head.content_length)
        if head.status == _HTTP_OK:
            table.heard.append(Opened(stream.id, head.path, head.metadata, head.timeout_s))
        elif self._out.refuse(stream, head.status):
            table.change(stream, Change.WE_END)
        if block.ended:
            table.peer_ends(stream)
