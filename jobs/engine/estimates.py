"""How long jobs take and how large they are, from recent runs; it says how many a child may hold."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.engine.claim import Claimed
from jobs.executors import KINDS, PROCESS

# A child is never given more than this much expected work.
IN_HAND_SECONDS = 0.2


class Estimates:
    """How long jobs of each type take, from recent runs; quick to grow, slow to shrink."""

    def __init__(self) -> None:
        self._by_type: dict[tuple[str, str], float] = {}
        # Over all types in the proportion in which they come.
        self.mix: float | None = None
        self.payload_bytes: float | None = None

    def learn_size(self, jobs: Sequence[Claimed]) -> None:
        """Remember how large payloads are, for the next claim not to take too much at once."""
        if jobs:
            total = sum([len(job.payload or "") + len(job.payload_bytes or b"") for job in jobs])
            mean = total / len(jobs)
            self.payload_bytes = _moved(self.payload_bytes, mean, mean, 1)

    def of(self, job: Claimed) -> float:
        """Expected seconds; a type that was never seen fills a child alone."""
        return self._by_type.get((job.kind, job.type), IN_HAND_SECONDS)

    def learn(self, kind: str, type_name: str, seconds: Sequence[float]) -> None:
        """Take in how long some jobs of one type took."""
        key = (kind, type_name)
        longest, mean = max(seconds), sum(seconds) / len(seconds)
        self._by_type[key] = _moved(self._by_type.get(key), longest, mean, len(seconds))
        if KINDS[kind].pool == PROCESS:
            self.mix = _moved(self.mix, longest, mean, len(seconds))
        if len(self._by_type) > 10_000:
            self._by_type.clear()


def _moved(old: float | None, longest: float, mean: float, count: int) -> float:
    """An estimate after some more values: half the way up to a longer one, a twentieth of it down."""
    if old is None:
        return longest
    if longest > old:
        return old + (longest - old) * 0.5
    return mean + (old - mean) * 0.95**count
