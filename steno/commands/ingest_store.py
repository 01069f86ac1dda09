"""``steno ingest backup``, ``restore``, ``export``, ``import``: the whole store in and out.

They work on the database itself. Exit codes: 0 done and everything whole, 1 refused, damaged
or unreachable; the last line says why.
"""

import argparse
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from ingest.archive import ArchiveError, bring_in, write_out
from ingest.backup import back_up, restore
from ingest.files import whole
from ingest.store.connection import Engine, StoreError
from ingest.store.engines import UrlError, engine_of
from ingest.store.portable import Choice
from ingest.store.postgres import UnsafeServerError
from ingest.store.rows import State
from ingest.store.schema import NewerSchemaError
from steno.errors import CommandError
from steno.progress import Bar
from steno.settings.flags import read_flags

_URL = "setting:ingest.database_url"


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands; without one the service runs."""
    actions = parser.add_subparsers(metavar="ACTION", title="other actions, on the store itself")
    backup = _action(actions, "backup", _backup, "write a checked copy of the store, while the service runs")
    backup.add_argument(
        "target", type=Path, metavar="TARGET", help="the file to make; its SHA-256 goes beside it"
    )
    back = _action(actions, "restore", _restore, "put a backup in place of the store; stop the service first")
    back.add_argument("source", type=Path, metavar="SOURCE", help="a file that backup made")
    back.add_argument("--overwrite", action="store_true", help="replace the turns that the store has")
    back.add_argument(
        "--derive-again", action="store_true", help="make everything derived again from the turns"
    )
    export = _action(actions, "export", _export, "write turns as JSON lines, oldest first")
    export.add_argument("--tenant", default="", help="only of this tenant")
    export.add_argument("--state", default="", choices=[each.value for each in State], help="only such")
    export.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    bring = _action(actions, "import", _import, "store the turns of JSON lines that are not there yet")
    bring.add_argument("source", type=Path, nargs="?", metavar="FILE", help="instead of standard input")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    purpose: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    # Not given here, they keep what was given before the action.
    parser.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="YAML file (STENO_CONFIG)"
    )
    parser.add_argument(
        "--database-url",
        dest=_URL,
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help="where turns are stored (STENO_INGEST_DATABASE_URL)",
    )
    parser.add_argument("--json", action="store_true", help="say what was done as a JSON object")
    parser.set_defaults(run=run)
    return parser


@contextmanager
def _store(parsed: argparse.Namespace) -> Generator[Engine]:
    """The engine that the settings name; what fails on it is the command's error."""
    url = cast("str", read_flags(parsed, "ingest")["ingest.database_url"])
    try:
        yield engine_of(url)
    except StoreError as error:
        raise CommandError(f"the store cannot be used: {error}") from error
    except (UrlError, ArchiveError, NewerSchemaError, UnsafeServerError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'the file'}: {error.strerror or error}") from error


def _backup(parsed: argparse.Namespace) -> int:
    target = cast("Path", parsed.target)
    began = time.monotonic()
    with _store(parsed) as engine:
        made = back_up(engine, target, Bar)
    text = f"{target}: {made.turns} turns, {made.bytes} bytes, checked; {made.form}, SHA-256 {made.sha256}"
    facts = {"target": str(target), "form": made.form, "turns": made.turns, "bytes": made.bytes}
    _say(parsed, text, facts | {"sha256": made.sha256, "seconds": _since(began)})
    return 0


def _restore(parsed: argparse.Namespace) -> int:
    source = cast("Path", parsed.source)
    began = time.monotonic()
    with _store(parsed) as engine:
        made = restore(
            engine,
            source,
            Bar,
            overwrite=cast("bool", parsed.overwrite),
            derive_again=cast("bool", parsed.derive_again),
        )
    text = f"{made.turns} turns restored, {made.replaced} replaced; the service will derive {made.derive}"
    facts = {"source": str(source)} | msgspec.structs.asdict(made)
    _say(parsed, text, facts | {"seconds": _since(began)})
    return 0


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _export(parsed: argparse.Namespace) -> int:
    choice = Choice(tenant=cast("str", parsed.tenant), state=cast("str", parsed.state))
    output = cast("Path | None", parsed.output)
    lost: list[str] = []

    def tell(reason: str) -> None:
        lost.append(reason)
        print(f"steno: {reason}", file=sys.stderr)

    began = time.monotonic()
    with _store(parsed) as engine:
        if output is None:
            number = write_out(engine, choice, sys.stdout.buffer.write, Bar("turns exported"), tell)
            sys.stdout.buffer.flush()
        else:
            with whole(output) as partial, partial.open("wb") as file:
                number = write_out(engine, choice, file.write, Bar("turns exported"), tell)
    facts = {"exported": number, "unreadable": len(lost), "seconds": _since(began)}
    # The lines may be on standard output: what is said about them is not.
    _say(parsed, f"{number} exported, {len(lost)} unreadable", facts, error=output is None)
    return 1 if lost else 0


def _import(parsed: argparse.Namespace) -> int:
    source = cast("Path | None", parsed.source)
    began = time.monotonic()

    def refused(number: int, reason: str) -> None:
        _say(parsed, f"line {number}: {reason}", {"line": number, "reason": reason}, error=not _json(parsed))

    with _store(parsed) as engine, closing(_lines(source)) as lines:
        engine.prepare()
        bar = Bar("bytes read")
        size = source.stat().st_size if source is not None else 0
        outcome = bring_in(engine, lines, lambda read, _: bar(read, size), refused)
        bar.end()
    text = f"{outcome.stored} stored, {outcome.there} already there, {outcome.refused} refused"
    facts = {"stored": outcome.stored, "already_there": outcome.there, "refused": outcome.refused}
    _say(parsed, text, facts | {"seconds": _since(began)})
    return 1 if outcome.refused else 0


def _lines(source: Path | None) -> BinaryIO:
    return sys.stdin.buffer if source is None else source.open("rb")


def _json(parsed: argparse.Namespace) -> bool:
    return cast("bool", parsed.json)


def _say(parsed: argparse.Namespace, text: str, facts: Mapping[str, object], *, error: bool = False) -> None:
    line = msgspec.json.encode(facts).decode() if _json(parsed) else text
    print(line, file=sys.stderr if error else sys.stdout)
