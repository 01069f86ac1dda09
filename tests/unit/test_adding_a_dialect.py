"""``docs/adding-a-dialect.md``, followed to the letter on a copy of ``capture``."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import PROJECT

RECIPE = (PROJECT / "docs" / "adding-a-dialect.md").read_text(encoding="utf-8")

STEP = re.compile(
    r"^(?:New file `(?P<new>[^`]+)`|In `(?P<file>[^`]+)`, (?P<how>after|instead of) `(?P<anchor>[^`]+)`):\n\n"
    r"```python\n(?P<code>.*?)```$",
    re.MULTILINE | re.DOTALL,
)
STENO = "import sys; from steno.cli import main; sys.exit(main())"
EVENTS = re.search(r"```text\n(data: .*?)```", RECIPE, re.DOTALL)


def steps() -> Iterator[dict[str, str]]:
    return (step.groupdict() for step in STEP.finditer(RECIPE))


def follow(step: dict[str, str], root: Path) -> None:
    """Do what one step says."""
    if step["new"]:
        (root / step["new"]).parent.mkdir(parents=True, exist_ok=True)
        (root / step["new"]).write_text(step["code"], encoding="utf-8")
        return
    file = root / step["file"]
    text = file.read_text(encoding="utf-8")
    assert text.count(step["anchor"]) == 1, f"{step['file']}: `{step['anchor']}` is not there just once"
    if step["how"] == "instead of":
        file.write_text(text.replace(step["anchor"], step["code"].strip()), encoding="utf-8")
    else:
        before, _, after = text.partition(step["anchor"])
        rest, _, below = after.partition("\n")
        file.write_text(f"{before}{step['anchor']}{rest}\n{step['code']}{below}", encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library with the recipe's dialect in it."""
    root = tmp_path_factory.mktemp("recipe")
    shutil.copytree(PROJECT / "capture", root / "capture", ignore=shutil.ignore_patterns("__pycache__"))
    for step in steps():
        follow(step, root)
    return root


def run(root: Path, *arguments: str) -> str:
    """Run Python on the copy."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{PROJECT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_python_block_is_a_step_that_the_test_follows() -> None:
    """A block whose place is not said would be followed by nobody."""
    assert len(list(steps())) == RECIPE.count("```python\n")


def test_the_recipes_own_tests_pass(followed: Path) -> None:
    tests = "tests/unit/capture/dialects/test_acme.py"
    shown = run(
        followed,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        f"--rootdir={followed}",
        tests,
    )
    assert "7 passed" in shown


def test_the_command_shows_the_events_at_the_top_of_the_page(followed: Path) -> None:
    assert EVENTS is not None
    (followed / "answer.sse").write_text(EVENTS[1].replace("\n", "\n\n"), encoding="utf-8")
    shown = run(followed, "-c", STENO, "reduce", "answer.sse", "--path", "/acme/v1/talk")
    turn = json.loads(shown)["turn"]
    assert (turn["provider"], turn["dialect"], turn["endpoint"]) == ("acme", "acme_talk", "acme_talk")
    assert (turn["text"], turn["result"], turn["model"]) == ("Let me look.", "tool_call", "acme-1")
    assert turn["tool_calls"] == [{"id": None, "name": "look", "arguments": {"at": "it"}}]


def test_the_recipes_code_is_formatted_and_lints_as_ours(followed: Path) -> None:
    """Code that people copy."""
    made = [step["new"] for step in steps() if step["new"]]
    for command in (["format", "--check"], ["check"]):
        run(
            followed, "-m", "ruff", *command, "--no-cache", "--config", str(PROJECT / "pyproject.toml"), *made
        )


def test_the_recipes_dialect_is_a_hundred_lines() -> None:
    """What an author has to write stays small."""
    (fold,) = (step for step in steps() if step["new"] == "capture/dialects/acme.py")
    assert fold["code"].count("\n") < 160
