"""``steno spool``: look into the spools below a data directory, and put things right.

Safe while the sidecar runs: it is asked through the control socket. A spool at rest is opened
under its lock. Exit codes: 0 done and everything sound, 1 something is damaged, refused or unreachable.
"""

import argparse
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO, cast

import msgspec

from extproc.revival import revive
from ingest_client.spool.offline import Instance, reach
from ingest_client.spool.rows import RowState
from ingest_client.spool.tools import Json, Selection, ToolError
from steno.errors import CommandError, explained, system_errors_explained
from steno.settings.load import environment, load
from steno.spool_pages import pages, records
from steno.spool_verify import verdict, verified

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _action(actions, "list", _list, "dead letters, quarantine and damaged records (or others)")
    _add_states(listing)
    listing.add_argument("--limit", type=int, default=1000, help="records at most (1000)")
    show = _action(actions, "show", _show, "one record with its attempts and its body")
    show.add_argument("turn_id")
    requeue = _action(actions, "requeue", _requeue, "deliver dead letters or quarantined records again")
    _add_states(requeue)
    requeue.add_argument("turn_ids", nargs="*", metavar="TURN_ID", help="these, or all that the flags choose")
    requeue.add_argument("--body", type=Path, metavar="FILE", help="the mended body of the one TURN_ID")
    requeue.add_argument(
        "--request-as-text",
        action="store_true",
        help="of quarantined turns: send a request that is no JSON as a JSON string",
    )
    export = _action(actions, "export", _export, "records as JSON lines, for `steno replay`")
    _add_states(export)
    export.add_argument("turn_ids", nargs="*", metavar="TURN_ID")
    export.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    verify = _action(actions, "verify", _verify, "check every record; set damaged ones aside")
    verify.add_argument("--tenant", help=argparse.SUPPRESS)
    purge = _action(actions, "purge", _purge, "remove records for good")
    _add_states(purge)
    purge.add_argument("turn_ids", nargs="*", metavar="TURN_ID")
    purge.add_argument("--yes", action="store_true", help="really; without it only says how many")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    purpose: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    add_data_dir(parser)
    parser.set_defaults(run=run)
    return parser


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """The flags that every command on a data directory has."""
    parser.add_argument("--data-dir", metavar="DIR", help="of the sidecar (STENO_EXTPROC_DATA_DIR)")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings (STENO_CONFIG)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_states(parser: argparse.ArgumentParser) -> None:
    """Flags that choose records."""
    for flag, state, purpose in (
        ("--pending", "pending", "turns that wait for delivery"),
        ("--dead-letters", "dead_letter", "turns that ingest refused for good"),
        ("--quarantine", "quarantined", "what could not be read or written"),
        ("--damaged", "damaged", "records whose payload is destroyed"),
    ):
        parser.add_argument(flag, dest="states", action="append_const", const=state, help=f"only {purpose}")
    parser.add_argument("--tenant", help="only of this tenant")
    parser.add_argument("--older-than", metavar="AGE", help="only created longer ago: 90s, 30m, 12h, 7d")


# The actions


def _list(parsed: argparse.Namespace) -> int:
    states = _states(parsed) or ("dead_letter", "quarantined", "damaged")
    selection = _selection(parsed, states)
    out = _Out(parsed)
    with with_instances(parsed) as instances:
        left = cast("int", parsed.limit)
        for instance in instances:
            for record in records(instance, "list", selection):
                if left <= 0:
                    break
                left -= 1
                out.record(instance, record)
            if instance.access is not None:
                groups = cast("list[Json]", instance.access.call("summary", Selection())["groups"])
                for group in groups:
                    out.say(f"{instance.name}: {group['turns']} {group['state']} of {group['tenant']}")
        return report_troubles(instances)


def _show(parsed: argparse.Namespace) -> int:
    selection = Selection(turn_ids=(cast("str", parsed.turn_id),))
    out = _Out(parsed)
    with with_instances(parsed) as instances:
        for instance in instances:
            for record in records(instance, "show", selection):
                out.whole(instance, record)
                return 0
        read = "no spool that can be read" if report_troubles(instances) else "no spool"
    raise CommandError(f"{read} has the turn {parsed.turn_id}")


def _requeue(parsed: argparse.Namespace) -> int:
    turn_ids = cast("list[str]", parsed.turn_ids)
    states = _states(parsed)
    if not turn_ids and not states:
        raise CommandError("say which: turn ids, --dead-letters or --quarantine")
    file = cast("Path | None", parsed.body)
    if file is not None and len(turn_ids) != 1:
        raise CommandError("--body is the body of one turn: name that turn")
    body = _text(file) if file is not None else None
    selection = _selection(parsed, states or ("dead_letter", "quarantined"))
    done = refused = 0
    out = _Out(parsed)
    with with_instances(parsed) as instances:
        for instance in instances:
            for page in _requeued(instance, selection, body, as_text=cast("bool", parsed.request_as_text)):
                done += len(cast("list[str]", page["requeued"]))
                for each in cast("list[Json]", page["refused"]):
                    refused += 1
                    out.say(f"{each['turn_id']}: not requeued: {each['reason']}", each | {"refused": True})
        out.say(f"{done} requeued, {refused} refused", {"requeued": done, "refused": refused})
        unread = report_troubles(instances)
        if turn_ids and not (done or refused or unread):
            raise CommandError("no spool has such dead letters or quarantined records")
        return max(unread, int(refused > 0))


def _requeued(instance: Instance, selection: Selection, body: str | None, *, as_text: bool) -> Iterator[Json]:
    """The pages of a requeue. What is quarantined is no turn yet: it is made one, record by record."""
    if body is None and RowState.QUARANTINED in selection.states:
        quarantined = replace(selection, states=(RowState.QUARANTINED.value,))
        for record in records(instance, "export", quarantined, progress="revived"):
            yield _revived(instance, record, as_text=as_text)
        states = tuple(state for state in selection.states if state != RowState.QUARANTINED)
        selection = replace(selection, states=states)
    if selection.states:
        yield from pages(instance, "requeue", selection, body=body, progress="requeued")


def _revived(instance: Instance, record: Json, *, as_text: bool) -> Json:
    """Requeue one quarantined record as the turn it should have been; a page of one."""
    turn_id = str(record["turn_id"])
    text = record.get("body")
    made = (
        revive(text.encode(), request_as_text=as_text)
        if isinstance(text, str)
        else str(record.get("damaged", "its body is no JSON"))
    )
    if isinstance(made, str):
        return {"requeued": [], "refused": [{"turn_id": turn_id, "reason": made}], "next": None}
    assert instance.access is not None
    this = Selection(states=(RowState.QUARANTINED.value,), turn_ids=(turn_id,))
    return instance.access.call("requeue", this, made.body.decode())


def _export(parsed: argparse.Namespace) -> int:
    selection = _selection(parsed, _states(parsed))
    output = cast("Path | None", parsed.output)
    number = 0
    with with_instances(parsed) as instances, _writer(output) as target:
        for instance in instances:
            for record in records(instance, "export", selection, progress="exported"):
                body = record.pop("body", None)
                if isinstance(body, str):
                    record["body"] = msgspec.Raw(body.encode())
                target.write(msgspec.json.encode(record).decode() + "\n")
                number += 1
        print(f"{number} exported", file=sys.stderr)
        return report_troubles(instances)


def _verify(parsed: argparse.Namespace) -> int:
    out = _Out(parsed)
    sound = True
    with with_instances(parsed) as instances:
        for instance in instances:
            report = verified(instance)
            sound &= bool(report.pop("sound"))
            out.say(verdict(report), report)
        if not instances:
            out.say("there is no spool here", {"instances": 0})
        return 0 if sound else 1


def _purge(parsed: argparse.Namespace) -> int:
    turn_ids = cast("list[str]", parsed.turn_ids)
    states = _states(parsed)
    if not turn_ids and not states:
        raise CommandError("say which: turn ids, or states such as --dead-letters")
    selection = _selection(parsed, states)
    out = _Out(parsed)
    removed = 0
    with with_instances(parsed) as instances:
        for instance in instances:
            if instance.access is None:
                continue
            if not cast("bool", parsed.yes):
                removed += cast("int", instance.access.call("count", selection)["count"])
                continue
            for page in pages(instance, "purge", selection, progress="removed"):
                removed += cast("int", page["purged"])
        if cast("bool", parsed.yes):
            out.say(f"{removed} removed", {"purged": removed})
        else:
            out.say(f"{removed} would be removed: add --yes", {"would_purge": removed})
        return report_troubles(instances)


# Arguments and output


def _selection(parsed: argparse.Namespace, states: tuple[str, ...]) -> Selection:
    named = cast("list[str] | None", getattr(parsed, "turn_ids", None))
    older = cast("str | None", parsed.older_than)
    return Selection(
        states=states,
        tenant=cast("str | None", parsed.tenant),
        turn_ids=tuple(named) if named else None,
        before_ns=None if older is None else time.time_ns() - int(_age_s(older) * 1e9),
    )


def _states(parsed: argparse.Namespace) -> tuple[str, ...]:
    return tuple(cast("list[str] | None", parsed.states) or ())


def _age_s(text: str) -> float:
    try:
        return float(text[:-1]) * _UNITS_S[text[-1:]]
    except (ValueError, KeyError) as error:
        raise CommandError(f"an age is a number and s, m, h or d, not {text!r}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(explained(error)) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} cannot be read: {error}") from error


@contextmanager
def with_instances(parsed: argparse.Namespace) -> Generator[list[Instance]]:
    """Every spool below the data directory, let go of at the end. Raises CommandError."""
    given = {
        "extproc.data_dir": cast("str | None", parsed.data_dir),
        "config": cast("str | None", parsed.config),
    }
    root = Path(str(load("extproc", given, environment())["extproc.data_dir"]))
    with system_errors_explained():
        if not root.is_dir():
            raise CommandError(f"there is no data directory {root}: name it with --data-dir")
        instances = reach(root)
        try:
            yield instances
        except ToolError as error:
            raise CommandError(str(error)) from error
        finally:
            for instance in instances:
                if instance.access is not None:
                    instance.access.close()


@contextmanager
def _writer(output: Path | None) -> Generator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8") as target:
        output.chmod(0o600)
        yield target


class _Out:
    """Standard output: lines for people, or with ``--json`` objects."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        self._json = cast("bool", parsed.json)

    def say(self, text: str, facts: Json | None = None) -> None:
        """A line; as JSON its facts, and nothing where it has none."""
        if not self._json:
            print(text)
        elif facts is not None:
            print(msgspec.json.encode(facts).decode())

    def record(self, instance: Instance, record: Json) -> None:
        """A record of a list."""
        created_s = cast("int", record["created_at_ns"]) / 1e9
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created_s))
        self.say(
            f"{record['turn_id']}  {when}  {record['state']:<11}  {record['tenant']}"
            f"  {record['body_bytes']} bytes  {record['attempts']} attempts  {record['reason'] or '-'}",
            {"instance": instance.name, **record},
        )

    def whole(self, instance: Instance, record: Json) -> None:
        """A record with everything."""
        if self._json:
            self.say("", {"instance": instance.name, **record})
            return
        body = record.pop("body", None)
        for name, value in {"instance": instance.name, **record}.items():
            print(
                f"{name}: {msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value}"
            )
        if isinstance(body, str):
            print(msgspec.json.format(body, indent=2))


def report_troubles(instances: list[Instance]) -> int:
    """Say which instances could not be reached; the exit code that this makes."""
    for instance in instances:
        if instance.trouble:
            print(f"steno: {instance.name}: {instance.trouble}", file=sys.stderr)
    return int(any(instance.trouble for instance in instances))
