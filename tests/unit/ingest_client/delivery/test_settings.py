"""Settings that cannot work are refused with their name; secrets never show in the refusal."""

from pathlib import Path

import pytest

from ingest_client.delivery import DeliverySettings, DeliverySettingsError, EndpointSettings


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "host:8082",
        "http://",
        "http://me:hunter2@host",
        "http://host?key=hunter2",
        "http://host/#x",
        "http://host:99999",
        "http://host:0",
        "http://host/a b",
        "http://host/a\r\nX: y",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(DeliverySettingsError) as refused:
        EndpointSettings(url=url)
    assert "url" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8082", "https://ingest.example/base/", "http://[::1]:8082"]
)
def test_ordinary_urls_are_taken(url: str) -> None:
    assert EndpointSettings(url=url).url == url


def test_a_key_needs_its_certificate() -> None:
    with pytest.raises(DeliverySettingsError, match="cert_file"):
        EndpointSettings(url="https://host", key_file=Path("key.pem"))


def test_there_must_be_somewhere_to_deliver_to() -> None:
    with pytest.raises(DeliverySettingsError, match="endpoints"):
        DeliverySettings(endpoints=())


@pytest.mark.parametrize(
    "name", ["in_flight_bytes", "batch_turns", "breaker_threshold", "answer_timeout_s", "poll_s"]
)
def test_a_number_that_cannot_work_is_refused_by_name(name: str) -> None:
    with pytest.raises(DeliverySettingsError, match=name):
        DeliverySettings(endpoints=(EndpointSettings(url="http://host"),), **{name: 0})  # type: ignore[arg-type]
