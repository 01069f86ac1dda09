"""Idempotency keys as the store knows them: a hash of 16 bytes, with its tenant in it.

Hashes fall anywhere in their index: of a large store each new one changes a page of its own, which
PostgreSQL logs whole after a checkpoint (at a million turns 5 KB a turn, and a third of its time). Keys
that are UUIDv7, as our sidecar's are, begin with the time, and so does their hash: they go to the end of
the index, at any size.
"""

import re
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 16
PATTERN: Final = "xxxxxxxx-xxxx-7xxx-yxxx-xxxxxxxxxxxx".replace("x", "[0-9a-f]").replace("y", "[89ab]")
"""The text of a UUIDv7 (RFC 9562 §5.7) in lower case, for regular expressions and for SQLite's GLOB."""
_PATTERN: Final = re.compile(PATTERN)
_TIME_BYTES: Final = 6


def key_hash(tenant: str, key: str) -> bytes:
    """The tenant's idempotency key, in :data:`HASH_BYTES`."""
    text = f"{tenant}\0{key}".encode("utf-8", "surrogatepass")
    return placed(sha256(text).digest()[:HASH_BYTES], key)


def placed(hashed: bytes, key: str) -> bytes:
    """The hash of ``key`` at its place: as it came, or behind the time of a UUIDv7.

    Takes hashes of earlier versions, which stood anywhere, and those that are in their place already.
    """
    if not _PATTERN.fullmatch(key):
        return hashed
    time = bytes.fromhex(key[:8] + key[9:13])
    return hashed if hashed.startswith(time) else time + hashed[: HASH_BYTES - _TIME_BYTES]
