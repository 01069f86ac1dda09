"""``steno ledger``: what became of every exchange, from the books of the spools below a data directory.

observed = open + spooled + delivered + dead_lettered + quarantined + lost + excluded
"""

import argparse
from collections import Counter
from typing import cast

import msgspec

from capture.outcomes import Outcome, State
from ingest_client.spool.tools import Json, Selection
from steno.commands.spool import add_data_dir, report_troubles, with_instances
from steno.errors import system_errors_explained


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_data_dir(parser)
    parser.add_argument("--generations", action="store_true", help="also every life of every process")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    totals: Counter[str] = Counter()
    generations: list[Json] = []
    with with_instances(parsed) as instances:
        for instance in instances:
            if instance.access is None:
                continue
            books = instance.access.call("ledger", Selection())
            totals.update(cast("dict[str, int]", books["total"]))
            where = {"instance": instance.name, "running": instance.running}
            generations += [where | life for life in cast("list[Json]", books["generations"])]
        unread = report_troubles(instances)
    balance = balance_of(totals)
    shown = generations if cast("bool", parsed.generations) else None
    with system_errors_explained():
        if cast("bool", parsed.json):
            extra = {} if shown is None else {"generations": shown}
            print(msgspec.json.encode({**balance, **extra}).decode())
        else:
            _print(balance)
            for life in shown or ():
                print(msgspec.json.encode(life).decode())
    return max(unread, int(balance["imbalance"] != 0 or totals["open"] < 0))


def balance_of(totals: Counter[str]) -> dict[str, object]:
    """The terms of the balance with the outcomes that make them up, and what does not add up (0)."""
    outcomes = {outcome: totals[outcome.value] for outcome in Outcome}
    states = {
        State.OPEN: totals["open"],
        State.SPOOLED: totals["spooled"],
        State.DELIVERED: totals["delivered"],
    }
    for state in State:
        if state not in states:
            states[state] = sum(n for outcome, n in outcomes.items() if outcome.state is state)
    return {
        "observed": totals["observed"],
        **{state.value: n for state, n in states.items()},
        "outcomes": {outcome.value: n for outcome, n in outcomes.items() if n},
        "imbalance": totals["observed"] - sum(states.values()),
    }


def _print(balance: dict[str, object]) -> None:
    outcomes = cast("dict[str, int]", balance["outcomes"])
    for term, n in balance.items():
        if term == "outcomes":
            continue
        print(f"{term:14} {n:>12}")
        for name, count in outcomes.items():
            if Outcome(name).state == term:
                print(f"  {name:20} {count:>12}")
