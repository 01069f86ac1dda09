"""JSON values written as text."""

from capture.dialects.json_text import compact


def test_a_value_is_written_without_white_space_and_as_it_reads() -> None:
    """No escapes but those that JSON wants."""
    assert compact({"a": [1, "ü"], "b": None}) == '{"a":[1,"ü"],"b":null}'


def test_a_value_nested_too_deeply_to_write_is_empty() -> None:
    """Reading has its own bound; writing does not raise either."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert compact(value) == ""
