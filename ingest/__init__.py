"""The ingest service: takes turns, keeps them for good, links them, gives them back.

``docs/ingest.md`` describes it; ``routes`` is its table of contents, ``app`` puts it together.
"""
