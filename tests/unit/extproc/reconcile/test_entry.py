"""How a request ended, from Envoy's flags and details."""

import pytest

from extproc.reconcile.entry import ServedEnding, ending_of
from tests.unit.extproc.reconcile.playbook import served

DC = "downstream_connection_termination"


@pytest.mark.parametrize(
    ("flags", "details", "ending"),
    [
        ((), "via_upstream", ServedEnding.COMPLETE),
        ((DC,), "downstream_remote_disconnect", ServedEnding.CLIENT_ABORT),
        ((), "downstream_remote_disconnect", ServedEnding.CLIENT_ABORT),
        (("downstream_remote_reset", "upstream_remote_reset"), "", ServedEnding.CLIENT_ABORT),
        (
            ("upstream_protocol_error",),
            "upstream_reset_after_response_started{protocol_error}",
            ServedEnding.UPSTREAM_RESET,
        ),
        ((), "upstream_reset_before_response_started{connection_termination}", ServedEnding.UPSTREAM_RESET),
        (("upstream_request_timeout",), "upstream_response_timeout", ServedEnding.TIMEOUT),
        (("stream_idle_timeout",), "", ServedEnding.TIMEOUT),
        (("no_healthy_upstream",), "no_healthy_upstream", ServedEnding.UPSTREAM_FAILURE),
        (("upstream_connection_failure",), "via_upstream", ServedEnding.UPSTREAM_FAILURE),
        (("a_flag_of_tomorrow",), "a_word_of_tomorrow", ServedEnding.OTHER),
    ],
)
def test_the_clients_part_outweighs_the_upstreams_and_flags_outweigh_details(
    flags: tuple[str, ...], details: str, ending: ServedEnding
) -> None:
    assert ending_of(served(flags=flags, details=details)) is ending


def test_what_no_upstream_had_a_part_in_is_envoys_own_answer() -> None:
    assert ending_of(served(details="ext_authz_denied", forwarded=False)) is ServedEnding.LOCAL_REPLY
