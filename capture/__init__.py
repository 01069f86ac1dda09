"""The pure core: bytes of one HTTP exchange in, one turn out.

Nothing here does I/O, reads a clock or knows Envoy: the sidecar, the ingest
service and the command line share it. ``docs/architecture.md`` draws the map.
"""
