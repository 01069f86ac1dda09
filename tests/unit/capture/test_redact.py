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


def test_a_path_in_a_header_keeps_no_credential() -> None:
    given = {":path": "/x?key=s3cret", "x-envoy-original-path": "/x?key=s3cret&a=b"}
    assert redact.headers(given) == {"x-envoy-original-path": "/x?key=[redacted]&a=b"}


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


SECRETS = {
    "anthropic": "sk-ant-api03-" + "aB3_" * 10,
    "openai": "sk-proj-" + "x1" * 24,
    "google": "AIza" + "Sy-1" * 9,
    "aws": "AKIA" + "ABCDEFGH12345678",
    "github": "ghp_" + "a1B2" * 9,
    "github fine": "github_pat_" + "a1B2" * 9,
    "gitlab": "glpat-" + "a1B2" * 5,
    "slack": "xoxb-" + "1234-" * 5 + "abc",
    "stripe": "sk_live_" + "a1B2" * 6,
    "groq": "gsk_" + "a1B2" * 10,
    "hugging face": "hf_" + "a1B2" * 8,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", list(SECRETS))
@pytest.mark.parametrize("around", ["{}", "use {} please", '{{"text": "{}"}}', "a={}&b", "\n{}\n"])
def test_a_key_of_a_known_shape_goes_from_text(name: str, around: str) -> None:
    assert redact.text(around.format(SECRETS[name])) == around.format(redact.REDACTED)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('{"api_key": "abcdef1234"}', '{"api_key": "[redacted]"}'),
        (r"{\"password\": \"hunter2222\"}", r"{\"password\": \"[redacted]\"}"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [redacted]"),
        ("AWS_SECRET_ACCESS_KEY=abcdefg", "AWS_SECRET_ACCESS_KEY=[redacted]"),
        ("password: hunter22", "password: [redacted]"),
    ],
)
def test_a_value_behind_a_telling_name_goes_and_the_name_stays(given: str, shown: str) -> None:
    assert redact.text(given) == shown


@pytest.mark.parametrize(
    "plain",
    [
        "the secret of life is 42", "task-management-and-planning-of-things", '{"password": 123456789}',
        '{"max_tokens": 1024}', "risk-assessment-for-everybody-here", "", "the key: do it",
    ],
)  # fmt: skip
def test_plain_words_and_json_numbers_stay(plain: str) -> None:
    assert redact.text(plain) == plain


@pytest.mark.parametrize("shift", range(-40, 41, 8))
def test_a_key_is_found_where_two_slices_meet(shift: int) -> None:
    before = " " * (redact._SLICE + shift)
    assert redact.text(before + SECRETS["openai"] + " end") == before + redact.REDACTED + " end"
