"""What each cluster's own database knows about the cluster: its nodes, its settings, and who did what."""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from django.db import connections, models, router
from django.db.models.functions import Now
from django.utils import timezone
from uuid_utils.compat import uuid7

from clusters.binding import current_cluster
from clusters.deeds import deed, require, verb_of_rows
from clusters.errors import OutdatedSettings, Unchangeable, UnsoundSettings
from clusters.log import LogEntry  # noqa: F401  a model of this app, in a file of its own
from clusters.policy import FIELDS, ClusterPolicy, combination_problems, effective, value_problem
from clusters.registry import id_of


class NodeStatus(models.TextChoices):
    LIVE = "live"
    DRAINING = "draining"  # takes nothing new, finishes what it holds
    CLOSED = "closed"  # ended by itself
    DEAD = "dead"  # its lease ran out; for ever


ALIVE = (NodeStatus.LIVE, NodeStatus.DRAINING)


class NodeQuerySet(models.QuerySet["Node"]):
    def alive(self) -> NodeQuerySet:
        """Nodes that may hold work: neither closed nor dead."""
        return self.filter(status__in=ALIVE)

    def overdue(self) -> NodeQuerySet:
        """Nodes whose lease is over by the database's clock, though nobody has said so yet."""
        return self.alive().filter(lease_until__lt=Now())

    def knows_type(self, name: str) -> bool | None:
        """Whether some node that lives has a handler of this name; None where none could tell."""
        live = self.alive().filter(lease_until__gt=Now()).values_list("kinds", "types")
        told = [types for kinds, types in live if "python" in kinds]
        return any(name in types for types in told) if told else None

    def register(self, node_id: UUID | str, lease_seconds: float, **about: Any) -> Node:
        """A process of this host becomes a node: a row with a lease."""
        return self.create(
            id=node_id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            lease_until=Now() + timedelta(seconds=lease_seconds),
            **about,
        )

    def say_draining(self) -> int:
        """Nodes tell that they take nothing new."""
        return self.filter(status=NodeStatus.LIVE).update(status=NodeStatus.DRAINING)

    def say_live(self) -> int:
        """Nodes tell that they take work again, which nobody asks them to leave any more."""
        again = self.filter(status=NodeStatus.DRAINING, drain_requested_at=None)
        return again.update(status=NodeStatus.LIVE)

    def close(self) -> int:
        """Nodes end by themselves, holding nothing."""
        return self.alive()._end(NodeStatus.CLOSED)

    def bury(self) -> int:
        """Mark nodes dead whose lease is over; for ever, whatever they say later."""
        return self.overdue()._end(NodeStatus.DEAD)

    def _end(self, status: NodeStatus) -> int:
        return self.update(status=status, closed_at=Now(), running_jobs=0, running_io_jobs=0)

    @verb_of_rows("nodes.drain", "node")
    def order_drain(self) -> int:
        """Ask nodes to take nothing new; they learn of it with their next heartbeat."""
        return self.alive().filter(drain_requested_at=None).update(drain_requested_at=Now())

    @verb_of_rows("nodes.undrain", "node")
    def end_drain(self) -> int:
        """Let nodes take work again that were asked to drain; one that was told to stop goes on with
        that."""
        asked = self.alive().filter(drain_requested_at__isnull=False)
        return asked.update(drain_requested_at=None)


class Load(NamedTuple):
    """Jobs that run, and how many could."""

    running: int
    places: int


class Node(models.Model):
    """One start of one worker process. The id is random: a restarted host is a new node."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=40)
    status = models.CharField(max_length=10, choices=NodeStatus, default=NodeStatus.LIVE)
    queues = models.JSONField(null=True)  # null: every queue
    kinds = models.JSONField(default=list)
    types = models.JSONField(default=list)
    # Jobs at a time, in processes of their own and in the one for io; each beat tells what runs.
    concurrency = models.PositiveSmallIntegerField()
    io_concurrency = models.PositiveSmallIntegerField(default=0, db_default=0)
    running_jobs = models.PositiveIntegerField(default=0)
    running_io_jobs = models.PositiveIntegerField(default=0, db_default=0)
    cpu_percent = models.FloatField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    clock_skew_seconds = models.FloatField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField()
    drain_requested_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[Node]] = NodeQuerySet.as_manager()

    class Meta:
        db_table = "node"
        constraints = [
            models.CheckConstraint(
                name="node_status_known", condition=models.Q(status__in=NodeStatus.values)
            ),
            models.CheckConstraint(
                name="node_closed_at_tells_the_end",
                condition=models.Q(status__in=ALIVE, closed_at=None)
                | (~models.Q(status__in=ALIVE) & models.Q(closed_at__isnull=False)),
            ),
        ]
        indexes = [
            # rescue: nodes whose lease is over
            models.Index(
                name="node_lease", fields=["lease_until"], condition=models.Q(status__in=ALIVE)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"

    @property
    def places(self) -> int:
        """How many jobs of all kinds it runs at a time."""
        return self.concurrency + self.io_concurrency

    @property
    def loads(self) -> dict[str, Load]:
        """By the pool that a job's kind runs in."""
        in_processes = max(self.running_jobs - self.running_io_jobs, 0)
        return {
            "process": Load(in_processes, self.concurrency),
            "io": Load(self.running_io_jobs, self.io_concurrency),
        }


# No setting of the policy: the cluster was restored from a backup, and no job starts until a person
# confirms. Claims look for it in their own statements, see ``jobs.engine.claim``.
RESTORED = "restored"


class ClusterSettingQuerySet(models.QuerySet["ClusterSetting"]):
    def restored(self) -> ClusterSettingQuerySet:
        """The mark of a restored cluster, while it waits for a person."""
        return self.filter(name=RESTORED)

    def mark_restored(self, *, by: str) -> bool:
        """Let no job start until a person confirms; False where that is so already."""
        with deed("restored.mark", "cluster", id_of(self.db), using=self.db) as trace:
            _, is_new = self.get_or_create(
                name=RESTORED, defaults={"value": True, "updated_by": by}
            )
            trace.is_done = is_new
            if is_new:
                # Compared with heartbeats, which go by the database's clock.
                self.restored().update(updated_at=Now())
        return is_new

    def persisted(self) -> dict[str, Any]:
        """What was written for this cluster, of the settings that this version knows."""
        rows = self.filter(name__in=FIELDS).values_list("name", "value")
        return dict(rows)

    def persist(self, values: Mapping[str, Any], *, by: str) -> None:
        """Write the given settings and leave all others as they are.

        Refused as a whole where they do not fit those that are persisted already.
        """
        known = self.persisted()
        # Most processes start with what is there; they need no lock for it.
        if any(name not in known or known[name] != value for name, value in values.items()):
            self._write(values, by=by, reason="set by a process's own configuration")
        elif problems := combination_problems(effective(known)):
            raise UnsoundSettings(problems)

    def change(
        self,
        values: Mapping[str, Any],
        *,
        by: str,
        reason: str = "",
        versions: Collection[int] | None = None,
    ) -> dict[str, tuple[Any, Any]]:
        """Write settings that somebody asked for; None takes one back to its default.

        Returns those that are others now, each as it was and as it is. With ``versions`` only if the
        settings are still one of these.
        """
        require("settings.change", self.db)
        problems = {
            name: problem
            for name, value in values.items()
            if (problem := value_problem(name, value if value is not None else _default(name)))
        }
        problems = problems or _archive_problems(id_of(self.db), values.get("archive_to"))
        if problems:
            raise UnsoundSettings(problems)
        return self._write(values, by=by, reason=reason, versions=versions)

    def _write(
        self,
        values: Mapping[str, Any],
        *,
        by: str,
        reason: str,
        versions: Collection[int] | None = None,
    ) -> dict[str, tuple[Any, Any]]:
        with deed(
            "settings.change", "cluster", id_of(self.db), using=self.db, reason=reason
        ) as trace:
            self._alone()
            before = self.persisted()
            if versions is not None and settings_version(before) not in versions:
                raise OutdatedSettings
            after = {
                name: value for name, value in {**before, **values}.items() if value is not None
            }
            if problems := combination_problems(effective(after)):
                raise UnsoundSettings(problems)
            changed = {
                name: (before.get(name), value)
                for name, value in values.items()
                if before.get(name) != value
            }
            trace.is_done = bool(changed)
            trace.before = {name: was for name, (was, _) in changed.items()}
            trace.after = {name: value for name, (_, value) in changed.items()}
            for name, (_, value) in changed.items():
                if value is None:
                    self.filter(name=name).delete()
                else:
                    told = {"value": value, "updated_by": by[:200]}
                    self.update_or_create(name=name, defaults=told)
            SettingChange.objects.using(self.db).bulk_create(
                SettingChange(name=name, before=was, after=value, by=by[:200], reason=reason[:500])
                for name, (was, value) in changed.items()
            )
        return changed

    def _alone(self) -> None:
        """Keep other writers out until the end of the transaction: settings must fit together."""
        connection = connections[self.db]
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_SETTINGS_LOCK])


# Of this database; any number that nobody else uses.
_SETTINGS_LOCK = 0x59_41_52_44_53


def _archive_problems(cluster_id: str, target: str | None) -> dict[str, str]:
    """Why jobs cannot be moved there when their time is over; whoever acts must rule there too."""
    # By then: it looks into the settings of other clusters.
    from clusters.archives import problem_of_asking

    problem = problem_of_asking(cluster_id, target) if target else None
    return {"archive_to": f"{target!r} {problem}"} if problem else {}


def _default(name: str) -> Any:
    return FIELDS[name].default if name in FIELDS else None


def settings_version(persisted: Mapping[str, Any]) -> int:
    """Which settings these are: the same number for the same ones."""
    text = json.dumps(dict(sorted(persisted.items())), separators=(",", ":"))
    return zlib.crc32(text.encode()) % 1_000_000_000


class ClusterSetting(models.Model):
    name = models.CharField(max_length=60, primary_key=True)
    value = models.JSONField()
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.CharField(max_length=200)

    objects: ClassVar[models.Manager[ClusterSetting]] = ClusterSettingQuerySet.as_manager()

    class Meta:
        db_table = "cluster_setting"

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"


class SettingChange(models.Model):
    """One setting was written: what it was, what it is, whose doing; never changed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(db_default=Now())
    name = models.CharField(max_length=60)
    # Null: nothing is persisted, and the default holds.
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    by = models.CharField(max_length=200)
    reason = models.CharField(max_length=500, default="")

    class Meta:
        db_table = "setting_change"

    def __str__(self) -> str:
        return f"{self.name}: {self.before} to {self.after}"


class TraceQuerySet(models.QuerySet[Any]):
    def about(self, target_type: str, target_id: str) -> TraceQuerySet:
        """What was done to one thing, the latest first; what was refused is not done."""
        rows = self.filter(target_type=target_type, target_id=target_id).exclude(verb=REFUSED)
        return rows.order_by("-at", "-id")

    def matching(self, asked: Mapping[str, Any]) -> TraceQuerySet:
        """Those that search words choose: names of columns, and the two ends of a time."""
        rows = self.filter(**{name: asked[name] for name in TRACE_WORDS if name in asked})
        if "reason" in asked:
            rows = rows.filter(reason__icontains=asked["reason"])
        if "since" in asked:
            rows = rows.filter(at__gte=asked["since"])
        if "until" in asked:
            rows = rows.filter(at__lt=asked["until"])
        return rows

    def update(self, **_: Any) -> int:
        raise Unchangeable

    def delete(self) -> tuple[int, dict[str, int]]:
        raise Unchangeable


# What the audit calls a deed that was refused; ``after`` says which. See ``clusters.refusals``.
REFUSED = "deeds.refuse"
# What a search in the audit may name, beside a time.
TRACE_WORDS = (
    *("actor", "credential", "surface", "address", "request_id"),
    *("verb", "target_type", "target_id"),
)


class Trace(models.Model):
    """One deed: who did what to which thing, and why.

    Written in the transaction of the deed, so neither is there without the other; never changed, which
    triggers of the database see to.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=200)
    # How he showed who he is, and where he asked: native, admin, command, or a dialect.
    credential = models.CharField(max_length=40, default="", db_default="")
    surface = models.CharField(max_length=20, default="", db_default="")
    # Where the request came from, as the server saw it.
    address = models.CharField(max_length=45, default="")
    # A verb of ``authn.permissions``, or ``REFUSED``.
    verb = models.CharField(max_length=60)
    target_type = models.CharField(max_length=40)
    target_id = models.CharField(max_length=200)
    # Of many things which were meant, and how many were changed.
    filter = models.JSONField(null=True)
    count = models.PositiveIntegerField(null=True)
    reason = models.CharField(max_length=500, default="")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    request_id = models.CharField(max_length=128, default="")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.actor}: {self.verb} {self.target_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise Unchangeable
        using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        if connections[using].vendor == "sqlite" and not isinstance(self.at, datetime):
            # SQLite's own clock, which is this host's, writes fewer digits than a time that is
            # compared with it has; and texts are what it compares.
            self.at = timezone.now()
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise Unchangeable

    @property
    def what(self) -> str:
        """The verb, and of a deed that was refused which one that was."""
        wanted = self.after.get("verb") if isinstance(self.after, dict) else None
        return f"{self.verb} ({wanted})" if self.verb == REFUSED and wanted else self.verb


class AuditEntry(Trace):
    """What was done to this cluster."""

    objects: ClassVar[models.Manager[AuditEntry]] = TraceQuerySet.as_manager()

    class Meta:
        db_table = "audit"
        indexes = [
            # what was done of late; what was done to one thing
            models.Index(name="audit_newest", fields=["-at", "-id"]),
            models.Index(name="audit_target", fields=["target_type", "target_id", "-at", "-id"]),
            # what somebody did; where something was done
            models.Index(name="audit_actor", fields=["actor", "-at", "-id"]),
            models.Index(name="audit_verb", fields=["verb", "-at", "-id"]),
        ]


class _Known(NamedTuple):
    read_at: float
    policy: ClusterPolicy
    is_restored: bool


# How long a process may go on with settings that somebody has changed meanwhile, in seconds.
POLICY_MAX_AGE = 5.0
_known: dict[str, _Known] = {}


def current_policy() -> ClusterPolicy:
    """The effective settings of the bound cluster, at most ``POLICY_MAX_AGE`` old."""
    return _current().policy


def awaits_confirmation() -> bool:
    """Whether the bound cluster was restored and waits for a person; as old as the settings."""
    return _current().is_restored


def _current() -> _Known:
    cluster = current_cluster()
    known = _known.get(cluster.id)
    if known is None or time.monotonic() - known.read_at > POLICY_MAX_AGE:
        persisted = dict(ClusterSetting.objects.values_list("name", "value"))
        policy = effective(persisted, cluster.explicit_settings)
        known = _known[cluster.id] = _Known(time.monotonic(), policy, RESTORED in persisted)
    return known


def forget_policies() -> None:
    """Read the settings anew at the next question."""
    _known.clear()
