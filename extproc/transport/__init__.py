"""How ext_proc streams reach Steno: one seam, several transports.

``base`` has the seam, ``stream`` what every transport does with one stream's messages,
``address``, ``binding`` and ``health`` what every server needs; ``grpcio`` is the
transport that always works. Everything above the seam is shared.
"""
