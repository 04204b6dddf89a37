"""Dependencies: jobs that wait for others.

An edge is a row, and the child counts its open edges. Adding one locks the parent and looks at its state,
so it is either written before the parent ends, and found by the transaction that ends it, or the parent
has ended and the edge's rule applies at once. ``release`` is what that transaction does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Count, Exists, F, IntegerField, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from clusters.policy import ClusterPolicy
from jobs.errors import InvalidJob, InvalidTransition, JobError
from jobs.models import Job, JobDependency, Needs, OnParentFailure
from jobs.models.job_queryset import JobQuerySet
from jobs.models.release import release as release
from jobs.models.release import release_ended
from jobs.states import FINAL, UNSTARTED, State

logger = logging.getLogger(__name__)

MAX_PARENTS = 1000
# Names of parents that are not there, in an error.
TOLD = 20
# Blocked jobs that one round of the sweeper counts.
SWEEP = 2000
# Where the next round goes on; it saves work and decides nothing.
_swept_until: dict[str, tuple[object, UUID]] = {}


@dataclass(frozen=True, slots=True)
class Waits:
    """A job and what it waits for."""

    child_id: UUID
    parents: Sequence[UUID]
    needs: str = Needs.ALL
    on_failure: str = OnParentFailure.FAIL
    # Of parents that have one of their own.
    rules: Mapping[UUID, str] = field(default_factory=dict)
    # Names of parents that are not there. Not None: the job fails where any is not, and is not refused.
    lost: Sequence[str] | None = None


def attach(
    using: str,
    child_id: UUID,
    parents: Sequence[UUID],
    *,
    needs: str = Needs.ALL,
    on_failure: str = OnParentFailure.FAIL,
) -> State:
    """Let a new job wait for others; returns the state it is in then.

    Call it in the transaction that inserted the job, as ``blocked`` with a ``pending_dependencies``
    above 0.
    """
    try:
        return attach_many(using, [Waits(child_id, parents, needs, on_failure)])[child_id]
    except JobError as error:
        error.index = None
        raise


def attach_many(using: str, waits: Sequence[Waits]) -> dict[UUID, State]:
    """The same for many jobs of one transaction, which may wait for each other."""
    for index, wait in enumerate(waits):
        _check(wait, index)
    waits = [wait for wait in waits if wait.parents or wait.lost]
    children = [wait.child_id for wait in waits]
    if not children:
        return {}
    _check_order(waits)
    known = _lock(using, {*children, *(parent for wait in waits for parent in wait.parents)})
    lost = _lost(waits, known)
    waits = [wait for wait in waits if wait.child_id not in lost]
    if waits:
        _insert(using, waits)
    jobs: JobQuerySet = Job.objects.using(using)
    for child_id, names in lost.items():
        told = ", ".join(name[:100] for name in names[:TOLD])
        jobs.filter(pk=child_id).give_up(f"it was to wait for jobs that are not there: {told}")
    ended = {parent: known[parent] for wait in waits for parent in wait.parents}
    ended = {parent: state for parent, state in ended.items() if state in FINAL}
    release_ended(using, ended, children=children)
    states = jobs.filter(pk__any_of=children).values_list("pk", "state")
    return {pk: State(state) for pk, state in states}


def _lost(waits: Sequence[Waits], known: Mapping[UUID, str]) -> dict[UUID, list[str]]:
    """Children that wait for what is not there, and may, with the names of that."""
    lost: dict[UUID, list[str]] = {}
    for index, wait in enumerate(waits):
        missing = [str(parent) for parent in wait.parents if parent not in known]
        if missing and wait.lost is None:
            raise _refused(f"there is no job {missing[0]} to wait for", index)
        if missing or wait.lost:
            lost[wait.child_id] = [*missing, *(wait.lost or ())]
    return lost


def _check(wait: Waits, index: int) -> None:
    if wait.needs not in Needs.values:
        raise _refused(f"needs must be one of {', '.join(Needs.values)}", index, "needs")
    if wait.on_failure not in OnParentFailure.values:
        allowed = ", ".join(OnParentFailure.values)
        raise _refused(f"on_failure must be one of {allowed}", index, "on_failure")
    if len(wait.parents) > MAX_PARENTS:
        raise _refused(f"a job may wait for at most {MAX_PARENTS} others", index)


def _check_order(waits: Sequence[Waits]) -> None:
    """Refuse circles. Nobody else can see jobs of this transaction, so none goes beyond them."""
    order = TopologicalSorter({wait.child_id: wait.parents for wait in waits})
    try:
        order.prepare()
    except CycleError as error:
        circle = error.args[1]
        index = next(i for i, wait in enumerate(waits) if wait.child_id in circle)
        told = " -> ".join(str(pk) for pk in circle[:10])
        raise _refused(f"jobs would wait for each other in a circle: {told}", index) from None


def _refused(message: str, index: int, field: str = "depends_on") -> InvalidJob:
    error = InvalidJob(message, field=field)
    error.index = index
    return error


def _lock(using: str, ids: Iterable[UUID]) -> dict[UUID, str]:
    """Lock jobs in id order, so that none of them ends before the edges are written."""
    rows = Job.objects.using(using).filter(pk__any_of=list(ids)).order_by("pk")
    return dict(rows.select_for_update(no_key=True).values_list("pk", "state"))


def _insert(using: str, waits: Sequence[Waits]) -> None:
    edges = JobDependency.objects.using(using)
    children = [wait.child_id for wait in waits]
    # Calls before this one, in the same transaction, may have let others wait for these.
    awaited = set(
        edges.filter(parent_id__in=children, satisfied_at=None)
        .values_list("parent_id", flat=True)
        .distinct()
    )
    _insert_edges(
        using,
        [
            (wait.child_id, parent, wait.needs, wait.rules.get(parent, wait.on_failure))
            for wait in waits
            for parent in dict.fromkeys(wait.parents)
        ],
    )
    for index, wait in enumerate(waits):
        if wait.child_id in awaited and _waits_for_itself(using, wait.child_id):
            raise _refused("jobs would wait for each other in a circle", index)
    jobs = Job.objects.using(using)
    blocked = jobs.filter(pk__any_of=children, state__in=UNSTARTED).update(
        state=State.BLOCKED, pending_dependencies=_open_edges()
    )
    if blocked != len(children):
        raise InvalidTransition("only a job that has not started can wait for others")
    parents = {parent for wait in waits for parent in wait.parents}
    jobs.filter(pk__any_of=parents, has_dependants=False).update(has_dependants=True)


def _insert_edges(using: str, rows: Sequence[tuple[UUID, UUID, str, str]]) -> None:
    connection = connections[using]
    names = ("child_id", "parent_id", "needs", "on_failure")
    if connection.vendor != "postgresql":
        edges = (JobDependency(**dict(zip(names, row, strict=True))) for row in rows)
        JobDependency.objects.using(using).bulk_create(edges)
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO job_dependency ({', '.join(names)})"
            " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[])",
            [list(column) for column in zip(*rows, strict=True)],
        )


def _waits_for_itself(using: str, job_id: UUID) -> bool:
    """Whether one comes back to a job by going from child to parent over open edges."""
    connection = connections[using]
    key = job_id if connection.vendor == "postgresql" else job_id.hex
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH RECURSIVE above(id) AS (
                 SELECT parent_id FROM job_dependency
                  WHERE child_id = %s AND satisfied_at IS NULL
                 UNION
                 SELECT e.parent_id FROM above JOIN job_dependency e ON e.child_id = above.id
                  WHERE e.satisfied_at IS NULL)
               SELECT 1 FROM above WHERE id = %s LIMIT 1""",
            [key, key],
        )
        return cursor.fetchone() is not None


def _open_edges() -> Coalesce:
    edges = JobDependency.objects.filter(child_id=OuterRef("pk"), satisfied_at=None)
    counted = edges.order_by().values("child_id").annotate(n=Count("parent_id")).values("n")
    return Coalesce(Subquery(counted), 0, output_field=IntegerField())


def sweep(using: str, policy: ClusterPolicy) -> int:
    """Recount some blocked jobs and repair what does not fit; returns how many were repaired.

    Above 0 is a bug: the counter of a job differs from its edges, or an open edge leads to a job that
    has ended or is gone. Each call looks at the next ``SWEEP`` of them, newest first.
    """
    page = list(_next_page(using))
    if len(page) < SWEEP:
        _swept_until.pop(using, None)
    else:
        _swept_until[using] = page[-1]
    suspects = [pk for _, pk in page]
    return _recount(using, suspects) + _release_forgotten(using, suspects) if suspects else 0


def _next_page(using: str) -> Iterable[tuple[object, UUID]]:
    # Said in the words of the index `job_open`.
    blocked = Job.objects.using(using).filter(state=State.BLOCKED, finished_at=None)
    blocked = blocked.exclude(state=State.RUNNING).order_by("-created_at", "-id")
    if using in _swept_until:
        created_at, pk = _swept_until[using]
        blocked = blocked.filter(
            Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=pk),
            created_at__lte=created_at,
        )
    return blocked.values_list("created_at", "pk")[:SWEEP]


def _recount(using: str, suspects: Sequence[UUID]) -> int:
    jobs = Job.objects.using(using).filter(state=State.BLOCKED)
    # One statement sees edges and counter as one transaction left them.
    wrong = jobs.filter(waits_for=None).annotate(open_edges=_open_edges())
    wrong = wrong.exclude(pending_dependencies=F("open_edges"))
    ids = sorted(wrong.filter(pk__in=suspects).values_list("pk", flat=True))
    if not ids:
        return 0
    with transaction.atomic(using=using):
        _lock(using, ids)
        # Again under the lock, which a release takes before it lowers a counter.
        rows = wrong.filter(pk__in=ids).values_list("pk", "pending_dependencies", "open_edges")
        found = list(rows)
        for pk, pending, counted in found:
            logger.error("job %s counts %d dependencies and has %d", pk, pending, counted)
            if counted:
                jobs.filter(pk=pk).update(pending_dependencies=counted)
            else:
                jobs.filter(pk=pk).free()
    return len(found)


def _release_forgotten(using: str, suspects: Sequence[UUID]) -> int:
    """Release jobs from parents that have ended, or are gone, without anybody having told them."""
    edges = JobDependency.objects.using(using).filter(child_id__in=suspects, satisfied_at=None)
    waiting = Job.objects.using(using).filter(pk=OuterRef("parent_id"), finished_at=None)
    forgotten = edges.filter(~Exists(waiting))
    parents = set(forgotten.values_list("parent_id", flat=True)[:SWEEP])
    if not parents:
        return 0
    with transaction.atomic(using=using):
        states = _lock(using, parents)
        ended = {pk: states.get(pk, "deleted") for pk in parents}
        ended = {pk: state for pk, state in ended.items() if state in FINAL or pk not in states}
        release_ended(using, ended)
    if ended:
        logger.error("%d jobs had ended without a word to those who wait for them", len(ended))
    return len(ended)
