"""What a stored turn becomes: pure functions of its row and its body.

``derive`` does one turn and is the entry; ``sessions``, ``steps`` and ``kinds`` are its
parts; ``canonical`` is the provider-neutral view that the API shows. Derivation can be
repeated at any time with the same result: every name in it is made from content, or from
what the turn says of itself.
"""
