"""Addresses are read as operators write them, or refused with the forms that are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.transport.address import Address, AddressError, TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:50051", TcpAddress("127.0.0.1", 50051)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
        ("unix:/run/steno.sock", UnixAddress("/run/steno.sock")),
        ("unix:relative.sock", UnixAddress("relative.sock")),
        ("unix:///run/steno.sock", UnixAddress("/run/steno.sock")),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "host", "host:", "host:x", "host:65536", "host:-1", "host:²", "unix:"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


def test_a_path_that_no_kernel_takes_is_refused() -> None:
    assert parse_address("unix:" + "p" * 107) == UnixAddress("p" * 107)
    with pytest.raises(AddressError, match="107 bytes"):
        parse_address("unix:" + "ü" * 54)


@given(
    address=st.builds(TcpAddress, st.ip_addresses().map(str), st.integers(0, 65535))
    | st.builds(UnixAddress, st.from_regex(r"/[a-z][a-z/]{0,50}", fullmatch=True))
)
def test_an_address_survives_being_written_and_read(address: Address) -> None:
    assert parse_address(str(address)) == address
