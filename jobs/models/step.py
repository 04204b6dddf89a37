"""Steps: jobs that are parts of another job, and how far that other one is.

A job of kind ``steps``, or ``group`` for a composite step, has a row in ``steps_run``, made with it. It
counts its open steps there; the transaction that ends a step lowers the count under the row's lock and
wakes the parent where that is due. ``jobs.engine.conductor`` takes woken parents on.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from jobs.step_words import MAX_STEP_NAME_LENGTH, MAX_STEPS_NAME_LENGTH, MAX_VAR_LENGTH

MAX_KEY_LENGTH = 16


class StepQuerySet(models.QuerySet["Step"]):
    def of_root(self, job_id: UUID) -> StepQuerySet:
        """All steps of a job, those of its groups too and those of its sub-jobs not."""
        return self.filter(root_id=job_id).order_by("position", "job_id")


class Step(models.Model):
    """What makes a job a step. Its work, state and result are the job's."""

    # No database constraints: jobs are deleted in batches, with what is theirs.
    job = models.OneToOneField(
        "jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False, primary_key=True
    )
    # The job of kind `steps` or `group` that it is directly below.
    parent = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="steps",
    )
    # The job of kind `steps` whose inputs, secrets and results it sees.
    root = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="all_steps",
    )
    # Which step of the parent it is: its place in the list, `f` before it for one that runs finally.
    key = models.CharField(max_length=MAX_KEY_LENGTH)
    name = models.CharField(max_length=MAX_STEP_NAME_LENGTH)
    # The place, from 1 on, of the outermost step that it belongs to; and in its own parent, from 0 on.
    position = models.PositiveIntegerField()
    index = models.PositiveIntegerField()
    # Its result is `tasks.<var>` for those that come later.
    var = models.CharField(max_length=MAX_VAR_LENGTH, null=True)
    # A failure of it is none of its parent.
    is_tolerated = models.BooleanField(default=False)
    # What the definition says of it beside its work; for an item of `each` also which one it is.
    definition = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Step]] = StepQuerySet.as_manager()

    class Meta:
        db_table = "step"
        constraints = [
            # A second try of the parent must not make its steps twice.
            models.UniqueConstraint(name="step_unique_in_parent", fields=["parent", "key"]),
        ]
        indexes = [
            models.Index(name="step_in_order", fields=["root", "position", "job"]),
            models.Index(
                name="step_result", fields=["root", "job"], condition=Q(var__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.parent_id}"


class StepsRun(models.Model):
    """How far a job made of steps is."""

    job = models.OneToOneField(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="steps_run",
    )
    # As the definition says; people search for them.
    name = models.CharField(max_length=MAX_STEPS_NAME_LENGTH, default="", db_default="")
    description = models.TextField(default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())
    # Steps that have been made and have not ended.
    open_steps = models.PositiveIntegerField(default=0, db_default=0)
    # Steps that ended otherwise than well since the parent last looked.
    failed_steps = models.PositiveIntegerField(default=0, db_default=0)
    # With so few open steps, or as soon as one fails, the parent is woken.
    wake_at = models.PositiveIntegerField(default=0, db_default=0)
    # Not before then; null: asleep.
    woken_at = models.DateTimeField(null=True)
    # Not finished by then, it is stopped.
    stop_by = models.DateTimeField(null=True)
    # See jobs.engine.step_plan. The list of ``each`` may be long; it is written once.
    state = models.JSONField(default=dict)
    items = models.JSONField(null=True)
    # Whether its webhooks are to be told; null: it has none, false: they have been told of all.
    is_watched = models.BooleanField(null=True)

    objects: ClassVar[models.Manager[StepsRun]] = models.Manager()

    class Meta:
        db_table = "steps_run"
        indexes = [
            models.Index(
                name="steps_run_woken", fields=["woken_at"], condition=Q(woken_at__isnull=False)
            ),
            models.Index(
                name="steps_run_stop_by", fields=["stop_by"], condition=Q(stop_by__isnull=False)
            ),
            models.Index(name="steps_run_watched", fields=["-job"], condition=Q(is_watched=True)),
            models.Index(name="steps_run_newest", fields=["-created_at", "-job"]),
        ]

    def __str__(self) -> str:
        return self.name or str(self.job_id)
