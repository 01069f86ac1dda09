"""How the C library's allocator keeps memory: large blocks go back to the system when they are freed.

glibc learns from the first large block freed to keep blocks of up to 32 MiB for later, in an arena
for every thread. Bodies of megabytes come and go here on several threads, so that a worker would keep
many times what it holds (measured with 64 request bodies of 32 MiB at once: 534 MiB at the peak, 411 MiB
with these two settings).
"""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

OWN_MAPPING_FROM_BYTES: Final = 1 << 20
ARENAS: Final = 2


def give_large_blocks_back() -> bool:
    """Set both. False: this C library has no such settings. Call it before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    set_both = [mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING_FROM_BYTES), mallopt(_M_ARENA_MAX, ARENAS)]
    return all(set_both)
