"""The command line as a stranger meets it."""

import subprocess
import sys

import pytest

from steno.cli import COMMANDS, main


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"] if command else ["--help"])
    assert leaving.value.code == 0
    assert "usage: steno" in capsys.readouterr().out


def test_no_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as leaving:
        main([])
    assert leaving.value.code == 2


def test_settings_that_cannot_be_used_end_with_two_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["extproc", "--listen", "nowhere"]) == 2
    shown = capsys.readouterr().err
    assert "--listen" in shown
    assert "Traceback" not in shown


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ingest.app", raising=False)
    assert main(["ingest"]) == 1
    shown = capsys.readouterr().err
    assert "uvicorn" in shown
    assert "'steno[ingest]'" in shown


def test_help_and_the_actions_on_a_store_load_no_web_server() -> None:
    """It takes half a second."""
    code = "import sys, steno.commands.ingest; print([m for m in sys.modules if m.split('.')[0] in ('uvicorn', 'starlette')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_sidecar_loads_neither_ingest_nor_demo() -> None:
    """A production sidecar installs neither, so importing them would be its end."""
    code = "import sys, extproc.worker; print([m for m in sys.modules if m.split('.')[0] in ('ingest', 'uvicorn', 'starlette', 'httpx', 'envoy', 'psycopg')])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
