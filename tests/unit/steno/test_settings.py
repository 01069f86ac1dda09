"""The settings table: every row reads its default, and every problem is told at once."""

from pathlib import Path

import pytest

from ingest.settings import RANGES
from steno.commands.extproc import sidecar_settings
from steno.commands.ingest import ingest_settings
from steno.settings.kinds import File, Kind, Listen, Size, Span, Switch, Text, Texts, Whole, Workers
from steno.settings.load import SettingsError, load
from steno.settings.table import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_every_default_is_a_value_its_own_kind_accepts(row: Row) -> None:
    row.kind.read(row.default)
    assert row.help.endswith(".")
    assert row.reason


def test_flags_variables_and_paths_are_each_used_once() -> None:
    for name in ("path", "variable"):
        names = [getattr(row, name) for row in ROWS]
        assert len(names) == len(set(names))
    for section in {row.section for row in ROWS}:
        flags = [row.flag for row in ROWS if row.section == section]
        assert len(flags) == len(set(flags))


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "steno.yaml"
    file.write_text("extproc: {log_level: error, workers: 3, drain: 5s}")
    values = load(
        "extproc",
        {"config": str(file), "extproc.log_level": "debug"},
        {"STENO_EXTPROC_LOG_LEVEL": "warning", "STENO_EXTPROC_WORKERS": "2"},
    )
    assert (values["extproc.log_level"], values["extproc.workers"], values["extproc.drain"]) == (
        "debug",
        2,
        5.0,
    )


def test_the_contracts_own_variables_work_unchanged() -> None:
    values = load("extproc", {}, {"TAPES_INGEST_URL": "http://a:1,http://b:2"})
    assert values["extproc.ingest_url"] == ("http://a:1", "http://b:2")


def test_every_problem_is_told_at_once_with_its_name_and_what_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "steno.yaml"
    file.write_text("extproc: {typo: 1, drain: soon}")
    with pytest.raises(SettingsError) as refusal:
        load("extproc", {"config": str(file), "extproc.workers": "0"}, {"STENO_EXTPROC_LISTEN": "nowhere"})
    text = str(refusal.value)
    for part in (
        "extproc.typo",
        "extproc.drain",
        "'soon'",
        "--workers",
        "from 1 to 256",
        "STENO_EXTPROC_LISTEN",
    ):
        assert part in text


@pytest.mark.parametrize("content", ["[1, 2]", ": :", "\xff"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "steno.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"is not YAML|expected sections"):
        load("extproc", {"config": str(file)}, {})


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load("extproc", {"config": "/nowhere/steno.yaml"}, {})


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (Size(0, 1 << 40), "64MiB", 64 << 20),
        (Size(0, 1 << 40), 5, 5),
        (Span(0, 1e6), "500ms", 0.5),
        (Span(0, 1e6), "7d", 604_800.0),
        (Switch(), True, True),
        (Switch(), "off", False),
        (Texts(), ["a", "b"], ("a", "b")),
        (Texts(), "a, ,b", ("a", "b")),
        (Text(("a", "b")), "a", "a"),
        (File(), "", None),
        (Listen(), "unix:/s", "unix:/s"),
        (Workers(), "2", 2),
    ],
)
def test_values_are_read_as_people_write_them(kind: Kind, given: object, value: object) -> None:
    assert kind.read(given) == value


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Size(1, 10), "11"), (Size(0, 10), "5 apples"), (Size(0, 10), True), (Span(0, 5), "6"),
        (Span(0, 5), "-1"), (Whole(1, 2), "1.5"), (Whole(1, 2), True), (Switch(), "perhaps"),
        (Texts(), [1]), (Texts(), {}), (Text(("a",)), "b"), (Text(), []), (File(), "/nowhere"), (File(), 3),
        (Listen(), "host"), (Workers(), "many"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_accepted(kind: Kind, given: object) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        kind.read(given)
    assert str(refusal.value) == kind.expected


def test_the_sidecars_settings_are_made_of_the_table(tmp_path: Path) -> None:
    backends, routes = tmp_path / "b.yaml", tmp_path / "r.yaml"
    backends.write_text("team-a: anthropic")
    routes.write_text("- {path: /llm, dialect: openai_chat, provider: openai}")
    flags = {
        "extproc.backends_file": str(backends),
        "extproc.routes_file": str(routes),
        "extproc.data_dir": "d",
    }
    settings = sidecar_settings(load("extproc", flags, {}))
    assert settings.classifier.backends == {"team-a": "anthropic"}
    assert settings.classifier.overrides[0].path == "/llm"
    assert settings.delivery.endpoints[0].url == "http://127.0.0.1:8090"
    assert settings.tls is None


def test_files_with_the_wrong_shape_are_refused_together(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("- {path: /llm, dialect: klingon, provider: x}")
    flags = {
        "extproc.backends_file": str(wrong),
        "extproc.routes_file": str(wrong),
        "extproc.tls_cert_file": str(wrong),
    }
    with pytest.raises(SettingsError) as refusal:
        sidecar_settings(load("extproc", flags | {"extproc.ingest_url": "ftp://x"}, {}))
    for name in ("backends_file", "routes_file", "tls_cert_file", "ingest_url", "openai_chat"):
        assert name in str(refusal.value)


def test_the_ingests_settings_are_made_of_the_table(tmp_path: Path) -> None:
    rules = tmp_path / "r.yaml"
    rules.write_text("- {tenant: a, accepted_days: 90}")
    settings = ingest_settings(load("ingest", {"ingest.retention_file": str(rules)}, {}))
    assert (settings.retention[0].tenant, settings.retention[0].accepted_days) == ("a", 90)
    rules.write_text("- {tenant: a, accepted_days: forever}")
    with pytest.raises(SettingsError, match="accepted_days"):
        ingest_settings(load("ingest", {"ingest.retention_file": str(rules)}, {}))


@pytest.mark.parametrize("name", ["max_body", "queue_jobs", "queue_bytes"])
def test_the_table_and_the_ingest_agree_on_what_is_allowed(name: str) -> None:
    """A value that the reference names must not be refused by the service."""
    (kind,) = (row.kind for row in ROWS if row.path == f"ingest.{name}")
    assert isinstance(kind, Size | Whole)
    assert RANGES["max_body_bytes" if name == "max_body" else name] == (kind.minimum, kind.maximum)
