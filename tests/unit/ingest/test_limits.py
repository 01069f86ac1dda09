"""What a tenant may send and keep: buckets, rules, and what is answered beyond them."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.app import StartError, build
from ingest.limits import Excess, Limit, Limiter, read_limits
from ingest.settings import IngestSettings
from ingest.tenant_rules import TenantRulesError
from tests.patience import becomes, eventually
from tests.unit.ingest.running import Client, service, turn


def limiter(*limits: Limit) -> Limiter:
    made = Limiter()
    made.rule(limits)
    return made


def passed(limits: Limiter, tenant: str, times: Sequence[float], size: int = 1) -> list[bool]:
    return [limits.admit(tenant, size, now_s) is None for now_s in times]


def test_a_burst_passes_and_then_the_rate() -> None:
    limits = limiter(Limit(turns_per_s=2, burst_turns=3))
    assert passed(limits, "a", [0, 0, 0, 0, 0.4, 0.5, 0.6, 1.0, 100, 100, 100, 100]) == [
        *(True, True, True, False),
        *(False, True, False, True),
        *(True, True, True, False),
    ]


def test_the_wait_that_is_asked_for_is_the_one_that_is_needed() -> None:
    limits = limiter(Limit(turns_per_s=0.25, burst_turns=1))
    assert limits.admit("a", 1, 0) is None
    over = limits.admit("a", 1, 1)
    assert over is not None
    assert (over.excess, over.wait_s) == (Excess.TURN_RATE, 3.0)
    assert limits.admit("a", 1, 1 + over.wait_s) is None


def test_a_body_beyond_the_burst_passes_and_is_owed() -> None:
    """Otherwise a large turn of a busy tenant would wait for ever."""
    limits = limiter(Limit(bytes_per_s=100, burst_bytes=200))
    assert limits.admit("a", 1000, 0) is None
    over = limits.admit("a", 1, 0)
    assert over is not None
    assert (over.excess, over.wait_s) == (Excess.BYTE_RATE, 8.01)


def test_what_is_refused_costs_nothing() -> None:
    """A tenant that keeps trying is not kept away by its trying."""
    limits = limiter(Limit(turns_per_s=1, burst_turns=1, bytes_per_s=10, burst_bytes=10))
    assert passed(limits, "a", [0, *(n / 100 for n in range(99)), 1.0], size=10) == [
        True,
        *[False] * 99,
        True,
    ]


def test_tenants_do_not_share_and_a_rule_of_their_own_counts() -> None:
    limits = limiter(Limit(turns_per_s=1, burst_turns=1), Limit(tenant="b", turns_per_s=1, burst_turns=2))
    assert passed(limits, "a", [0, 0]) == [True, False]
    assert passed(limits, "b", [0, 0, 0]) == [True, True, False]
    assert passed(limits, "c", [0]) == [True]


def test_without_a_rule_for_a_tenant_everything_passes() -> None:
    assert all(passed(limiter(Limit(tenant="b", turns_per_s=1)), "a", [0] * 1000))


def test_many_tenants_are_forgotten_once_they_wait_for_nothing() -> None:
    limits = limiter(Limit(turns_per_s=1, burst_turns=1))
    for number in range(10_000):
        limits.admit(f"t{number}", 1, 0)
    limits.admit("late", 1, 0.5)
    assert len(limits._tenants) == 10_001, "none could be forgotten yet"
    limits.admit("later", 1, 5)
    assert len(limits._tenants) == 1


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), max_size=60),
    st.floats(0.5, 20),
    st.integers(1, 20),
    st.floats(1, 500),
    st.integers(1, 200),
)
def test_no_stretch_of_time_sees_more_than_burst_and_rate(
    sent: list[tuple[float, int]], turns_per_s: float, burst_turns: int, bytes_per_s: float, burst_bytes: int
) -> None:
    """Turns: never more than the burst and the rate. Bytes: never more than those and one body."""
    limits = limiter(
        Limit(
            turns_per_s=turns_per_s, burst_turns=burst_turns, bytes_per_s=bytes_per_s, burst_bytes=burst_bytes
        )
    )
    came = [(at, size) for at, size in sorted(sent) if limits.admit("a", size, at) is None]
    for start in range(len(came)):
        for end in range(start, len(came)):
            part, lasted = came[start : end + 1], came[end][0] - came[start][0]
            assert len(part) <= burst_turns + turns_per_s * lasted + 1e-6
            assert sum(size for _, size in part) <= burst_bytes + bytes_per_s * lasted + part[-1][1]


def test_what_is_kept_counts_as_measured_and_as_stored_since() -> None:
    limits = limiter(Limit(stored_bytes=100))
    limits.keep("a", 60)
    before = Counter(limits.since)
    limits.keep("a", 30)
    limits.measured({"a": 60}, before)
    assert limits.admit("a", 10, 0) is None
    over = limits.admit("a", 11, 0)
    assert over is not None
    assert over.excess is Excess.STORED_BYTES
    limits.measured({"a": 5}, Counter(limits.since))
    assert limits.admit("a", 95, 0) is None


@pytest.mark.parametrize(
    "text",
    [
        "turns_per_s: 1",
        "- turns_per_s: 0",
        "- turns_per_s: .nan",
        "- turns_per_s: .inf",
        "- burst_turns: 0",
        "- stored_bytes: -1",
        "- tenant: ../a",
        "- turn_per_s: 1",
        "[{tenant: a}, {tenant: a}]",
        "[",
        "\x00",
    ],
)
def test_a_limits_file_that_says_nonsense_stops_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(TenantRulesError):
        read_limits(path)
    with pytest.raises(StartError, match="limits file"):
        build(IngestSettings(database_url=f"sqlite:///{tmp_path}/x.db", limits_file=path))


def test_a_limits_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    path.write_text('[{"tenant": "a", "turns_per_s": 2.5}]')
    assert read_limits(path) == (Limit(tenant="a", turns_per_s=2.5),)


# The running service.


def rules(directory: Path, *limits: dict[str, Any]) -> Path:
    path = directory / "limits.yaml"
    path.write_text(json.dumps(limits))
    return path


async def rejected(client: Client) -> float:
    text = (await client.get("/metrics")).text
    rows = [line for line in text.splitlines() if "_writes_total" in line and "reject_quota" in line]
    return sum(float(line.split()[-1]) for line in rows)


async def test_a_turn_over_the_rate_is_429_and_takes_no_id(tmp_path: Path, database_url: str) -> None:
    slow = rules(tmp_path, {"tenant": "a", "turns_per_s": 0.001, "burst_turns": 1})
    async with service(tmp_path, database_url=database_url, limits_file=slow) as client:
        assert (await client.turn(turn("1", meta={"tenant": "a"}))).status_code == 202
        answer = await client.turn(turn("2", meta={"tenant": "a", "request_id": "r"}), idempotency_key="k")
        assert answer.status_code == 429
        assert 900 < int(answer.headers["retry-after"]) <= 1000
        assert answer.json() == {
            "error": 'tenant "a" is over its limit: it may send 0.001 turns a second',
            "action": "wait as long as Retry-After says, then send it again",
        }
        assert await client.rows("SELECT count(*) FROM turns") == [(1,)]
        client.service.throttle.limiter.rule(())
        again = await client.turn(turn("2", meta={"tenant": "a", "request_id": "r"}), idempotency_key="k")
        assert (again.status_code, "steno-duplicate" in again.headers) == (202, False)


async def test_a_transcript_is_held_to_the_limits_too(tmp_path: Path) -> None:
    slow = rules(tmp_path, {"turns_per_s": 0.001, "burst_turns": 1})
    body: dict[str, Any] = {"session": {"harness_session_id": "s"}, "records": []}
    async with service(tmp_path, limits_file=slow) as client:
        answers = [await client.post("/v1/ingest/transcript", json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 429]
        assert "retry-after" in answers[1].headers


async def batch(client: Client, turns: list[Any]) -> httpx.Response:
    return await client.post("/v1/ingest/batch", json={"turns": turns})


async def test_a_batch_beyond_the_limit_is_taken_as_far_as_it_goes(tmp_path: Path, database_url: str) -> None:
    slow = rules(tmp_path, {"tenant": "a", "turns_per_s": 0.001, "burst_turns": 2})
    ids = [f"r{n}" for n in range(4)]
    turns = [turn(name, meta={"tenant": "a", "request_id": name}) for name in ids]
    async with service(tmp_path, database_url=database_url, limits_file=slow) as client:
        answer = await batch(client, [*turns, turn("other", meta={"tenant": "b"})])
        assert answer.status_code == 202
        results = answer.json()["results"]
        assert [result["status"] for result in results] == [202, 202, 429, 429, 202]
        assert [result["id"] for result in results[:4]] == ids, "a delivery finds its turn by its own id"
        assert "over its limit" in results[2]["error"]
        assert int(answer.headers["retry-after"]) > 900

        nothing = await batch(client, turns)
        assert nothing.status_code == 503, "not one was taken, and it may get better"
        assert {result["status"] for result in nothing.json()["results"]} == {429}
        assert int(nothing.headers["retry-after"]) > 900
        assert (await batch(client, [turns[0], 5])).status_code == 503
        assert await rejected(client) == 2 + 4 + 1
        limit = 'steno_ingest_throttled_turns_total{limit="turn_rate"} 7.0'
        assert limit in (await client.get("/metrics")).text


async def test_the_tenant_is_named_in_the_log_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = rules(tmp_path, {"bytes_per_s": 1, "burst_bytes": 1})
    async with service(tmp_path, limits_file=slow) as client:
        with caplog.at_level(logging.WARNING, "steno.ingest.throttle"):
            for _ in range(5):
                await client.turn(turn(meta={"tenant": "noisy"}))
    assert [record.getMessage() for record in caplog.records] == [
        "tenant noisy is over its limit (byte_rate): its turns are answered 429"
    ]


async def stored(client: Client) -> None:
    await client.service.throttle.measure(client.service.store)


async def test_a_full_tenant_is_429_until_something_of_it_is_deleted(
    tmp_path: Path, database_url: str
) -> None:
    size = len(json.dumps(turn("0", meta={"tenant": "a"})))
    full = rules(tmp_path, {"tenant": "a", "stored_bytes": 3 * size})
    async with service(tmp_path, database_url=database_url, limits_file=full) as client:
        answers = [await client.turn(turn(str(n), meta={"tenant": "a"})) for n in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert answers[4].headers["retry-after"] == "60"
        assert f"it keeps {3 * size} of {3 * size} bytes" in answers[4].json()["error"]
        assert (await client.turn(turn(meta={"tenant": "b"}))).status_code == 202
        assert await client.rows("SELECT tenant, count(*) FROM turns GROUP BY tenant ORDER BY tenant") == [
            ("a", 3),
            ("b", 1),
        ]
        assert (await client.delete("/v1/turns", params={"tenant": "a"})).json()["deleted"] == 3
        await stored(client)
        assert (await client.turn(turn("9", meta={"tenant": "a"}))).status_code == 202


async def test_what_was_stored_before_the_start_counts(tmp_path: Path, database_url: str) -> None:
    """Also what another instance stored: it is measured in the store, in pieces, and then what came since."""
    full = rules(tmp_path, {"stored_bytes": 2500})
    async with service(tmp_path, database_url=database_url) as client:
        for number in range(7):
            await client.turn(turn(str(number), meta={"tenant": "a"}))
    async with service(tmp_path, database_url=database_url, limits_file=full) as client:
        await stored(client)
        held = client.service.throttle.limiter.stored["a"]
        [(summed,)] = await client.rows("SELECT CAST(sum(body_bytes) AS BIGINT) FROM turns")
        assert held == summed > 2000
        codes = [(await client.turn(turn(str(n), meta={"tenant": "a"}))).status_code for n in range(7, 12)]
        assert codes[-1] == 429
        await stored(client)
        [(summed,)] = await client.rows("SELECT CAST(sum(body_bytes) AS BIGINT) FROM turns")
        assert client.service.throttle.limiter.stored["a"] == summed <= 2500
        assert not client.service.throttle.limiter.since, "nothing is counted twice"


async def test_a_duplicate_is_not_counted_as_stored(tmp_path: Path) -> None:
    body = turn(meta={"request_id": "r"})
    async with service(tmp_path, limits_file=rules(tmp_path, {"stored_bytes": 10_000})) as client:
        limiter = client.service.throttle.limiter
        assert (await client.turn(body)).status_code == 202
        await stored(client)
        assert limiter.stored["default"] == len(json.dumps(body))
        assert (await client.turn(body)).headers["steno-duplicate"] == "true"
        assert not limiter.since


async def test_new_limits_are_in_force_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ingest.throttle._EVERY_S", 0.05)
    path = rules(tmp_path, {"turns_per_s": 0.001, "burst_turns": 1})
    async with service(tmp_path, limits_file=path) as client:
        assert [(await client.turn(turn())).status_code for _ in range(2)] == [202, 429]
        for slip in (
            "nonsense: [",
            "- {tenant: 2026-02-30, turns_per_s: 5}",
            '- {tenant: !!int "zz"}',
            '- {tenant: !!timestamp "x"}',
            "- ? [a]\n  : b",
            "[" * 3000,
        ):
            caplog.clear()
            (tmp_path / "next").write_text(slip)
            (tmp_path / "next").replace(path)  # at once: half of it would be another slip
            await eventually(lambda: "the old limits stay" in caplog.text)
            assert (await client.turn(turn())).status_code == 429, f"the old limits stay: {slip[:40]}"
        rules(tmp_path)

        async def status() -> int:
            return (await client.turn(turn())).status_code

        await becomes(status, 202)
