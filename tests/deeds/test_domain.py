"""The domain asks the table itself: what no view, command or page stands before is refused as well."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import DatabaseError, connections, transaction

from authn.keys import create_key
from authn.models import AccessAuditEntry, ApiKey, Role
from authn.permissions import LEAST_ROLE, is_allowed
from authn.principal import Principal
from clusters.acting import Acting, acting_as, who_acts
from clusters.deeds import MAX_IDS, deed, told_by_caller, traced
from clusters.errors import NotAllowed, Unchangeable
from clusters.models import AuditEntry, ClusterSetting, Node, current_policy, forget_policies
from jobs.engine import (
    alert_rules,
    bulk,
    calendars,
    fires,
    missed,
    purge,
    restored,
    schedule_runs,
    schedules,
    workflows,
)
from jobs.engine.edit import Changes, edit
from jobs.engine.enqueue import enqueue, enqueue_many
from jobs.engine.new_job import NewJob
from jobs.engine.prune import Pruner
from jobs.engine.requeue import requeue
from jobs.engine.workflow_rows import NewNode
from jobs.models import BulkOperation, Failure, Job, Queue, Schedule, Secret
from tests.deeds import world
from tests.factories import make_job

pytestmark = pytest.mark.usefixtures("alpha")
USING = "cluster-alpha"


def as_a(role: str, cluster_id: str = "alpha") -> Acting:
    principal = Principal("x", "key:x", {cluster_id: role})
    return Acting("key:x", may=lambda verb, on: is_allowed(principal, verb, on), surface="test")


def jobs(things: dict[str, str], *names: str) -> Any:
    return Job.objects.filter(pk__in=[things[name] for name in names])


def job(things: dict[str, str], name: str) -> Job:
    return Job.objects.get(pk=things[name])


def queue(name: str) -> Any:
    return Queue.objects.filter(name=name)


def _confirm(things: dict[str, str]) -> Any:
    Node.objects.all().alive().close()
    return restored.confirm(USING, current_policy(), None, by="x")


T = dict[str, str]
# Every entry point by which somebody changes something of a cluster, and the verb that it asks for.
ENTRY_POINTS: dict[str, tuple[str, Callable[[T], Any]]] = {
    "enqueue": ("jobs.enqueue", lambda t: enqueue(NewJob(type="a"), by="x")),
    "enqueue_many": ("jobs.enqueue", lambda t: enqueue_many([NewJob(type="a")] * 30, by="x")),
    "jobs.cancel": ("jobs.cancel", lambda t: jobs(t, "ready", "scheduled").cancel()),
    "jobs.skip": ("jobs.cancel", lambda t: jobs(t, "ready").skip()),
    "job.cancel": ("jobs.cancel", lambda t: job(t, "ready").cancel()),
    "jobs.retry": ("jobs.retry", lambda t: jobs(t, "failed").retry()),
    "job.retry": ("jobs.retry", lambda t: job(t, "failed").retry()),
    "jobs.restart": ("jobs.retry", lambda t: jobs(t, "failed", "scheduled").restart()),
    "jobs.close": ("jobs.close", lambda t: Job.objects.filter(pk=t["held"]).close()),
    "jobs.run_now": ("jobs.run_now", lambda t: jobs(t, "scheduled").run_now()),
    "jobs.move": ("jobs.change", lambda t: jobs(t, "ready").move("mail")),
    "jobs.set_priority": ("jobs.change", lambda t: jobs(t, "ready").set_priority(5)),
    "edit": ("jobs.change", lambda t: edit(job(t, "ready"), Changes(priority=3))),
    "jobs.delete_final": ("jobs.delete", lambda t: jobs(t, "succeeded").delete_final()),
    "jobs.discard": ("jobs.delete", lambda t: jobs(t, "succeeded", "ready").discard()),
    "requeue": ("jobs.requeue", lambda t: requeue(job(t, "succeeded"), by="x")),
    "schedule_runs.retry": (
        "jobs.retry",
        lambda t: schedule_runs.retry(job(t, "run_failed"), by="x"),
    ),
    "schedule_runs.clear": ("jobs.delete", lambda t: schedule_runs.clear(world.LONG_AGO / 2)),
    "bulk.request": (
        "bulk_operations.request",
        lambda t: bulk.request("cancel", {"queue": "mail"}, reason="r", by="x"),
    ),
    "bulk.cancel": ("bulk_operations.stop", lambda t: bulk.cancel(UUID(t["operation"]), by="x")),
    "purge": ("queues.purge", lambda t: purge.purge("mail", by="x", reason="r")),
    "queues.create": ("queues.create", lambda t: Queue.objects.all().create_queue("new")),
    "queues.change": ("queues.change", lambda t: queue("mail").change(max_concurrency=2)),
    "queues.limit_workers": ("queues.change", lambda t: queue("mail").limit_workers(0, by="x")),
    "queues.pause": ("queues.pause", lambda t: queue("mail").pause(by="x", reason="r")),
    "queues.resume": ("queues.resume", lambda t: queue("slow").resume()),
    "queues.end_pauses": ("queues.resume", lambda t: queue("slow").end_pauses()),
    "queues.set_paused": (
        "queues.pause",
        lambda t: queue("mail").set_paused(True, by="x", reason="r"),
    ),
    "queues.delete_unused": ("queues.delete", lambda t: queue("mail").delete_unused()),
    "queues.delete_with_waiting": (
        "queues.delete",
        lambda t: queue("mail").delete_with_waiting(10),
    ),
    "schedules.create": (
        "schedules.create",
        lambda t: schedules.create({"name": "new", **world.NIGHTLY}, by="x"),
    ),
    "schedules.change": (
        "schedules.change",
        lambda t: schedules.change(UUID(t["nightly"]), {"priority": 4}, by="x"),
    ),
    "schedules.reschedule": (
        "schedules.reschedule",
        lambda t: schedules.reschedule(
            UUID(t["nightly"]), {"timing": "interval", "interval_seconds": 60.0}, by="x"
        ),
    ),
    "schedules.add_exclusions": (
        "schedules.change",
        lambda t: schedules.add_exclusions(UUID(t["nightly"]), {"dates": ["2034-01-01"]}, by="x"),
    ),
    "schedules.set_exclusions": (
        "schedules.change",
        lambda t: schedules.set_exclusions(UUID(t["other"]), {}, by="x"),
    ),
    "schedules.set_dependencies": (
        "schedules.change",
        lambda t: schedules.set_dependencies(UUID(t["other"]), [], needs="all", by="x"),
    ),
    "schedules.pause": ("schedules.pause", lambda t: schedules.pause(UUID(t["nightly"]), by="x")),
    "schedules.resume": ("schedules.resume", lambda t: schedules.resume(UUID(t["paused"]), by="x")),
    "schedules.pause of rows": (
        "schedules.pause",
        lambda t: Schedule.objects.filter(pk=t["nightly"]).pause(by="x"),
    ),
    "schedules.pause_all": ("schedules.pause_all", lambda t: schedules.pause_all(by="x")),
    "schedules.resume_all": ("schedules.resume_all", lambda t: schedules.resume_all(by="x")),
    "schedules.delete": ("schedules.delete", lambda t: schedules.delete(UUID(t["nightly"]), by="x")),
    "schedules.restore": (
        "schedules.restore",
        lambda t: schedules.restore(UUID(t["deleted"]), by="x"),
    ),
    "schedules.delete_for_good": (
        "schedules.delete_for_good",
        lambda t: schedules.delete_for_good(UUID(t["nightly"]), by="x"),
    ),
    "missed.skip_next": (
        "schedules.skip_next",
        lambda t: missed.skip_next(UUID(t["nightly"]), by="x"),
    ),
    "missed.run_missed": (
        "schedules.run_missed",
        lambda t: missed.run_missed(UUID(t["nightly"]), UUID(t["gap"]), "latest", by="x"),
    ),
    "fires.trigger": ("schedules.trigger", lambda t: fires.trigger(UUID(t["nightly"]), by="x")),
    "alerts.create": (
        "alerts.create",
        lambda t: alert_rules.create({"name": "n", "kind": "dead_nodes"}, by="x"),
    ),
    "alerts.change": (
        "alerts.change",
        lambda t: alert_rules.change(t["alert"], {"limit_seconds": 9}, by="x"),
    ),
    "alerts.delete": ("alerts.delete", lambda t: alert_rules.delete(t["alert"])),
    "alerts.acknowledge": (
        "alerts.acknowledge",
        lambda t: alert_rules.acknowledge(t["alert"], by="x"),
    ),
    "alerts.mute": ("alerts.mute", lambda t: alert_rules.mute(t["alert"], by="x", seconds=9)),
    "alerts.test": ("alerts.test", lambda t: alert_rules.test(t["alert"], by="x")),
    "failures.change": (
        "failures.change",
        lambda t: Failure.objects.all().annotate_group(t["failure"], by="x", mark="muted"),
    ),
    "calendars.create": ("calendars.create", lambda t: calendars.create("new", [], by="x")),
    "calendars.change": (
        "calendars.change",
        lambda t: calendars.change("holidays", by="x", dates=["2035-01-01"]),
    ),
    "calendars.delete": ("calendars.delete", lambda t: calendars.delete("holidays")),
    "workflows.create": (
        "workflows.create",
        lambda t: workflows.create("new", [NewNode(UUID(t["nightly"]))], by="x"),
    ),
    "workflows.change": (
        "workflows.change",
        lambda t: workflows.change(UUID(t["flow"]), by="x", description="y"),
    ),
    "workflows.delete": (
        "workflows.delete",
        lambda t: workflows.delete(UUID(t["loose"]), by="x"),
    ),
    "workflows.start_run": (
        "workflows.trigger",
        lambda t: workflows.start_run(UUID(t["flow"]), by="x"),
    ),
    "workflows.rerun": ("workflows.trigger", lambda t: workflows.rerun(UUID(t["ended"]), by="x")),
    "workflows.cancel_run": (
        "workflows.cancel",
        lambda t: workflows.cancel_run(UUID(t["going"]), by="x"),
    ),
    "workflows.skip_node": (
        "workflows.trigger",
        lambda t: workflows.skip_node(UUID(t["going"]), UUID(t["sent"])),
    ),
    "nodes.order_drain": ("nodes.drain", lambda t: Node.objects.filter(pk=t["node"]).order_drain()),
    "nodes.end_drain": (
        "nodes.undrain",
        lambda t: Node.objects.filter(pk=t["drained"]).end_drain(),
    ),
    "settings.persist": (
        "settings.change",
        lambda t: ClusterSetting.objects.all().persist({"max_crashes": 9}, by="x"),
    ),
    "secrets.create": (
        "secrets.write",
        lambda t: Secret.objects.all().create_secret("new", "a long value", by="x"),
    ),
    "secrets.change": (
        "secrets.write",
        lambda t: Secret.objects.all().change("token", value="another one", by="x"),
    ),
    "secrets.delete": ("secrets.write", lambda t: Secret.objects.all().delete_secret("token")),
    "restored.mark": (
        "restored.mark",
        lambda t: ClusterSetting.objects.all().mark_restored(by="x"),
    ),
}  # fmt: skip
NOT_TOLD = {"enqueue", "enqueue_many"}


@pytest.fixture
def things() -> Iterator[dict[str, str]]:
    yield world.build()
    forget_policies()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_who_may_does_it_and_is_told_of_once(name: str, things: dict[str, str]) -> None:
    verb, act = ENTRY_POINTS[name]
    with acting_as(as_a(str(LEAST_ROLE[verb]))):
        act(things)
    entries = [*AuditEntry.objects.all()]
    assert [entry.verb for entry in entries] == ([] if name in NOT_TOLD else [verb])
    for entry in entries:
        assert (entry.actor, entry.surface) == ("key:x", "test")
        assert entry.target_id or entry.filter or entry.count is not None


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_viewer_is_refused_and_nothing_is_changed(name: str, things: dict[str, str]) -> None:
    _, act = ENTRY_POINTS[name]
    before = world.rows_of_jobs()
    with acting_as(as_a(Role.VIEWER)), pytest.raises(NotAllowed):
        act(things)
    assert world.rows_of_jobs() == before
    assert not AuditEntry.objects.exists()
    # Neither is somebody with all rights on another cluster.
    with acting_as(as_a(Role.ADMIN, "beta")), pytest.raises(NotAllowed):
        act(things)
    assert world.rows_of_jobs() == before


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_program_itself_is_asked_nothing_and_told_nothing_of(
    name: str, things: dict[str, str]
) -> None:
    ENTRY_POINTS[name][1](things)
    assert not AuditEntry.objects.exists()


def test_each_verb_that_changes_a_cluster_has_an_entry_point() -> None:
    elsewhere = {
        # Of the control database; of what is put together from other verbs, or only read.
        *(
            verb
            for verb in LEAST_ROLE
            if verb.split(".")[0] in ("keys", "roles", "users", "groups", "views")
        ),
        *(verb for verb in LEAST_ROLE if verb.endswith(".read")),
        *(verb for verb in LEAST_ROLE if verb.startswith("bulk_operations.")),
        *("schedules.import", "schedules.export", "restored.confirm"),
    }
    asked = {verb for verb, _ in ENTRY_POINTS.values()}
    assert asked | elsewhere == LEAST_ROLE.keys()


def test_each_verb_in_the_source_is_in_the_table() -> None:
    found: set[str] = set()
    said = re.compile(
        r"(?:deed|held|_held|require|verb_of_rows|_of_all)\(\s*\"([a-z_]+\.[a-z_]+)\""
    )
    for app in ("clusters", "authn", "jobs", "ui"):
        for path in Path(settings.BASE_DIR, app).rglob("*.py"):
            found |= {*said.findall(path.read_text())}
    assert len(found) > 35
    assert found <= LEAST_ROLE.keys()


def test_whoever_may_request_a_bulk_operation_may_not_have_it_delete(
    things: dict[str, str],
) -> None:
    with acting_as(as_a(Role.OPERATOR)), pytest.raises(NotAllowed):
        bulk.request("delete", {"queue": "mail"}, reason="r", by="x")
    assert BulkOperation.objects.count() == 1


def test_confirming_a_restore_is_told_with_the_decision(things: dict[str, str]) -> None:
    ClusterSetting.objects.all().mark_restored(by="x")
    with acting_as(as_a(Role.OPERATOR)), pytest.raises(NotAllowed):
        restored.confirm(USING, current_policy(), None, by="x")
    with acting_as(as_a(Role.ADMIN)):
        _confirm(things)
    assert AuditEntry.objects.get().verb == "restored.confirm"


def test_pruning_by_hand_needs_the_role_to_delete(things: dict[str, str]) -> None:
    told: list[Any] = []
    with acting_as(as_a(Role.OPERATOR)), pytest.raises(NotAllowed):
        Pruner().sweep(USING, current_policy(), 1.0, lambda *what: told.append(what))
    assert not told and Job.objects.filter(pk=things["succeeded"]).exists()


# -- How it works ----------------------------------------------------------------------------------


def test_a_deed_that_fails_leaves_neither_change_nor_trace(things: dict[str, str]) -> None:
    with acting_as(as_a(Role.ADMIN)), pytest.raises(RuntimeError), transaction.atomic(using=USING):
        queue("mail").change(max_concurrency=5)
        raise RuntimeError
    assert queue("mail").get().max_concurrency is None
    assert not AuditEntry.objects.exists()


def test_nothing_is_told_where_nothing_was_changed(things: dict[str, str]) -> None:
    with acting_as(as_a(Role.ADMIN)):
        assert not jobs(things, "succeeded").cancel()
        assert not queue("mail").resume()
        ClusterSetting.objects.all().persist({}, by="x")
    assert not AuditEntry.objects.exists()


def test_a_surface_tells_it_in_its_own_words_and_gains_no_right(things: dict[str, str]) -> None:
    with acting_as(as_a(Role.OPERATOR)):
        with traced("queues.pause", "queue", "mail") as trace:
            queue("mail").pause(by="x")
            trace.after = {"halted": True}
        with pytest.raises(NotAllowed), traced("queues.pause", "queue", "mail"):
            queue("mail").change(max_concurrency=1)
        with pytest.raises(NotAllowed), told_by_caller():
            queue("mail").change(max_concurrency=1)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.after) == ("queues.pause", {"halted": True})


def test_what_a_deed_does_by_other_verbs_is_a_part_of_it(things: dict[str, str]) -> None:
    # An operator deletes no job; a workflow's steps and a schedule's runs are another matter.
    with acting_as(as_a(Role.OPERATOR)):
        with deed("schedules.delete", "schedule", "x", using=USING):
            jobs(things, "succeeded").delete_final()
        with pytest.raises(NotAllowed):
            jobs(things, "failed").delete_final()
    assert AuditEntry.objects.get().verb == "schedules.delete"


def test_many_are_told_by_number_and_some_by_name() -> None:
    made = [make_job().pk for _ in range(MAX_IDS + 5)]
    with acting_as(as_a(Role.OPERATOR)):
        Job.objects.filter(pk__in=made).cancel()
    entry = AuditEntry.objects.get()
    assert (entry.count, entry.target_id) == (MAX_IDS + 5, "")
    assert len(entry.filter["ids"]) == MAX_IDS


def test_secrets_and_long_values_are_not_kept_in_the_audit(things: dict[str, str]) -> None:
    web = {"url": "http://example.com", "headers": {"Authorization": "hush"}, "body": "x" * 20_000}
    with acting_as(as_a(Role.ADMIN)):
        made = schedules.create(
            {**world.NIGHTLY, "name": "web", "kind": "http", "type": "", "payload": web}, by="x"
        )
        edit(job(things, "ready"), Changes(payload={"text": "y" * 20_000}))
    created, changed = AuditEntry.objects.order_by("at", "id")
    assert created.target_id == str(made.pk)
    assert "hush" not in str(created.after) and len(str(created.after)) < 10_000
    assert "characters" in changed.after["payload"]


def test_who_acts_is_not_inherited_by_threads() -> None:
    seen: list[Any] = []
    with acting_as(as_a(Role.ADMIN)):
        thread = threading.Thread(target=lambda: seen.append(who_acts()))
        thread.start()
        thread.join()
        assert who_acts() is not None
    assert seen == [None]
    assert who_acts() is None


# -- The audit only grows --------------------------------------------------------------------------


@pytest.fixture
def entry(things: dict[str, str]) -> AuditEntry:
    with acting_as(as_a(Role.ADMIN)):
        queue("mail").pause(by="x")
    return AuditEntry.objects.get()


def test_the_models_refuse_to_change_what_was_told(entry: AuditEntry) -> None:
    entry.reason = "another"
    for change in (
        entry.save,
        entry.delete,
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.all().update(reason="another"),
    ):
        with pytest.raises(Unchangeable):
            change()
    assert AuditEntry.objects.get().reason == ""


def test_the_database_refuses_it_too(entry: AuditEntry) -> None:
    create_key("k", "admin", ["alpha"])
    with acting_as(as_a(Role.ADMIN)):
        ApiKey.objects.all().revoke()
    assert AccessAuditEntry.objects.get().verb == "keys.revoke"
    for alias, table in ((USING, "audit"), ("default", "access_audit")):
        connection = connections[alias]
        statements = [f"UPDATE {table} SET reason = 'another'"]
        if connection.vendor == "postgresql":
            statements.append(f"DELETE FROM {table}")
        for statement in statements:
            with (
                pytest.raises(DatabaseError, match="only grows"),
                transaction.atomic(using=alias),
                connection.cursor() as cursor,
            ):
                cursor.execute(statement)
