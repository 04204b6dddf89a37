"""Which jobs a list or a count is about. Each filter has its own line; none reaches the ORM by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db import connections
from rest_framework import serializers

from clusters.api.fields import Choice, Text, Texts, Time
from clusters.api.paging import PageQuery
from jobs.executors import KINDS
from jobs.models import Job
from jobs.models.job import JobQuerySet
from jobs.states import State

# Counting stops here; beyond it the answer would cost more than it tells.
COUNT_LIMIT = 100_000


class JobFilter(serializers.Serializer[Any]):
    state = Texts(
        child=Choice(choices=State.values),
        required=False,
        max_length=len(State.values),
        help_text="One state or, repeated, several.",
    )
    queue = Text(max_length=100, required=False)
    type = Text(max_length=200, required=False)
    kind = Choice(choices=sorted(KINDS), required=False)
    tag = Text(max_length=60, required=False, help_text="Jobs that carry this tag.")
    created_after = Time(required=False, help_text="This moment or later.")
    created_before = Time(required=False, help_text="Earlier than this moment.")
    finished_after = Time(required=False, help_text="This moment or later.")
    finished_before = Time(required=False, help_text="Earlier than this moment.")


class JobListQuery(PageQuery, JobFilter):
    count = Choice(
        choices=("exact", "estimate"),
        required=False,
        help_text=(
            f"Add `count` and `is_exact`: counted, up to {COUNT_LIMIT}, or as the planner guesses."
        ),
    )


def filtered(jobs: JobQuerySet, asked: Mapping[str, Any]) -> JobQuerySet:
    """The jobs that meet all conditions."""
    if states := asked.get("state"):
        # One state is a range of an index; `IN` is not, for the order a list needs.
        jobs = (
            jobs.filter(state=states[0]) if len(set(states)) == 1 else jobs.filter(state__in=states)
        )
    if "queue" in asked:
        jobs = jobs.filter(queue=asked["queue"])
    if "type" in asked:
        jobs = jobs.filter(type=asked["type"])
    if "kind" in asked:
        jobs = jobs.filter(kind=asked["kind"])
    if "tag" in asked:
        jobs = jobs.tagged(asked["tag"])
    if "created_after" in asked:
        jobs = jobs.filter(created_at__gte=asked["created_after"])
    if "created_before" in asked:
        jobs = jobs.filter(created_at__lt=asked["created_before"])
    if "finished_after" in asked:
        jobs = jobs.filter(finished_at__gte=asked["finished_after"])
    if "finished_before" in asked:
        jobs = jobs.filter(finished_at__lt=asked["finished_before"])
    return jobs


def exact_count(jobs: JobQuerySet) -> dict[str, Any]:
    """How many there are, counted up to the limit."""
    count = jobs.order_by().values("pk")[: COUNT_LIMIT + 1].count()
    return {"count": min(count, COUNT_LIMIT), "is_exact": count <= COUNT_LIMIT}


def estimated_count(jobs: JobQuerySet) -> dict[str, Any]:
    """How many rows the planner expects; SQLite's does not say, there it is counted."""
    using = Job.objects.all().db
    if connections[using].vendor != "postgresql":
        return exact_count(jobs)
    plan = json.loads(jobs.order_by().values("pk").explain(format="json"))
    return {"count": int(plan[0]["Plan"]["Plan Rows"]), "is_exact": False}
