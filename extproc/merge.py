"""One page of metrics from many processes, whose counters never go backwards.

A sample of a process gets its worker's number as a label. Where a worker has several processes
(one that came, one that leaves) its counters and gauges are summed, but for gauges that are a
condition and not a number: of those the worst stands. What a process had counted when it
ended is carried along, so a worker's counters go on over all of its lives.

The ledger is another matter: it is on disk, and goes with the spool to whichever process adopts
that. It is therefore shown once for the sidecar, from the processes that live, and ``observed``
waits where a spool has not found its new owner yet. With a ledger in memory alone it is carried
like everything else, but for what the process had open or spooled when it died: that is ``lost(crash)``.
A process that stopped in good order has said on its last page what became of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from capture.outcomes import Outcome, State

LEDGER: Final = frozenset(
    (
        *("steno_exchanges_observed", "steno_exchanges"),
        *("steno_exchange_outcomes", "steno_ledger_imbalance"),
    )
)
WORST: Final = frozenset(
    (
        *("steno_loop_lag_worst_seconds", "steno_spool_disk_trouble", "steno_delivery_endpoint"),
        *("steno_held_bytes_limit", "steno_held_exchanges_limit", "steno_assembler_running"),
    )
)

_HELD: Final = frozenset({State.OPEN.value, State.SPOOLED.value})

Process: TypeAlias = tuple[int, int]
"""A worker's index, and the number of its life."""
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Family:
    """One family of the page: name, type and help, and its samples by name and labels."""

    documentation: str
    type: str
    values: dict[_Key, float] = field(default_factory=dict[_Key, float])

    @property
    def counts(self) -> bool:
        """Whether its values only grow."""
        return self.type in {"counter", "histogram"}

    def add(self, values: Mapping[_Key, float], *, worst: bool) -> None:
        """Take in another process's values."""
        for key, value in values.items():
            known = self.values.get(key, 0.0)
            self.values[key] = max(known, value) if worst else known + value


_Families: TypeAlias = dict[str, _Family]


class MergedMetrics:
    """Keeps what is needed between two pages. ``durable``: the ledger is on disk."""

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self._seen: dict[Process, _Families] = {}
        self._carried: _Families = {}
        self._observed = 0.0

    def ended(self, process: Process, page: str | None) -> int:
        """A process has ended. ``page``: its last metrics; None: those that it showed last.

        Returns how many exchanges it took with it, as far as was seen (0 where their ledger is on disk).
        """
        seen = self._seen.pop(process, {})
        last = seen if page is None else _last(process, page) or seen
        lost = 0 if self._durable else _bury(last)
        carried = {
            name: family
            for name, family in last.items()
            if (not self._durable if name in LEDGER else family.counts)
        }
        _add(self._carried, carried)
        return lost

    def render(self, pages: Mapping[Process, str]) -> bytes:
        """One page from those of the processes that answered; of the others, what they showed last."""
        self._seen |= {process: _read(process, page) for process, page in pages.items()}
        families: _Families = {}
        _add(families, self._carried)
        for process, seen in self._seen.items():
            _add(
                families,
                {
                    name: family
                    for name, family in seen.items()
                    if process in pages or family.counts or name in LEDGER
                },
            )
        self._hold(families.get("steno_exchanges_observed"))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page(families))
        return generate_latest(registry)

    def _hold(self, observed: _Family | None) -> None:
        """Never less than was shown before."""
        if observed is None:
            return
        for key, value in observed.values.items():
            self._observed = max(self._observed, value)
            observed.values[key] = self._observed


class _Page:
    """What the registry asks."""

    def __init__(self, families: _Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Each family once."""
        for name, family in self._families.items():
            metric = Metric(name, family.documentation, family.type)
            metric.samples = [
                Sample(sample, dict(labels), value) for (sample, labels), value in family.values.items()
            ]
            yield metric


def _read(process: Process, page: str) -> _Families:
    """The families of one page, with the worker as a label where they are not the sidecar's."""
    families: _Families = {}
    for read in text_string_to_metric_families(page):
        if read.name.endswith("_created"):
            continue  # when a process began to count: there is no such moment for several
        own = {} if read.name in LEDGER else {"worker": str(process[0])}
        family = families.setdefault(read.name, _Family(read.documentation, read.type))
        family.add(
            {(sample.name, tuple((sample.labels | own).items())): sample.value for sample in read.samples},
            worst=False,
        )
    return families


def _last(process: Process, page: str) -> _Families:
    """The families of a last page; none of one that a full disk has cut."""
    try:
        families = _read(process, page)
    except (ValueError, IndexError):
        return {}
    return families if "steno_exchanges" in families else {}


def _bury(families: _Families) -> int:
    """Count what a process still had, and nobody has now, as lost in its crash; returns how much."""
    terms = families.get("steno_exchanges")
    if terms is None:
        return 0
    gone = [key for key in terms.values if dict(key[1])["state"] in _HELD]
    lost = sum(terms.values[key] for key in gone)
    terms.values |= dict.fromkeys(gone, 0.0)
    _count(terms, lost, state=State.LOST.value)
    _count(families["steno_exchange_outcomes"], lost, outcome=Outcome.CRASH.value)
    return int(lost)


def _count(family: _Family, n: float, **labels: str) -> None:
    """Add to the one row with these labels: every row exists from the start."""
    (key,) = [key for key in family.values if labels.items() <= dict(key[1]).items()]
    family.values[key] += n


def _add(families: _Families, more: _Families) -> None:
    for name, family in more.items():
        known = families.setdefault(name, _Family(family.documentation, family.type))
        known.add(family.values, worst=name in WORST)
