"""What a stored turn becomes: pure functions of its row and its body.

``derive`` does one turn and is the entry; ``sessions``, ``steps`` and ``kinds`` are its
parts; ``stored`` reads what was sent, and ``view`` is the provider-neutral view that the API
shows (``canonical``: where only the contract's response tells). Derivation can be repeated at any
time with the same result: every name in it is made from content, or from what the turn says of itself.
"""
