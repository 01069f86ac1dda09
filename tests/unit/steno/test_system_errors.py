"""What the system refuses is one line that says what to do, from every command on a data directory."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingest_client.spool import offline
from ingest_client.spool.control import Remote
from ingest_client.spool.instance import Lock
from ingest_client.spool.tools import Json, Selection
from steno.cli import main
from steno.commands import spool as commands
from tests.paths import PROJECT
from tests.unit.ingest_client.spool.test_tools import fill

COMMANDS = (
    ("spool", "list"),
    ("spool", "show", "t"),
    ("spool", "requeue", "t"),
    ("spool", "export"),
    ("spool", "verify"),
    ("spool", "purge", "t", "--yes"),
    ("ledger",),
)


ADVICE = {errno.EACCES: "as the user", errno.EIO: "kernel's log"}


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A spool at rest with a record of each kind."""
    spool = await fill(tmp_path / "data")
    await spool.close(5)
    return tmp_path / "data"


def _said(captured: pytest.CaptureFixture[str]) -> str:
    """The one line that standard error got."""
    (line,) = captured.readouterr().err.splitlines()
    assert line.startswith("steno: ")
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("number", ADVICE)
def test_a_data_directory_that_cannot_be_read(
    command: tuple[str, ...], number: int, data: Path,
    *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refused(root: Path) -> list[offline.Instance]:
        raise OSError(number, os.strerror(number), str(root))

    monkeypatch.setattr(commands, "reach", refused)
    assert main([*command, "--data-dir", str(data)]) == 1
    line = _said(capsys)
    assert line.startswith(f"steno: {data}: {os.strerror(number)}: ")
    assert ADVICE[number] in line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_spool_that_may_not_be_opened_is_not_called_running(
    command: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path) -> Lock | None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "lock"))

    monkeypatch.setattr(offline, "try_lock", refused)
    assert main([*command, "--data-dir", str(data)]) == 1
    said = capsys.readouterr()
    assert "Permission denied" in said.err + said.out
    assert "see to the disk and the rights to its files" in said.err + said.out
    assert "a process holds it" not in said.err + said.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_disk_that_fails_while_the_spool_is_read(
    command: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> Json:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(offline, "run", failing)
    assert main([*command, "--data-dir", str(data)]) == 1
    said = capsys.readouterr()
    assert "Input/output error: see to the disk" in said.err + said.out


def test_an_output_that_cannot_be_made_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = data / "none" / "turns.jsonl"
    assert main(["spool", "export", "--data-dir", str(data), "--output", str(target)]) == 1
    assert _said(capsys) == (
        f"steno: {target}: No such file or directory: look at how it is written, or make it"
    )


def test_a_body_that_cannot_be_read_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spool", "requeue", "dead", "--data-dir", str(data), "--body", str(data)]) == 1
    assert _said(capsys) == f"steno: {data}: Is a directory: it is a folder: name a file"


@pytest.mark.parametrize("command", [("spool", "export"), ("ledger", "--json")], ids=" ".join)
def test_a_full_disk_below_the_output(command: tuple[str, ...], data: Path) -> None:
    """In a process of its own: what is not written is not tried again at its end."""
    with Path("/dev/full").open("wb") as full:
        done = _process([*command, "--data-dir", str(data)], full.fileno())
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line == "steno: No space left on device: make room there, and run the command again"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("spool", "export"), ("ledger", "--json")], ids=" ".join)
def test_a_reader_that_has_seen_enough(command: tuple[str, ...], data: Path) -> None:
    """As ``head`` does."""
    reading, writing = os.pipe()
    os.close(reading)
    done = _process([*command, "--data-dir", str(data)], writing)
    os.close(writing)
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line == "steno: nobody reads the output any more: not all of it was written"
    assert "Traceback" not in done.stderr


def _process(arguments: list[str], output: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steno", *arguments],
        stdout=output, stderr=subprocess.PIPE, text=True, check=False, cwd=PROJECT, timeout=60,
    )  # fmt: skip


async def test_a_sidecar_that_goes_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(self: Remote, operation: str, selection: Selection, body: str | None = None) -> Json:
        self._socket.close()
        return call(self, operation, selection, body)

    spool = await fill(tmp_path / "data")
    call = Remote.call
    monkeypatch.setattr(Remote, "call", gone)
    try:
        assert main(["spool", "list", "--data-dir", str(tmp_path / "data")]) == 1
        assert "the sidecar went away meanwhile" in _said(capsys)
    finally:
        await spool.close(5)


def test_what_replay_may_not_read_is_named_and_the_rest_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in a folder that is closed to us, and a file: neither is passed over in silence."""
    (tmp_path / "open" / "closed").mkdir(parents=True)
    listed = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert main(["replay", str(tmp_path / "open"), str(tmp_path / "none"), "--to=http://127.0.0.1:1"]) == 1
    closed, missing = capsys.readouterr().err.splitlines()
    assert closed == (
        f"{tmp_path}/open/closed: Permission denied: run the command as the user that the sidecar runs as"
    )
    assert missing == f"{tmp_path}/none: No such file or directory: look at how it is written, or make it"


def test_a_full_disk_below_the_output_of_replay(tmp_path: Path) -> None:
    """More than a buffer full, so that a request in the middle meets it."""
    (tmp_path / "turns.jsonl").write_bytes(b'{"turn_id": "t", "body": {}}\n' * 200)
    arguments = ["replay", str(tmp_path / "turns.jsonl"), "--to=http://127.0.0.1:1", "--rate=0", "--json"]
    with Path("/dev/full").open("wb") as full:
        done = _process(arguments, full.fileno())
    assert done.returncode == 1
    assert done.stderr == "steno: No space left on device: make room there, and run the command again\n"
