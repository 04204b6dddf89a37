"""Which job waits for which."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class OnParentFailure(models.TextChoices):
    """What a parent that did not succeed means for the job that waits for it."""

    FAIL = "fail"  # it fails too
    SKIP = "skip"  # it is skipped
    RUN = "run"  # it runs anyway


class Needs(models.TextChoices):
    """How many of its parents a job needs."""

    ALL = "all"
    ANY = "any"


class JobDependency(models.Model):
    """An edge from a parent to the job that waits for it; written with the job and never changed
    but by the transaction in which the parent ends."""

    pk = models.CompositePrimaryKey("child_id", "parent_id")
    # No database constraints: retention deletes parents that nobody waits for any more.
    child = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="dependencies",
    )
    parent = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="dependants",
    )
    needs = models.CharField(max_length=3, choices=Needs, default=Needs.ALL)
    on_failure = models.CharField(
        max_length=4, choices=OnParentFailure, default=OnParentFailure.FAIL
    )
    satisfied_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[JobDependency]] = models.Manager()

    class Meta:
        db_table = "job_dependency"
        indexes = [
            # release: who waits for a job that has just ended
            models.Index(name="job_dependency_parent", fields=["parent", "child"]),
        ]

    def __str__(self) -> str:
        return f"{self.child_id} waits for {self.parent_id}"
