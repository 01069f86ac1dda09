"""Hashes of idempotency keys: those of keys that begin with the time do so, too."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ids import uuid7
from ingest.store.keys import HASH_BYTES, key_hash, placed

TIMES = st.integers(0, (1 << 48) - 1)
RANDOM = st.binary(min_size=10, max_size=10)


@given(TIMES, TIMES, RANDOM, RANDOM)
def test_hashes_of_our_own_keys_sort_by_the_millisecond(
    one: int, two: int, first: bytes, second: bytes
) -> None:
    hashes = [key_hash("default", uuid7(one, first)), key_hash("default", uuid7(two, second))]
    assert all(len(hashed) == HASH_BYTES for hashed in hashes)
    if one < two:
        assert hashes[0] < hashes[1]


@given(TIMES, RANDOM, st.text(), st.text())
def test_a_hash_that_stood_anywhere_is_put_in_its_place_once(
    now_ms: int, random: bytes, tenant: str, other: str
) -> None:
    for key in (uuid7(now_ms, random), other):
        anywhere = sha256(f"{tenant}\0{key}".encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]
        assert placed(anywhere, key) == key_hash(tenant, key) == placed(key_hash(tenant, key), key)


def test_keys_of_two_tenants_are_two() -> None:
    key = uuid7(7, bytes(10))
    assert key_hash("a", key) != key_hash("b", key)


OURS = "0199f2d4-aaaa-7bbb-8ccc-ddddddddddd1"


@pytest.mark.parametrize(
    "key", [OURS.upper(), OURS + "0", OURS.replace("-7", "-4"), OURS.replace("-8", "-c")]
)
def test_what_is_no_uuid_of_version_7_stays_anywhere(key: str) -> None:
    assert key_hash("t", key) == sha256(f"t\0{key}".encode()).digest()[:HASH_BYTES]
    assert key_hash("t", OURS) != sha256(f"t\0{OURS}".encode()).digest()[:HASH_BYTES]
