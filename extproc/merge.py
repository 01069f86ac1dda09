"""One page of metrics from many workers: every sample gets its worker's number as a label."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class _Merged:
    """The families of all workers' pages."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        """Each family once, with the samples of every worker."""
        families: dict[str, Metric] = {}
        for worker, page in self._pages.items():
            for family in text_string_to_metric_families(page):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                merged.samples += [
                    Sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
                    for sample in family.samples
                ]
        return families.values()


def merged_metrics(pages: Mapping[str, str]) -> bytes:
    """Merge exposition texts, by worker number, into one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(pages))
    return generate_latest(registry)
