"""RFC 8785, held against the rfc8785 package where that has an answer."""

import json
import math
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from capture.merkle import canonical_json

SAFE = 2**53 - 1
DEPTH = 100_000

names_and_texts = st.text(st.characters(exclude_categories=["Cs"]))
any_text = st.text(st.characters())  # unpaired surrogates included


def trees(leaves: st.SearchStrategy[object], names: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
    )


orderly = trees(
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names_and_texts,
    names_and_texts,
)
anything = trees(st.none() | st.booleans() | st.integers() | st.floats() | any_text, any_text)


@given(orderly)
def test_it_writes_what_the_package_writes(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(cast("Any", value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_the_package_writes_them(value: float) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(anything)
def test_any_json_value_has_a_canonical_form_that_is_its_own(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(
    st.dictionaries(any_text, st.integers(), max_size=6).flatmap(lambda d: st.permutations(list(d.items())))
)
def test_the_order_of_members_does_not_matter(members: list[tuple[str, int]]) -> None:
    if len({name.encode("utf-8", "replace") for name, _ in members}) == len(members):
        assert canonical_json(dict(members)) == canonical_json(dict(reversed(members)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9007199254740991, "9007199254740991"),
        (9007199254740993, "9007199254740992"),
        (-12345678901234567890, "-12345678901234567000"),
        (10**21, "1e+21"),
        (10**400, "null"),
        (math.inf, "null"),
        (math.nan, "null"),
        (-0.0, "0"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (1.5e-7, "1.5e-7"),
        (1e-6, "0.000001"),
        (-1.25, "-1.25"),
        (5e-324, "5e-324"),
    ],
)
def test_numbers_are_doubles_in_ecmascript_form(value: float, text: str) -> None:
    assert canonical_json(value).decode() == text


def test_names_sort_by_utf16_code_units() -> None:
    assert (
        canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3}).decode() == '{"a":3,"\U0001f600":2,"\ufb33":1}'
    )


def test_an_unpaired_surrogate_is_replaced_wherever_it_stands() -> None:
    assert (
        canonical_json({"\ud800": ["\udfff", "\ud83d\ude00"]}).decode()
        == '{"\ufffd":["\ufffd","\U0001f600"]}'
    )


def test_names_that_become_equal_are_one_member() -> None:
    names = [chr(0xD800), chr(0xD801)]
    assert canonical_json(dict(zip(names, [1, 2], strict=True))).decode() == '{"\ufffd":2}'


def test_depth_costs_no_recursion() -> None:
    nested: object = []
    named: object = {}
    for _ in range(DEPTH - 1):
        nested = [nested]
        named = {"a": named}
    assert canonical_json(nested) == b"[" * DEPTH + b"]" * DEPTH
    assert canonical_json(named) == b'{"a":' * (DEPTH - 1) + b"{}" + b"}" * (DEPTH - 1)


def test_what_json_cannot_say_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="bytes"):
        canonical_json([b"x"])
