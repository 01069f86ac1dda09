"""HTTP/2 and gRPC for one job: taking in many streams of small messages, cheaply.

Theory of operation. ``connection`` is the protocol without any input or output: bytes
in, events out, and bytes to send kept until they are taken. ``protocol`` gives it a
socket and the clock; ``server`` is the ``Transport``.

* **Frames** (``frames``): one loop over each read; a DATA frame that holds exactly one
  message costs one slice and one event. Every other kind of frame has a row in a table.
* **Streams** (``streams``): RFC 9113 §5.1 as a table ``(state, event) -> state``. A stream
  leaves the table when both sides have ended or one has reset it; of those that left
  lately the numbers are kept, because a late frame for one we have reset is no error.
* **Windows**: what arrives is consumed at once, so its credit is returned at once, in
  steps of half a window. The windows are the promise of memory for bytes in flight; a
  message that arrives in parts is held within a budget of its own (``Limits``).
  Answers wait in their stream when the peer's windows are shut, within another.
* **Headers** (``heads``): decoded by ``hpack`` under limits. Ours never touch the dynamic
  table, so they are constants.
* **Floods** (``limits``): each kind of frame that costs us something and the peer nothing
  is paid for from a bucket that time refills. An empty one ends the connection with a
  GOAWAY whose debug data is the reason, and the reason is counted.
* **Rest** (``protocol``): while every stream of a connection is in observability mode,
  nobody waits for us, and few large reads are cheaper than many small ones.
"""
