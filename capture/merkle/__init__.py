"""Content-addressed conversations: a hash for every message, chained to what came before.

``build_chain(provider, dialect, request, response)`` gives the nodes of a stored turn;
``node_hash(parent, role, blocks)`` names one. Both take decoded JSON and never raise
for it. What is hashed: ``projection``. How it is written: ``canonical_json``.
"""

from capture.merkle.canonical_json import canonical_json
from capture.merkle.chain import Node, build_chain, chain
from capture.merkle.projection import canonical_node, node_hash

__all__ = ["Node", "build_chain", "canonical_json", "canonical_node", "chain", "node_hash"]
