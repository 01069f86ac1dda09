"""``steno ingest backup``, ``restore``, ``export`` and ``import``, as a person runs them."""

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from ingest.store import turns
from ingest.store.engines import engine_of
from steno.cli import main
from tests.unit.ingest.rows import new_turn

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of three turns, of two tenants."""
    url = f"sqlite:///{tmp_path / 'ingest.db'}"
    engine = engine_of(url)
    engine.prepare()
    connection = engine.writer()
    turns.put(connection, [new_turn(f"{n}", key=f"{n}", tenant="ab"[n % 2]) for n in range(3)])
    connection.close()
    return url


def run(*words: str | Path) -> int:
    return main(["ingest", *(str(word) for word in words)])


def test_a_backup_and_its_restore_say_what_they_did(url: str, tmp_path: Path, capsys: Captured) -> None:
    backup = tmp_path / "backup.db"
    assert run("backup", backup, "--database-url", url) == 0
    assert f"{backup}: 3 turns, " in capsys.readouterr().out
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert run("restore", backup, "--database-url", other, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["form"], said["turns"], said["replaced"], said["derive"]) == ("sqlite", 3, 0, 3)


def test_a_backup_as_json_has_its_checksum(url: str, tmp_path: Path, capsys: Captured) -> None:
    assert run("backup", tmp_path / "b", "--database-url", url, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sha256"] == (tmp_path / "b.sha256").read_text().split()[0]
    assert set(said) == {"target", "form", "turns", "bytes", "sha256", "seconds"}


def test_what_a_killed_backup_left_is_named_with_what_to_do(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "b.partial").write_text("half")
    assert run("backup", tmp_path / "b", "--database-url", url) == 1
    told = "somebody is writing it, or was killed while writing: remove it if nobody is"
    assert capsys.readouterr().err.splitlines()[-1] == f"steno: {tmp_path / 'b.partial'}: {told}"
    (tmp_path / "b.partial").unlink()
    assert run("backup", tmp_path / "b", "--database-url", url) == 0


def test_the_store_may_be_named_before_the_action(url: str, tmp_path: Path) -> None:
    assert run("--database-url", url, "backup", tmp_path / "b") == 0


def test_the_store_may_be_named_in_the_environment(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STENO_INGEST_DATABASE_URL", url)
    assert run("backup", tmp_path / "b") == 0


def test_a_restore_onto_turns_is_refused_with_what_to_do(url: str, tmp_path: Path, capsys: Captured) -> None:
    run("backup", tmp_path / "b", "--database-url", url)
    assert run("restore", tmp_path / "b", "--database-url", url) == 1
    assert capsys.readouterr().err == "steno: the store has 3 turns: --overwrite replaces them\n"
    assert run("restore", tmp_path / "b", "--database-url", url, "--overwrite") == 0


def test_a_damaged_backup_is_refused_in_one_line(url: str, tmp_path: Path, capsys: Captured) -> None:
    run("backup", tmp_path / "b", "--database-url", url)
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:5000])
    assert run("restore", tmp_path / "b", "--database-url", url, "--overwrite") == 1
    assert "b is damaged: its SHA-256 is not the one in" in capsys.readouterr().err


def test_what_is_not_there_is_named(tmp_path: Path, capsys: Captured) -> None:
    nowhere = f"sqlite:///{tmp_path / 'none.db'}"
    assert run("restore", tmp_path / "none", "--database-url", nowhere) == 1
    assert run("import", tmp_path / "none", "--database-url", nowhere) == 1
    assert run("backup", tmp_path / "b", "--database-url", nowhere) == 1
    assert run("export", "--database-url", nowhere) == 1
    assert run("export", "--database-url", "mysql://x") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("steno: ") for line in lines)
    assert not (tmp_path / "none.db").exists(), "asking makes no store"


def test_an_export_is_imported_from_a_file_and_from_a_pipe(
    url: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "turns.jsonl"
    assert run("export", "--database-url", url, "--output", file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert capsysbinary.readouterr().out == b"3 exported, 0 unreadable\n"
    assert run("export", "--database-url", url, "--tenant", "a") == 0
    piped = capsysbinary.readouterr()
    assert (piped.out.count(b"\n"), piped.err) == (2, b"2 exported, 0 unreadable\n")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped.out)))
    assert run("import", "--database-url", other) == 0
    assert run("import", file, "--database-url", other, "--json") == 0
    said = capsysbinary.readouterr().out.splitlines()
    assert said[0] == b"2 stored, 0 already there, 0 refused"
    assert json.loads(said[1]) | {"seconds": 0} == {
        "stored": 1,
        "already_there": 2,
        "refused": 0,
        "seconds": 0,
    }


def test_refused_lines_are_told_one_by_one_and_fail_the_command(
    url: str, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "turns.jsonl"
    run("export", "--database-url", url, "--output", file)
    file.write_bytes(b"nonsense\n" + file.read_bytes() + b"{}\n")
    capsys.readouterr()
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert run("import", file, "--database-url", other, "--json") == 1
    first, second, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["line"], second["line"]) == (1, 5)
    assert (last["stored"], last["refused"]) == (3, 2)
    assert run("import", file, "--database-url", other) == 1
    said = capsys.readouterr()
    assert said.err.startswith("line 1: no exported turn: ")
    assert said.out == "0 stored, 3 already there, 2 refused\n"


def test_an_export_that_fails_leaves_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steno.commands.ingest_store.write_out", gone)
    assert run("export", "--database-url", url, "--output", tmp_path / "x") == 1
    assert not list(tmp_path.glob("x*"))


def test_what_is_no_file_is_written_to_and_stays_what_it_is(url: str, tmp_path: Path) -> None:
    """``--output /dev/null`` does not replace the device."""
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert run("export", "--database-url", url, "--output", tmp_path / "pipe") == 0
    reader.join()
    assert got[0].count(b"\n") == 3
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_a_link(url: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "behind")
    assert run("export", "--database-url", url, "--output", tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "behind").read_bytes().count(b"\n") == 3


def test_a_bar_shows_on_a_terminal_alone(
    url: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", tmp_path / "b", "--database-url", url)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run("export", "--database-url", url, "--output", tmp_path / "x")
    assert "[##############################] 3/3 turns exported" in capsys.readouterr().err
