"""What a scrape says, by name and labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from clusters.policy import ClusterPolicy
from jobs.engine.rollup import fold_tallies
from jobs.prometheus.exposition import expose

POLICY = ClusterPolicy()


class Scraped:
    """A scrape as Prometheus' own parser reads it."""

    def __init__(self, text: bytes) -> None:
        self.text = text.decode()
        self.families = [*text_string_to_metric_families(self.text)]
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in self.families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, f"told twice: {key}"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of one series, None where it is not there."""
        return self.samples.get((f"yardmaster_{name}", frozenset(labels.items())))

    def all(self, name: str, **labels: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The series of a metric that have these labels, by the rest of theirs."""
        given = set(labels.items())
        return {
            tuple(sorted(found - given)): value
            for (one, found), value in self.samples.items()
            if one == f"yardmaster_{name}" and given <= found
        }


def scrape(*clusters: str) -> Scraped:
    return Scraped(expose(clusters or ("alpha",)))


def fold(using: str = "cluster-alpha") -> None:
    while fold_tallies(using, POLICY):
        pass
