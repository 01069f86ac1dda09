"""What an endpoint was found to support, and for how long that is believed."""

import pytest

from ingest_client.delivery.learned import BatchSupport, Learned
from tests.unit.ingest_client.delivery.running import quick


def learned(**changes: object) -> Learned:
    return Learned(quick("http://a", batch_turns=64, batch_bytes=1000, relearn_s=600.0, **changes))


def test_one_batch_finds_out_while_the_others_go_singly() -> None:
    found = learned()
    assert found.batch_turns(0.0) == 64
    found.batch_begins()
    assert found.batch_turns(0.0) == 1
    found.batch_works()
    found.batch_begins()
    assert (found.batch, found.batch_turns(0.0)) == (BatchSupport.YES, 64)


def test_a_trial_without_an_answer_leaves_it_open() -> None:
    found = learned()
    found.batch_begins()
    found.batch_unknown()
    assert (found.batch, found.batch_turns(0.0)) == (BatchSupport.UNKNOWN, 64)


def test_a_missing_route_is_remembered_and_tried_again_later() -> None:
    found = learned()
    found.batch_begins()
    found.batch_missing(0.0)
    assert found.batch_turns(599.0) == 1
    assert found.batch_turns(600.0) == 64


def test_too_large_means_halves_until_it_is_forgotten() -> None:
    found = learned()
    found.batch_works()
    found.batch_too_large(64, 900, 0.0)
    assert (found.batch_turns(1.0), found.batch_bytes(1.0)) == (32, 450)
    found.batch_too_large(3, 100, 1.0)
    assert (found.batch_turns(2.0), found.batch_bytes(2.0)) == (1, 50)
    assert (found.batch_turns(601.0), found.batch_bytes(601.0)) == (64, 1000)


def test_the_endpoints_own_preference_counts_within_what_we_hold() -> None:
    found = learned(ready_turns_per_tenant=128)
    found.prefers(100, 5000)
    assert (found.batch_turns(0.0), found.batch_bytes(0.0)) == (100, 5000)
    found.prefers(10**9, 10**12)
    assert found.batch_turns(0.0) == 128
    assert found.batch_bytes(0.0) == found.settings.in_flight_bytes // 4
    found.prefers(-1, 0)
    assert (found.batch_turns(0.0), found.batch_bytes(0.0)) == (64, 1000)


def test_batches_can_be_turned_off() -> None:
    found = learned()
    found.prefers(100, None)
    found.settings = quick("http://a", batch_turns=1)
    assert found.batch_turns(0.0) == 1


@pytest.mark.parametrize(
    ("offer", "coding"),
    [
        ("zstd, gzip", "zstd"),
        ("gzip;q=1.0, zstd;q=0", "gzip"),
        ("GZIP", "gzip"),
        ("br, deflate", "identity"),
        ("identity", "identity"),
        ("", "identity"),
        ("gzip; q=0.000", "identity"),
    ],
)
def test_a_coding_is_used_when_the_endpoint_offers_it(offer: str, coding: str) -> None:
    found = learned()
    found.accepts({"accept-encoding": offer}, 0.0)
    assert found.coding == coding


def test_a_stranger_gets_plain_bodies() -> None:
    found = learned()
    found.accepts({"server": "x"}, 0.0)
    assert found.coding == "identity"
    off = learned(compress=False)
    off.accepts({"accept-encoding": "zstd"}, 0.0)
    assert off.coding == "identity"


def test_a_refused_coding_is_not_tried_again_for_a_while() -> None:
    found = learned()
    found.coding_refused(0.0)
    seen: list[str] = []
    for now_s in (0.0, 599.0, 600.0):
        found.accepts({"accept-encoding": "zstd"}, now_s)
        seen.append(found.coding)
    assert seen == ["identity", "identity", "zstd"]
