"""Which metric each figure is: names, labels, units and what they mean."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from jobs.executors import IO, PROCESS
from jobs.histogram import LARGEST, PER_DOUBLING, SMALLEST, mean, percentile, upper_bound
from jobs.models import Event, FireReason, FireState
from jobs.prometheus.figures import ClusterFigures, QueueFigures
from jobs.prometheus.text import Family, Labels, Sample, labelled
from jobs.states import Outcome, State

# Upper bounds of the histograms: 4 ms, 16 ms and, from 64 ms to 65 s, each twice the one before; then
# four times, to 19 hours. Each is the upper bound of a bucket of ours, so no count is guessed.
_DOUBLINGS = (2, 4, *range(6, 17), 18, 20, 22, 24, 26)
BOUNDS = tuple((n * PER_DOUBLING, upper_bound(n * PER_DOUBLING)) for n in _DOUBLINGS)
QUANTILES = (0.5, 0.95, 0.99)
FIRES = (FireState.FIRED.value, *FireReason.values)

# The figures of each cluster, None where it does not answer.
Clusters = Mapping[str, ClusterFigures | None]
_Cluster = tuple[str, ClusterFigures]
_Queue = tuple[Labels, QueueFigures]


def families(clusters: Clusters) -> Iterator[Family]:
    """All metrics of these clusters."""
    yield _gauge(
        "cluster_up",
        "Whether the database of the cluster answers (1) or not (0); then nothing else is told of it.",
        [Sample(labelled(cluster=name), int(one is not None)) for name, one in clusters.items()],
    )
    answered = [(name, one) for name, one in clusters.items() if one is not None]
    queues = [
        (labelled(cluster=name, queue=queue), figures)
        for name, one in answered
        for queue, figures in one.queues.items()
    ]
    yield from _of_queues(queues)
    yield from _of_times(queues)
    yield from _of_nodes(answered)
    yield from _of_schedules(answered)
    yield from _of_upkeep(answered)


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> Family:
    return Family(f"yardmaster_{name}", "gauge", text, samples)


def _counter(name: str, text: str, samples: Iterable[Sample]) -> Family:
    return Family(f"yardmaster_{name}_total", "counter", text, samples)


def _by(key: str, values: Iterable[str]) -> dict[str, Labels]:
    """What follows other labels, for each of the values that a label may have."""
    return {value: "," + labelled(**{key: value}) for value in values}


# -- Queues ----------------------------------------------------------------------------------------

_ENDS = {
    event: f",{labelled(state=event.value, reason='')}"
    for event in (Event.SUCCEEDED, Event.CANCELLED, Event.SKIPPED)
}
_FAILED = "," + labelled(state=State.FAILED.value)
_STATES = _by("state", State.values)
_SUCCEEDED = "," + labelled(outcome=Outcome.SUCCEEDED.value)


def _of_queues(queues: Sequence[_Queue]) -> Iterator[Family]:
    yield _counter(
        "jobs_enqueued",
        "Jobs that were accepted.",
        (Sample(labels, queue.events[Event.ENQUEUED]) for labels, queue in queues),
    )
    yield _counter(
        "jobs_finished",
        "Jobs that ended, by state, and those that failed by why. A job that a person retries ends "
        "once more.",
        (sample for labels, queue in queues for sample in _finished(labels, queue)),
    )
    yield _counter(
        "attempts",
        "Attempts that ended, by how.",
        (sample for labels, queue in queues for sample in _attempts(labels, queue)),
    )
    yield _gauge(
        "queue_depth",
        "Jobs that have not ended, by state. Where more than 100,000 wait in a cluster, those of its "
        "deepest queues are not counted to their end.",
        (
            Sample(labels + _STATES[state], number)
            for labels, queue in queues
            for state, number in queue.depths.items()
        ),
    )
    yield _gauge(
        "queue_oldest_ready_age_seconds",
        "How long the longest waiting ready job has been due; 0 where none waits.",
        (Sample(labels, queue.oldest_ready_seconds) for labels, queue in queues if queue.depths),
    )
    yield _gauge(
        "queue_paused",
        "Whether nodes take nothing from the queue (1).",
        (
            Sample(labels, int(queue.is_paused))
            for labels, queue in queues
            if queue.is_paused is not None
        ),
    )


def _finished(labels: Labels, queue: QueueFigures) -> Iterator[Sample]:
    for event, more in _ENDS.items():
        yield Sample(labels + more, queue.events[event])
    for reason, number in queue.failed_by_reason().items():
        yield Sample(f"{labels}{_FAILED},{labelled(reason=reason)}", number)


def _attempts(labels: Labels, queue: QueueFigures) -> Iterator[Sample]:
    yield Sample(labels + _SUCCEEDED, queue.events[Event.SUCCEEDED])
    for outcome, number in {Outcome.FAILED.value: 0, **queue.ended}.items():
        yield Sample(f"{labels},{labelled(outcome=outcome)}", number)


# -- Times -----------------------------------------------------------------------------------------

_QUANTILES = {share: f",{labelled(quantile=repr(share))}" for share in QUANTILES}
# In which of the counts a bucket is: the first bound that is not below it.
_PLACES = {
    bucket: bisect_left([bound for bound, _ in BOUNDS], bucket)
    for bucket in range(SMALLEST, LARGEST + 1)
}
# Of what a bucket holds.
_MEANS = {bucket: mean({bucket: 1}) or 0.0 for bucket in range(SMALLEST, LARGEST + 1)}
_Histogram = Callable[[QueueFigures], Mapping[int, int]]


def _of_times(queues: Sequence[_Queue]) -> Iterator[Family]:
    waits = "From when a job was due until its start"
    runs = "How long an attempt took, however it ended"
    yield _histogram("wait", waits, queues, lambda queue: queue.wait)
    yield _histogram("run", runs, queues, lambda queue: queue.run)
    yield _quantiles("wait", waits, queues, lambda queue: queue.late_wait)
    yield _quantiles("run", runs, queues, lambda queue: queue.late_run)


def _histogram(what: str, text: str, queues: Sequence[_Queue], of_queue: _Histogram) -> Family:
    name = f"yardmaster_job_{what}_seconds"
    lines = _lines(name)
    samples = (
        lines % tuple(_filled_in(labels, histogram))
        for labels, queue in queues
        if (histogram := of_queue(queue))
    )
    told = f"{text}. The sum is estimated from the buckets, at most 10 % off."
    return Family(name, "histogram", told, samples)


def _lines(name: str) -> str:
    """The lines of one histogram, to be filled in: two thirds of a scrape are of this form."""
    bounds = [*(repr(bound) for _, bound in BOUNDS), "+Inf"]
    buckets = [f"{name}_bucket{{%s,{labelled(le=bound)}}} %d\n" for bound in bounds]
    return "".join([*buckets, f"{name}_count{{%s}} %d\n", f"{name}_sum{{%s}} %r\n"])


def _filled_in(labels: Labels, histogram: Mapping[int, int]) -> Iterator[Labels | float]:
    counts = cumulated(histogram)
    for count in (*counts, counts[-1]):
        yield labels
        yield count
    yield labels
    yield sum([n * _MEANS[bucket] for bucket, n in histogram.items()])


def cumulated(histogram: Mapping[int, int]) -> list[int]:
    """How many are not longer than each of the bounds, and at last how many there are."""
    counts = [0] * (len(BOUNDS) + 1)
    for bucket, count in histogram.items():
        counts[_PLACES[bucket]] += count
    return [*accumulate(counts)]


def _quantiles(what: str, text: str, queues: Sequence[_Queue], of_queue: _Histogram) -> Family:
    told = f"{text}: percentiles of the last five minutes, at most 19 % off."
    return Family(
        f"yardmaster_job_{what}_quantile_seconds",
        "summary",
        told,
        (
            Sample(labels + more, percentile(histogram, share) or 0.0)
            for labels, queue in queues
            # In order once, for all three.
            if (histogram := dict(sorted(of_queue(queue).items())))
            for share, more in _QUANTILES.items()
        ),
    )


# -- Nodes, schedules, upkeep ----------------------------------------------------------------------


def _of_nodes(clusters: Sequence[_Cluster]) -> Iterator[Family]:
    yield _gauge(
        "nodes",
        "Nodes by status; who was not heard of for the length of a lease is dead. Those that have ended "
        "are counted for a day.",
        (
            Sample(labelled(cluster=name, status=status), number)
            for name, one in clusters
            for status, number in one.nodes.items()
        ),
    )
    nodes = [
        (labelled(cluster=name, node=str(node)), node)
        for name, one in clusters
        for node in one.live_nodes
    ]
    yield _gauge(
        "node_slots",
        "How many jobs a node runs (busy), and how many more it would (free): in processes, and of io.",
        (
            Sample(labels + more, number)
            for labels, node in nodes
            for pool, load in node.loads.items()
            for more, number in (
                (_SLOTS[pool, "busy"], load.running),
                (_SLOTS[pool, "free"], max(load.places - load.running, 0)),
            )
        ),
    )
    yield _gauge(
        "node_last_heartbeat_timestamp_seconds",
        "When a node was last heard of, by the clock of its cluster's database.",
        (Sample(labels, node.heartbeat_at.timestamp()) for labels, node in nodes),
    )
    yield _gauge(
        "node_clock_skew_seconds",
        "How far the clock of a node is ahead of that of its cluster's database.",
        (
            Sample(labels, node.clock_skew_seconds)
            for labels, node in nodes
            if node.clock_skew_seconds is not None
        ),
    )
    yield _gauge(
        "oldest_running_age_seconds",
        "How long the job that has run longest has been at it; 0 where none runs.",
        (Sample(labelled(cluster=name), one.oldest_running_seconds) for name, one in clusters),
    )


_SLOTS = {
    (pool, state): "," + labelled(pool=pool, state=state)
    for pool in (PROCESS, IO)
    for state in ("busy", "free")
}


def _of_schedules(clusters: Sequence[_Cluster]) -> Iterator[Family]:
    yield _counter(
        "fires",
        "Instants of schedules: fired, or why they made no job. Those that passed while no node was "
        "there, and were not made up for, are misfire.",
        (
            Sample(labelled(cluster=name, outcome=outcome), one.fires.get(outcome, 0))
            for name, one in clusters
            for outcome in FIRES
        ),
    )
    yield _gauge(
        "schedule_next_fire_timestamp_seconds",
        "When a schedule is to run next; of each cluster the 200 soonest.",
        (
            Sample(labelled(cluster=name, schedule=schedule), at.timestamp())
            for name, one in clusters
            for schedule, at in one.schedules.items()
        ),
    )


def _of_upkeep(clusters: Sequence[_Cluster]) -> Iterator[Family]:
    duties = [
        (labelled(cluster=name, task=duty.name), duty)
        for name, one in clusters
        for duty in one.duties
    ]
    yield _gauge(
        "upkeep_last_run_timestamp_seconds",
        "When a duty of upkeep was last done, or tried.",
        (
            Sample(labels, duty.last_finished_at.timestamp())
            for labels, duty in duties
            if duty.last_finished_at is not None
        ),
    )
    yield _gauge(
        "upkeep_failing",
        "Whether a duty of upkeep failed when it was last tried (1).",
        (Sample(labels, int(duty.last_error is not None)) for labels, duty in duties),
    )
