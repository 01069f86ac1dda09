"""HTTP/2 and gRPC for one job: taking in many streams of small messages, cheaply.

Theory of operation. ``connection`` is the protocol without any input or output: bytes
in, events out, and bytes to send kept until they are taken. ``protocol`` gives it a
socket and the clock; ``server`` is the ``Transport``.

* **Frames** (``frames``, ``bodies``): one loop over each read; a DATA frame that holds exactly
  one message costs one unpack, one slice and one event. Every other kind has a row in the
  table of ``connection``; ``control`` has the kinds that are not about a body or a header.
* **Streams** (``streams``, ``table``): RFC 9113 §5.1 as a table ``(state, change) -> state``. A
  stream leaves when both sides have ended or one has reset it; of those that left lately
  the numbers are kept, because a late frame for one we have reset is no error. Nothing more
  is told of an RPC that we have finished.
* **Windows** (``bodies``, ``outgoing``): what arrives is consumed at once, so its credit is
  returned at once, in steps of half a window. Answers wait in their stream when the peer's
  windows are shut.
* **Memory** (``memory``): windows are promises; parts of messages and waiting answers are
  held in fact. All connections of a server share one budget, each has limits of its own.
* **Headers** (``blocks``, ``requests``, ``heads``): decoded by ``hpack`` under limits. Ours never
  touch the dynamic table, so they are constants.
* **Floods** (``limits``): each kind of frame that costs us something and the peer nothing
  is paid for from a bucket that time refills. An empty one ends the connection with a
  GOAWAY whose debug data is the reason, and the reason is counted.
* **Reading** (``reading``): while every stream of a connection is in observability mode,
  nobody waits for us, and few large reads are cheaper than many small ones. A read that
  takes long is worked on in turns with the other connections.
"""
