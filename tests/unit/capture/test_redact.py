"""Credentials in headers and paths."""

import pytest

from capture import redact


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key",
        "x-amz-security-token", "x-my-secret", "openai-api-key", "x-access-token", "x-password", "x-hub-signature",
    ],
)  # fmt: skip
def test_a_credential_header_keeps_its_name_only(name: str) -> None:
    assert redact.headers({name: "s3cret", "accept": "*/*"}) == {name: redact.REDACTED, "accept": "*/*"}


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (
            "/v1beta/models/g:generateContent?key=AIza123&alt=sse",
            "/v1beta/models/g:generateContent?key=[redacted]&alt=sse",
        ),
        ("/x?alt=sse&access_token=a.b.c", "/x?alt=sse&access_token=[redacted]"),
        ("/x?X-Amz-Signature=ab&X-Amz-Date=1", "/x?X-Amz-Signature=[redacted]&X-Amz-Date=1"),
        ("/x?sig=ab%3D#top", "/x?sig=[redacted]#top"),
        ("/x?monkey=banana", "/x?monkey=banana"),
        ("/key=1", "/key=1"),
    ],
)
def test_a_credential_parameter_keeps_its_name_only(path: str, shown: str) -> None:
    assert redact.path(path) == shown
