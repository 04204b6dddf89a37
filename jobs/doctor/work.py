"""The work in a cluster: nodes, queues, jobs that run for too long, duties nobody does, clocks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from clusters.models import ClusterSetting, Node, current_policy
from clusters.policy import ACTIVE
from jobs.doctor.findings import Check, Finding, doubtful, failed, fine, span
from jobs.engine.clock import countdown, database_now, host_now
from jobs.engine.restored import uncertain, waiting
from jobs.engine.upkeep import duties
from jobs.executors import KINDS
from jobs.models import FailureSighting, Job, JobListing, Queue, Tally, UpkeepDuty
from jobs.states import State

SKEW_WARN_SECONDS, SKEW_FAIL_SECONDS = 2.0, 30.0
# A job may be as much over its time before somebody should look.
OVERTIME_SECONDS = 60.0
LONG_RUN_SECONDS = 86400.0
# How late rescue and other upkeep may be before it is a finding.
LATE_SECONDS = 60.0
DUTY_PERIODS, DUTY_LATE_SECONDS = 10, 600.0
BACKLOG_SECONDS = 600.0
# Rows that are looked at: the first of each queue, the newest of a table.
HEAD, SAMPLE, RUNNING = 1000, 1000, 100_000


def check_nodes(alias: str) -> list[Finding]:
    nodes = [*Node.objects.using(alias).alive()]
    overdue = Node.objects.using(alias).filter(
        pk__in=[node.pk for node in nodes], lease_until__lt=Now() - timedelta(seconds=LATE_SECONDS)
    )
    if silent := [str(node) for node in overdue]:
        found = f"{', '.join(silent)}: silent for long, and no other node has noticed"
        return [failed("nodes", found, "start a node: manage.py worker", silent=silent)]
    if not nodes:
        return [doubtful("nodes", "no node is alive", "start one: manage.py worker")]
    versions = sorted({node.version for node in nodes})
    if len(versions) > 1 or versions != [settings.VERSION]:
        found = f"nodes run {', '.join(versions)}, this command {settings.VERSION}"
        return [doubtful("nodes", found, "finish the roll-out", versions=versions)]
    return [fine("nodes", f"{len(nodes)} alive, version {versions[0]}")]


def check_restored(alias: str) -> list[Finding]:
    """Whether the cluster came from a backup and waits for a person."""
    if (waits := waiting(alias)) is None:
        return [fine("restored", "the cluster does not wait for anybody")]
    count = uncertain(alias)[:RUNNING].count()
    since = span((database_now(connections[alias]) - waits.since).total_seconds())
    found = (
        f"restored from a backup, as {waits.by} said {since} ago; no job starts until somebody"
        f" confirms, and the outcome of {count} is uncertain"
    )
    advice = "look with manage.py restored show, then manage.py restored confirm"
    return [failed("restored", found, advice, since=waits.since, by=waits.by, uncertain=count)]


def check_lost_jobs(alias: str) -> list[Finding]:
    """Jobs of nodes that have ended: rescue should have taken them within seconds."""
    if waiting(alias) is not None:
        return []  # rescue waits too, and the finding above tells of them
    living = Node.objects.using(alias).alive().filter(pk=OuterRef("node_id"))
    late = Now() - timedelta(seconds=LATE_SECONDS)
    recent = Node.objects.using(alias).filter(pk=OuterRef("node_id"), closed_at__gte=late)
    lost = Job.objects.using(alias).filter(
        ~Exists(living), ~Exists(recent), state=State.RUNNING, started_at__lt=late
    )
    if count := lost[:SAMPLE].count():
        example = str(lost.values_list("pk", flat=True)[0])
        found = f"{_counted(count)} jobs are held by nodes that have ended, such as {example}"
        advice = "start a node; if there is one, its log says why it cannot rescue them"
        return [failed("lost_jobs", found, advice, example=example)]
    return [fine("lost_jobs", "none")]


def check_running(alias: str) -> list[Finding]:
    """Age only reports: a long run is never ended for being long."""
    running = Job.objects.using(alias).filter(state=State.RUNNING).order_by()
    now = database_now(connections[alias])
    rows = sorted(
        (
            ((now - (row["started_at"] or now)).total_seconds(), row)
            for row in running.values("pk", "type", "started_at", "timeout_seconds")[:RUNNING]
        ),
        key=lambda pair: -pair[0],
    )
    if not rows:
        return [fine("running", "no job runs")]
    over = [pair for pair in rows if pair[0] > pair[1]["timeout_seconds"] + OVERTIME_SECONDS]
    age, row = over[0] if over else rows[0]
    found = f"the oldest is {row['type']} {row['pk']}, for {span(age)}"
    if over:
        advice = "its node should have stopped it: look at that node's log, drain or restart it"
        found = f"{len(over)} jobs are past their timeout; {found}"
        return [doubtful("running", found, advice, job=str(row["pk"]), count=len(over))]
    if age > LONG_RUN_SECONDS:
        return [doubtful("running", found, "see whether it makes progress", job=str(row["pk"]))]
    return [fine("running", found)]


def check_queues(alias: str) -> list[Finding]:
    """Ready jobs that no live node will ever take."""
    nodes = [*Node.objects.using(alias).alive()]
    found = []
    ready = Job.objects.using(alias).filter(state=State.READY)
    waiting = Queue.objects.using(alias).filter(
        Exists(ready.filter(queue=OuterRef("name"))), is_paused=False
    )
    types = {name for node in nodes for name in node.types}
    for queue in waiting.order_by("name").values_list("name", flat=True):
        serving = [node for node in nodes if node.queues is None or queue in node.queues]
        if not serving:
            text = f"{queue}: jobs are ready and no live node serves the queue"
            advice = f"start one: manage.py worker --queues {queue}"
            found.append(failed("queues", text, advice, queue=queue))
            continue
        kinds = {kind for node in serving for kind in node.kinds}
        for kind in sorted(set(KINDS) - kinds):
            if ready.filter(queue=queue, kind=kind).exists():
                text = f"{queue}: {kind} jobs are ready and no live node there runs this kind"
                advice = (
                    "name it in YARDMASTER_WORKER_KINDS of a node (shell: --enable-shell, "
                    "files: YARDMASTER_FILE_ROOTS, procedure: YARDMASTER_PROCEDURES_CONFIG, "
                    "container: YARDMASTER_CONTAINER_ENGINE)"
                )
                found.append(failed("queues", text, advice, queue=queue, kind=kind))
        head = ready.filter(queue=queue, kind="python").order_by("priority", "run_at", "pk")
        unknown = {*head.values_list("type", flat=True)[:HEAD]} - types
        if unknown:
            names = ", ".join(sorted(unknown)[:5])
            text = f"{queue}: no live node knows the type of ready jobs: {names}"
            advice = "start a node whose YARDMASTER_HANDLERS register it, or cancel those jobs"
            found.append(doubtful("queues", text, advice, queue=queue, types=sorted(unknown)))
    return found or [fine("queues", "every ready job has a node that can take it")]


def check_mode(alias: str) -> list[Finding]:
    """Whether the cluster may start jobs, as far as that is said by people."""
    rows = ClusterSetting.objects.using(alias).filter(name="mode").exclude(value=ACTIVE)
    mode = rows.first()
    if mode is None:
        return [fine("mode", "the cluster is active")]
    text = f"the cluster is {mode.value}, as {mode.updated_by} said: no job starts"
    advice = "if that is not meant: manage.py clusters set ID mode="
    return [doubtful("mode", text, advice, mode=mode.value, since=mode.updated_at)]


def check_duties(alias: str) -> list[Finding]:
    """Whether upkeep is done, and what it says."""
    policy = current_policy()
    rows = {row.name: row for row in UpkeepDuty.objects.using(alias).all()}
    is_waiting = waiting(alias) is not None
    now = database_now(connections[alias])
    started = Node.objects.using(alias).alive().order_by("started_at").values_list("started_at")
    since = started.first()
    found = []
    for duty in duties():
        if duty.is_everywhere or since is None or (duty.waits_for_person and is_waiting):
            continue
        row = rows.get(duty.name)
        limit = max(DUTY_PERIODS * duty.period(policy), DUTY_LATE_SECONDS)
        last = (row.last_finished_at if row else None) or since[0]
        if row is not None and row.last_error:
            text = f"{duty.name} failed: {row.last_error}"
            found.append(doubtful("duties", text, "a node's log tells all", duty=duty.name))
        elif (age := (now - max(last, since[0])).total_seconds()) > limit:
            text = f"{duty.name} was not done for {span(age)}"
            advice = "a node's /readyz and its log tell why"
            found.append(failed("duties", text, advice, duty=duty.name))
    return found or [fine("duties", "all done in time" if since else "no node to do any")]


def check_backlog(alias: str) -> list[Finding]:
    """Counts and failures that were written and not yet added up."""
    now = database_now(connections[alias])
    found = []
    for model, column in ((Tally, "minute"), (FailureSighting, "seen_at")):
        rows: Any = model.objects.using(alias)
        at: datetime | None = rows.order_by("pk").values_list(column, flat=True).first()
        age = (now - at).total_seconds() if at else 0.0
        if age > BACKLOG_SECONDS:
            text = f"the oldest row of {model._meta.db_table} is {span(age)} old"
            found.append(doubtful("backlog", text, "see the duties above", age_seconds=age))
    return found or [fine("backlog", "all is added up")]


def check_clocks(alias: str) -> list[Finding]:
    """The database's clock decides; others are only shown to people."""
    sent = countdown()
    there = database_now(connections[alias])
    skew = (host_now() - there).total_seconds() - (countdown() - sent) / 2
    found = []
    if connections[alias].vendor == "postgresql" and abs(skew) > SKEW_WARN_SECONDS:
        found.append(_skewed("this host", skew))
    nodes = Node.objects.using(alias).alive().exclude(clock_skew_seconds=None)
    for node in nodes:
        if abs(node.clock_skew_seconds or 0.0) > SKEW_WARN_SECONDS:
            found.append(_skewed(f"node {node}", node.clock_skew_seconds or 0.0))
    return found or [fine("clocks", f"this host is {abs(skew):.3f} s off the database")]


def _skewed(who: str, skew: float) -> Finding:
    judge = failed if abs(skew) > SKEW_FAIL_SECONDS else doubtful
    way = "ahead of" if skew > 0 else "behind"
    found = f"the clock of {who} is {abs(skew):.1f} s {way} the database's"
    return judge("clocks", found, "set it by NTP", who=who, skew_seconds=round(skew, 3))


def check_listing(alias: str) -> list[Finding]:
    """Whether lists show what there is; triggers keep them in step."""
    newest = Job.objects.using(alias).order_by("-pk").values("pk")[:SAMPLE]
    same = JobListing.objects.using(alias).filter(
        job_id=OuterRef("pk"),
        created_at=OuterRef("created_at"),
        queue=OuterRef("queue"),
        type=OuterRef("type"),
    )
    wrong = Job.objects.using(alias).filter(~Exists(same), pk__in=[row["pk"] for row in newest])
    missing = wrong.count()
    listed = JobListing.objects.using(alias).order_by("-created_at", "-job_id")
    ids = {*listed.values_list("job_id", flat=True)[:SAMPLE]}
    stray = len(ids - {*Job.objects.using(alias).filter(pk__in=ids).values_list("pk", flat=True)})
    if missing or stray:
        found = (
            f"of the newest {SAMPLE}, {missing} jobs are listed wrongly or not, {stray} are gone"
        )
        advice = "the triggers of table job are missing or disabled: see manage.py migrate"
        return [failed("listing", found, advice, missing=missing, stray=stray)]
    return [fine("listing", "in step with the jobs")]


CHECKS: tuple[Check, ...] = (
    check_nodes,
    check_restored,
    check_mode,
    check_lost_jobs,
    check_running,
    check_queues,
    check_duties,
    check_backlog,
    check_clocks,
    check_listing,
)


def _counted(count: int) -> str:
    return f"{count}" if count < SAMPLE else f"{SAMPLE} or more"
