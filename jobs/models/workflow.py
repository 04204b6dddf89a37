"""A workflow: a graph of schedules' work. A run of it makes one job for each node, all at once, and the
edges of the graph become dependencies between those jobs."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower, Now
from uuid_utils.compat import uuid7

from jobs.models.schedule import MAX_DESCRIPTION_LENGTH, MAX_NAME_LENGTH, Schedule
from jobs.models.schedule_choices import Source
from jobs.states import Trigger


class OnNodeFailure(models.TextChoices):
    """What a node that did not succeed means for the run."""

    STOP = "stop"  # no other node starts
    CONTINUE = "continue"  # those that wait for it go on


class RunState(models.TextChoices):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkflowQuerySet(models.QuerySet["Workflow"]):
    def kept(self) -> WorkflowQuerySet:
        """Workflows that have not been deleted."""
        return self.filter(deleted_at=None)

    def search(self, text: str) -> WorkflowQuerySet:
        """Workflows with this text in their name or description, in any case."""
        return self.filter(Q(name__icontains=text) | Q(description__icontains=text))


class Workflow(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    description = models.CharField(max_length=MAX_DESCRIPTION_LENGTH, default="", blank=True)
    source = models.CharField(max_length=6, choices=Source, default=Source.PEOPLE)
    created_by = models.CharField(max_length=200)
    updated_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(null=True)
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Workflow]] = WorkflowQuerySet.as_manager()

    class Meta:
        db_table = "workflow"
        constraints = [
            models.UniqueConstraint(
                Lower("name"), name="workflow_name_unique", condition=Q(deleted_at=None)
            ),
        ]
        indexes = [models.Index(name="workflow_newest", fields=["-created_at", "-id"])]

    def __str__(self) -> str:
        return self.name


class WorkflowNode(models.Model):
    """The work of one schedule in a workflow, and the nodes it waits for."""

    pk = models.CompositePrimaryKey("workflow_id", "schedule_id")
    workflow = models.ForeignKey(
        Workflow, on_delete=models.CASCADE, db_index=False, related_name="nodes"
    )
    schedule = models.ForeignKey(
        Schedule, on_delete=models.PROTECT, db_index=False, related_name="workflow_nodes"
    )
    # Place in the definition, as it was written.
    position = models.PositiveSmallIntegerField()
    # Ids of schedules in the same workflow.
    depends_on = models.JSONField(default=list)
    on_failure = models.CharField(max_length=8, choices=OnNodeFailure, default=OnNodeFailure.STOP)

    objects: ClassVar[models.Manager[WorkflowNode]] = models.Manager()

    class Meta:
        db_table = "workflow_node"
        indexes = [models.Index(name="workflow_node_schedule", fields=["schedule", "workflow"])]

    def __str__(self) -> str:
        return f"{self.schedule_id} in {self.workflow_id}"


class WorkflowRun(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    workflow = models.ForeignKey(
        Workflow, on_delete=models.CASCADE, db_index=False, related_name="runs"
    )
    state = models.CharField(max_length=9, choices=RunState, default=RunState.RUNNING)
    # Some node failed, whatever that meant for the run.
    has_failures = models.BooleanField(default=False)
    trigger = models.CharField(max_length=8, choices=Trigger)
    # The run that this one takes up again, from its failed nodes on.
    rerun_of = models.UUIDField(null=True)
    # The schedule that made it, and the instant it is for.
    schedule_id = models.UUIDField(null=True)
    due_at = models.DateTimeField(null=True)
    # [{schedule_id, name, job_id, depends_on, on_failure, is_carried_over}], as they were when it began.
    nodes = models.JSONField(default=list)
    started_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by = models.CharField(max_length=200, null=True)

    objects: ClassVar[models.Manager[WorkflowRun]] = models.Manager()

    class Meta:
        db_table = "workflow_run"
        constraints = [
            models.CheckConstraint(
                name="workflow_run_finished_at_tells_the_end",
                condition=Q(state=RunState.RUNNING, finished_at=None)
                | (~Q(state=RunState.RUNNING) & Q(finished_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(name="workflow_run_newest", fields=["workflow", "-created_at", "-id"]),
            models.Index(
                name="workflow_run_open", fields=["workflow"], condition=Q(finished_at=None)
            ),
            models.Index(
                name="workflow_run_ended",
                fields=["finished_at"],
                condition=Q(finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workflow_id} {self.state}"
