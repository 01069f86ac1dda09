"""``steno spool``: on spools that run, that rest, and that are damaged."""

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from capture.outcomes import Outcome, State
from ingest_client.sink import Quarantine
from ingest_client.spool import Spool
from steno.commands import ledger
from steno.commands.spool import configure
from steno.errors import CommandError
from tests.unit.ingest_client.spool.parts import START, Tried, turn

TURN = b'{"provider":"anthropic","request":null,"response":null,"meta":{}}'
LARGE = 1 << 30


def steno(root: Path, *arguments: str) -> int:
    """Run ``steno spool`` here."""
    parser = argparse.ArgumentParser()
    configure(parser)
    action, *rest = arguments
    parsed = parser.parse_args([action, "--data-dir", str(root), *rest])
    return cast("Callable[[argparse.Namespace], int]", parsed.run)(parsed)


class Shell:
    """Runs commands beside a running spool, and reads what they print."""

    def __init__(self, root: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._captured = captured

    async def __call__(self, *arguments: str) -> tuple[int, list[dict[str, object]]]:
        code = await asyncio.to_thread(steno, self.root, *arguments, "--json")
        out = self._captured.readouterr().out
        return code, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "data", capsys)


async def fill(root: Path) -> Spool:
    """Four turns: one pending, one dead, one quarantined with a good body, one with a bad."""
    spool = await Spool.open(root, clock=lambda: START)
    for _ in range(4):
        spool.ledger.observe()
    await spool.keep(turn("dead", body=TURN))
    (claimed,) = await spool.claim(1, LARGE, START, per_tenant=1)
    await spool.dead_letter(claimed.seq, Outcome.INGEST_REJECT, "422: no model", Tried(1, "422"))
    why = Quarantine(outcome=Outcome.MARSHAL_ERROR, reason="unpaired surrogate")
    await spool.keep(turn("held", tenant="b", body=TURN, quarantine=why))
    await spool.keep(turn("broken", tenant="b", body=b"\xff\x00", quarantine=why))
    await spool.keep(turn("waits", body=TURN))
    return spool


@pytest.mark.parametrize("running", [True, False])
async def test_list_shows_what_needs_a_person(shell: Shell, running: bool) -> None:
    """Dead letters and quarantine with their reasons; pending turns when asked."""
    spool = await fill(shell.root)
    if not running:
        await spool.close(60)
    code, records = await shell("list")
    assert code == 0
    assert [(r["turn_id"], r["state"], r["outcome"], r["reason"]) for r in records] == [
        ("dead", "dead_letter", "ingest_reject", "422: no model"),
        ("held", "quarantined", "marshal_error", "unpaired surrogate"),
        ("broken", "quarantined", "marshal_error", "unpaired surrogate"),
    ]
    _, records = await shell("list", "--quarantine", "--limit", "1")
    assert [r["turn_id"] for r in records] == ["held"]
    _, records = await shell("list", "--pending", "--tenant", "a")
    assert [r["turn_id"] for r in records] == ["waits"]
    await spool.close(60)


@pytest.mark.parametrize("running", [True, False])
async def test_show_gives_the_body_and_the_attempts(shell: Shell, running: bool) -> None:
    """Everything that is known about one turn."""
    spool = await fill(shell.root)
    if not running:
        await spool.close(60)
    _, (record,) = await shell("show", "dead")
    assert record["attempts"] == [{"number": 1, "error": "422"}]
    assert json.loads(str(record["body"])) == json.loads(TURN)
    _, (record,) = await shell("show", "broken")
    assert record["body_base64"] == "/wA="
    with pytest.raises(CommandError, match="no spool has the turn nobody"):
        await shell("show", "nobody")
    await spool.close(60)


@pytest.mark.parametrize("running", [True, False])
async def test_requeue_makes_what_can_be_delivered_pending_and_says_why_not_for_the_rest(
    shell: Shell, running: bool
) -> None:
    """A body that is no turn would only come back as a dead letter."""
    spool = await fill(shell.root)
    if not running:
        await spool.close(60)
    code, lines = await shell("requeue", "--dead-letters")
    assert (code, lines[-1]) == (0, {"requeued": 1, "refused": 0})
    code, lines = await shell("requeue", "broken")
    assert code == 1
    assert (lines[0]["turn_id"], lines[-1]) == ("broken", {"requeued": 0, "refused": 1})
    mended = shell.root / "mended.json"
    mended.write_bytes(TURN)
    for name in ("held", "broken"):
        code, lines = await shell("requeue", name, "--body", str(mended))
        assert (code, lines[-1]) == (0, {"requeued": 1, "refused": 0})
    if not running:
        spool = await Spool.open(shell.root, clock=lambda: START)
    claimed = await spool.claim(9, LARGE, START, per_tenant=9)
    assert {(each.turn_id, each.body) for each in claimed} == {
        (name, TURN) for name in ("dead", "held", "broken", "waits")
    }
    assert (spool.ledger.spooled, spool.ledger.total(State.QUARANTINED), spool.ledger.imbalance) == (4, 0, 0)
    await spool.close(60)


async def test_export_writes_json_lines_with_the_bodies_embedded(shell: Shell) -> None:
    """What `steno replay` reads."""
    spool = await fill(shell.root)
    output = shell.root / "out.jsonl"
    code, _ = await shell("export", "--output", str(output))
    assert code == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["turn_id"] for line in lines] == ["dead", "held", "broken", "waits"]
    assert lines[3]["body"] == json.loads(TURN)
    assert lines[2]["body_base64"] == "/wA="
    await spool.close(60)


async def test_purge_needs_a_yes_and_changes_no_counter_of_what_was_settled(shell: Shell) -> None:
    """Dead letters were accounted for when they died."""
    spool = await fill(shell.root)
    _, lines = await shell("purge", "--dead-letters", "--quarantine")
    assert lines == [{"would_purge": 3}]
    _, lines = await shell("purge", "--dead-letters", "--quarantine", "--yes")
    assert lines == [{"purged": 3}]
    _, records = await shell("list")
    assert records == []
    assert spool.ledger.total(State.DEAD_LETTERED) == 1
    _, lines = await shell("purge", "waits", "--yes")
    assert spool.ledger.ended[Outcome.VOLUME_DISCARDED] == 1
    assert spool.ledger.imbalance == 0
    await spool.close(60)


async def test_purge_by_age_keeps_the_younger(shell: Shell) -> None:
    """Ages are counted from the creation of the turn."""
    spool = await fill(shell.root)
    _, lines = await shell("purge", "--dead-letters", "--older-than", "36500d", "--yes")
    assert lines == [{"purged": 0}]
    with pytest.raises(CommandError, match="an age is a number and s, m, h or d"):
        await shell("purge", "--dead-letters", "--older-than", "soon", "--yes")
    await spool.close(60)


@pytest.mark.parametrize("running", [True, False])
async def test_verify_of_a_sound_spool_says_so(shell: Shell, running: bool) -> None:
    """And says what it could not check."""
    spool = await fill(shell.root)
    if not running:
        await spool.close(60)
    code, (report,) = await shell("verify")
    assert code == 0
    assert (report["checked"], report["damaged"], report["problems"]) == (4, [], [])
    assert report["structure"] == (
        "every row read; pages unchecked while the process runs" if running else "ok"
    )
    await spool.close(60)


async def test_verify_finds_planted_damage_and_isolates_the_record(shell: Shell) -> None:
    """One byte of one payload: that record is set aside, the exit code tells, a second run does not repeat it."""
    spool = await fill(shell.root)
    await spool.close(60)
    (database,) = shell.root.rglob("spool.db")
    data = bytearray(database.read_bytes())
    data[data.index(TURN) + 3] ^= 1  # the newest of a page comes first
    database.write_bytes(data)
    code, (report,) = await shell("verify")
    assert code == 1
    (damaged,) = cast("list[dict[str, object]]", report["damaged"])
    assert damaged["turn_id"] == "waits"
    assert report["structure"] == "ok"
    code, (report,) = await shell("verify")
    assert (code, report["already_set_aside"], report["problems"]) == (0, 1, [])
    spool = await Spool.open(shell.root, clock=lambda: START)
    assert spool.ledger.ended[Outcome.VOLUME_DISCARDED] == 1
    assert spool.ledger.imbalance == 0
    await spool.close(60)


async def test_verify_of_structural_damage_says_how_much_is_unreachable_and_changes_nothing(
    shell: Shell,
) -> None:
    """Nothing reports success falsely; the next start of the sidecar does the salvage."""
    spool = await fill(shell.root)
    for number in range(60):
        spool.ledger.observe()
        await spool.keep(turn(f"more{number}", body=TURN))
    await spool.close(60)
    (database,) = shell.root.rglob("spool.db")
    data = bytearray(database.read_bytes())
    page = data.index(b"more30a") // 4096 * 4096
    data[page : page + 4096] = bytes(4096)
    database.write_bytes(data)
    code, (report,) = await shell("verify")
    assert code == 1
    assert "damage" in str(report["structure"])
    readable, unreachable = cast("int", report["readable"]), cast("int", report["unreachable"])
    assert unreachable > 0
    assert readable + unreachable == 64
    assert database.read_bytes() == data


@pytest.mark.parametrize("running", [True, False])
async def test_the_ledger_command_shows_the_balance_of_all_spools(
    shell: Shell, running: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the books on disk: the same whether the process runs or not."""
    spool = await fill(shell.root)
    spool.ledger.observe()
    spool.ledger.end(Outcome.POLICY)
    other = await Spool.open(shell.root, clock=lambda: START)
    other.ledger.observe()
    await other.keep(turn("elsewhere"))
    assert await spool.flush()
    assert await other.flush()
    if not running:
        await spool.close(60)
        await other.close(60)
    parser = argparse.ArgumentParser()
    ledger.configure(parser)
    parsed = parser.parse_args(["--data-dir", str(shell.root), "--json", "--generations"])
    code = await asyncio.to_thread(cast("Callable[[argparse.Namespace], int]", parsed.run), parsed)
    balance = json.loads(capsys.readouterr().out)
    assert code == 0
    assert len(balance.pop("generations")) == 2
    assert balance == {
        "observed": 6,
        "open": 0,
        "spooled": 2,
        "delivered": 0,
        "dead_lettered": 1,
        "quarantined": 2,
        "lost": 0,
        "excluded": 1,
        "outcomes": {"policy": 1, "marshal_error": 2, "ingest_reject": 1},
        "imbalance": 0,
    }
    await spool.close(60)
    await other.close(60)


async def test_a_missing_data_directory_is_an_error_and_not_a_success(shell: Shell) -> None:
    """A typing mistake must not look like an empty spool."""
    with pytest.raises(CommandError, match="there is no data directory"):
        await shell("list")
