"""Waiting: doubling with full jitter, and what Retry-After asks for."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_client.delivery.backoff import Backoff, retry_after_s

NOW_NS = 1_700_000_000_000_000_000


def test_the_bound_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_s=0.5, cap_s=10.0)
    assert [backoff.bound_s(n) for n in (1, 2, 3, 4, 5, 6, 7, 10**9)] == [0.5, 1, 2, 4, 8, 10, 10, 10]


@given(st.integers(-5, 10**12), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_zero_and_the_bound(failures: int, draw: float) -> None:
    backoff = Backoff(base_s=0.5, cap_s=60.0)
    assert 0 <= backoff.delay_s(failures, lambda: draw) <= backoff.bound_s(failures) <= 60


def test_jitter_covers_the_whole_range() -> None:
    backoff = Backoff(base_s=8.0, cap_s=60.0)
    assert backoff.delay_s(1, lambda: 0.0) == 0
    assert backoff.delay_s(1, lambda: 0.999) == pytest.approx(7.992)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("120", 100.0),
        ("9" * 100_000, 100.0),
        ("", None),
        (None, None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 99 Foo 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 100.0),
    ],
)
def test_retry_after_is_read_in_both_forms_and_capped(value: str | None, wait_s: float | None) -> None:
    assert retry_after_s(value, NOW_NS, cap_s=100.0) == wait_s


@given(st.integers(0, 4_000_000_000))
def test_any_http_date_gives_a_wait_within_the_cap(at_s: int) -> None:
    date = format_datetime(datetime.fromtimestamp(at_s, UTC), usegmt=True)
    wait_s = retry_after_s(date, NOW_NS, cap_s=300.0)
    assert wait_s is not None
    assert 0 <= wait_s <= 300


@given(st.text())
def test_any_text_is_read_without_an_error(value: str) -> None:
    wait_s = retry_after_s(value, NOW_NS, cap_s=300.0)
    assert wait_s is None or 0 <= wait_s <= 300
