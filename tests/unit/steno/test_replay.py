"""``steno replay``: what it reads, what it sends, and what it says."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from extproc.assemble import TurnIdentity
from ingest_client.sink import Record
from ingest_client.spool import Spool
from steno.cli import main
from steno.recorded import UnreadableError
from steno.replaying import Sending, how_many, sendings
from tests.paths import SHARED, needs_shared
from tests.unit.extproc.playbook import TURN, ending, request, request_headers


@dataclass
class Server:
    """Keeps what it is sent; answers with ``status``."""

    url: str = ""
    status: int = 202
    got: list[tuple[str, str, bytes]] = field(default_factory=list[tuple[str, str, bytes]])

    async def take(self, request: web.Request) -> web.Response:
        key = request.headers.get("idempotency-key", "") or request.headers.get("x-test", "")
        self.got.append((request.path, key, await request.read()))
        return web.Response(status=self.status, body=b"ok")


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    """A running server on loopback."""
    found = Server()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{path:.*}", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def steno(*arguments: str) -> int:
    """The command, in a thread: it runs a loop of its own."""
    return await asyncio.to_thread(main, ["replay", *arguments])


def turn_body() -> bytes:
    made = ending(*TURN)
    assert isinstance(made, Record)
    return made.body


async def test_turns_of_a_spool_export_are_posted_under_their_own_ids(server: Server, tmp_path: Path) -> None:
    """Byte for byte, so that ingest knows them again."""
    lines = [b'{"turn_id": "t-%d", "body": %s}' % (n, turn_body()) for n in range(3)]
    (tmp_path / "turns.jsonl").write_bytes(b"\n".join(lines))
    assert await steno(str(tmp_path / "turns.jsonl"), f"--to={server.url}/", "--rate=0") == 0
    assert sorted(server.got) == [("/v1/ingest", f"t-{n}", turn_body()) for n in range(3)]


def test_a_line_of_ingests_export_is_the_turn_it_was(tmp_path: Path) -> None:
    body = json.loads(turn_body())
    line = {
        "turn": {"id": "x", "provider": body["provider"], "request_id": TurnIdentity("turn-1").turn_id},
        "request": body["request"], "response": body["response"], "meta": body["meta"], "session": None,
    }  # fmt: skip
    (tmp_path / "export.jsonl").write_text(json.dumps(line))
    (sending,) = sendings(tmp_path / "export.jsonl")
    assert isinstance(sending, Sending)
    assert json.loads(sending.body) == body
    assert sending.headers["idempotency-key"] == "turn-1"


@needs_shared
async def test_recorded_exchanges_go_to_their_own_paths(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 200
    folder = SHARED / "corpus" / "groq"
    flags = (f"--to={server.url}", "--rate=0", "--json", "--header=x-test: yes")
    assert await steno(str(folder), *flags) == 0
    cases = list(folder.rglob("meta.json"))
    assert len(server.got) == len(cases)
    assert {key for _, key, _ in server.got} == {"yes"}
    bodies = {(case.parent / "request.json").read_bytes() for case in cases}
    assert {body for _, _, body in server.got} == bodies
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[-1]["statuses"] == {"200": len(cases)}
    assert {line["status"] for line in told[:-1]} == {200}


async def test_the_rate_is_kept(server: Server, tmp_path: Path) -> None:
    lines = [b'{"turn_id": "t-%d", "body": {}}' % n for n in range(6)]
    (tmp_path / "turns.jsonl").write_bytes(b"\n".join(lines))
    began = asyncio.get_running_loop().time()
    assert await steno(str(tmp_path / "turns.jsonl"), f"--to={server.url}", "--rate=10") == 0
    assert asyncio.get_running_loop().time() - began >= 0.5


async def test_a_refusal_and_an_unreadable_line_fail_the_run_and_are_named(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 413
    (tmp_path / "turns.jsonl").write_bytes(b'{"turn_id": "t", "body": {}}\nno JSON\n{}\n')
    assert await steno(str(tmp_path / "turns.jsonl"), f"--to={server.url}", "--rate=0") == 1
    said = capsys.readouterr()
    assert "turns.jsonl:1: 413" in said.err
    assert "turns.jsonl:2: no exported turn" in said.err
    assert "turns.jsonl:3: no exported turn" in said.err
    assert said.out == f"1 sent in {said.out.split()[3]} s, 3 failed, 0 skipped\n"


async def test_what_an_export_has_of_the_quarantine_is_skipped_by_name_and_never_posted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole export, as `steno spool export` writes it without a filter; and a line without its state."""
    spool = await Spool.open(tmp_path / "data")
    for record in (ending(*TURN), ending(request_headers(), request(b"no JSON"), *TURN[2:])):
        assert isinstance(record, Record)
        spool.ledger.observe()
        await spool.keep(replace(record, turn_id="held" if record.quarantine else "whole"))
    await spool.close(5)
    export = tmp_path / "all.jsonl"
    at = f"--data-dir={tmp_path / 'data'}"
    assert await asyncio.to_thread(main, ["spool", "export", at, f"--output={export}"]) == 0
    held = next(
        line for line in map(json.loads, export.read_text().splitlines()) if line["turn_id"] == "held"
    )
    with export.open("a") as more:
        more.write(json.dumps({"turn_id": "held", "body": held["body"]}) + "\n")
    assert await steno(str(export), f"--to={server.url}", "--rate=0") == 1
    assert [(key, body) for _, key, body in server.got] == [("whole", turn_body())]
    said = capsys.readouterr()
    assert said.out.endswith(" 0 failed, 2 skipped\n")
    known, bare = [line for line in said.err.splitlines() if line.startswith("skipped")]
    assert known.startswith(f"skipped: {export}:2: quarantined: marshal_error: ")
    assert bare.startswith(f"skipped: {export}:3: quarantined: no turn until ")
    assert await steno(str(export), f"--to={server.url}", "--rate=0", "--json") == 1
    *_, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert (total["sent"], total["failed"], total["skipped"]) == (1, 0, 2)


async def test_a_terminal_gets_the_bar_of_the_other_commands(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How far it has come of how much; a line that failed has a line of its own."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    (tmp_path / "turns.jsonl").write_bytes(b'{"turn_id": "t", "body": {}}\n\nno JSON\n{"body": {}}\n')
    assert await steno(str(tmp_path / "turns.jsonl"), f"--to={server.url}", "--rate=0") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert f"\r\x1b[K{tmp_path}/turns.jsonl:3: no exported turn" in said
    assert said.endswith(f"[{'#' * 30}] 3/3 done in 0 s\n")


@pytest.mark.parametrize("made", ["nothing", "file", "folder"])
def test_the_bar_knows_how_much_there_is(made: str, tmp_path: Path) -> None:
    path = tmp_path / "path"
    if made == "file":
        path.write_bytes(b"{}\n\n{}\n{}")
    elif made == "folder":
        for name in ("a", "b", "b/c"):
            (path / name).mkdir(parents=True)
            (path / name / "meta.json").touch()
    assert how_many(path) == (0 if made == "nothing" else len(list(sendings(path))))


async def test_nobody_there_is_said_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "turns.jsonl").write_bytes(b'{"turn_id": "t", "body": {}}\n')
    assert await steno(str(tmp_path / "turns.jsonl"), "--to=http://127.0.0.1:1", "--json") == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["error"]
    assert (told[1]["sent"], told[1]["failed"]) == (1, 1)


def test_what_cannot_be_read_is_an_error_in_its_place(tmp_path: Path) -> None:
    (missing,) = sendings(tmp_path / "none.jsonl")
    (empty,) = sendings(tmp_path)
    assert isinstance(missing, UnreadableError)
    assert isinstance(empty, UnreadableError)


async def test_a_header_without_a_value_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert await steno(str(tmp_path), "--to=http://127.0.0.1:1", "--header=oops") == 1
    assert "NAME: VALUE" in capsys.readouterr().err
