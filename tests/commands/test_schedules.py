"""manage.py schedules, workflows, pause, resume, trigger"""

from __future__ import annotations

import csv
import io

import pytest
import yaml

from jobs.engine import schedules, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Job, Queue, Schedule, Workflow, WorkflowRun
from tests.factories import make_queue
from tests.jobs.schedule_cases import fire, hours_ago, make_schedule, put_back

MISSING = "0190a1b2-0000-7000-8000-000000000000"


@pytest.fixture
def nightly(alpha):
    return make_schedule(name="Nightly", expression="0 3 * * *", timezone="Europe/Berlin")


def test_schedules_are_listed_by_name_and_filtered(run, nightly):
    make_schedule(name="alpha", tags=["red"], timing="interval", interval_seconds=90)
    done = run("schedules", "list")
    lines = done.out.splitlines()
    assert done.code == 0
    assert "alpha" in lines[1] and "every 90 s" in lines[1]
    assert "Nightly" in lines[2] and "0 3 * * *" in lines[2]
    items = run("schedules", "list", "--tag", "red", "-o", "json").json["items"]
    assert [item["name"] for item in items] == ["alpha"]
    assert run("schedules", "list", "--state", "paused", "-o", "json").json["items"] == []
    assert run("schedules", "list", "--failing", "-o", "json").json["items"] == []
    done = run("schedules", "list", "--limit", "1")
    assert "There are more" in done.err


@pytest.mark.parametrize("named", ["Nightly", "NIGHTLY", "id"])
def test_one_is_shown_by_its_name_or_id(named, run, nightly):
    target = str(nightly.pk) if named == "id" else named
    assert run("schedules", "show", target, "-o", "json").json["id"] == str(nightly.pk)
    assert "Europe/Berlin" in run("schedules", "show", target).out


@pytest.mark.parametrize("verb", ["show", "next", "fires", "pause", "resume", "trigger"])
def test_one_that_is_not_there_ends_with_3(verb, run, alpha):
    for target in ("nobody", MISSING):
        done = run("schedules", verb, target)
        assert (done.code, done.out) == (3, "")
        assert target in done.err


def test_the_next_runs_are_told_with_the_local_time(run, nightly):
    items = run("schedules", "next", "Nightly", "--count", "2", "-o", "json").json["items"]
    assert len(items) == 2
    assert "T03:00:00+0" in items[0]["local"]
    schedules.pause(nightly.pk, by="test")
    done = run("schedules", "next", "Nightly")
    assert len(done.out.splitlines()) == 11
    assert "It is paused" in done.err
    assert run("schedules", "next", "Nightly", "--count", "101").code == 2


def test_fires_are_told_with_what_was_left_out(run, nightly):
    put_back(nightly, hours_ago(100))
    fire()
    items = run("schedules", "fires", "Nightly", "-o", "json").json["items"]
    assert {item["state"] for item in items} == {"fired", "missed"}
    done = run("schedules", "fires", "Nightly", "--state", "missed")
    assert "no node was there" in done.out
    assert "fired" not in done.out


def test_one_is_paused_and_resumed(run, nightly):
    done = run(
        "schedules", "pause", "Nightly", "--reason", "stocktaking", "--for", "2h", "-o", "json"
    )
    assert done.json["state"] == "paused"
    assert done.json["resume_at"] is not None
    assert done.json["paused_by"].startswith("cli:")
    assert run("schedules", "pause", "Nightly").code == 4
    assert run("schedules", "resume", "Nightly", "-o", "json").json["state"] == "enabled"
    assert run("schedules", "resume", "Nightly").code == 4


def test_all_are_paused_and_resumed(run, nightly):
    assert run("schedules", "pause-all", "--reason", "x").out == "1 paused\n"
    assert Schedule.objects.get().is_paused_by_all
    assert run("schedules", "resume-all", "-o", "json").json == {"count": 1}
    assert not Schedule.objects.get().is_paused


def test_one_is_triggered_with_another_payload(run, nightly):
    done = run("schedules", "trigger", "Nightly", "--payload", '{"a": 1}')
    job = Job.objects.get()
    assert (done.out.strip(), job.payload, job.schedule_id) == (str(job.pk), {"a": 1}, nightly.pk)
    assert run("schedules", "trigger", "Nightly", "--payload", "{").code == 2
    schedules.change(nightly.pk, {"is_enabled": False}, by="test")
    assert run("schedules", "trigger", "Nightly").code == 4


# -- The short ones --------------------------------------------------------------------------------


def test_pause_and_resume_take_a_schedule_or_a_queue(run, nightly):
    make_queue("mail")
    assert (
        run("pause", "nightly", "--reason", "x").out
        == f"the schedule 'Nightly' ({nightly.pk}) is paused\n"
    )
    assert Schedule.objects.get().is_paused
    assert run("pause", "mail", "--for", "1h").out == "the queue 'mail' is paused\n"
    assert Queue.objects.get(name="mail").resume_at is not None
    assert run("pause", "nightly").code == 4
    assert run("resume", str(nightly.pk), "-o", "json").json["state"] == "enabled"
    assert run("resume", "mail", "-o", "json").json["is_paused"] is False
    done = run("resume", "mail")
    assert (done.code, "not paused" in done.err) == (0, True)
    for command in ("pause", "resume", "trigger"):
        assert run(command, "nobody").code == 3


def test_a_name_that_several_have_is_refused_with_both_named(run, alpha):
    make_queue("mail")
    schedule = make_schedule(name="mail")
    for command in ("pause", "resume"):
        done = run(command, "mail")
        assert done.code == 2
        assert f"the schedule 'mail' ({schedule.pk})" in done.err
        assert "the queue 'mail'" in done.err
    assert not Schedule.objects.get().is_paused
    assert run("pause", "mail", "--sort", "queue").code == 0
    assert Queue.objects.get(name="mail").is_paused
    assert not Schedule.objects.get().is_paused
    assert run("pause", str(schedule.pk)).code == 0


def test_trigger_takes_a_schedule_or_a_workflow(run, nightly):
    workflow = workflows.create("Chain", [NewNode(nightly.pk)], by="test")
    assert run("trigger", "nightly").out.strip() == str(Job.objects.get().pk)
    made = run("trigger", "chain", "-o", "json").json
    assert made["workflow_run_id"] == str(WorkflowRun.objects.get().pk)
    assert run("trigger", "chain", "--payload", "1").code == 2
    Schedule.objects.update(name="chain")
    done = run("trigger", "chain")
    assert (done.code, str(workflow.pk) in done.err) == (2, True)


def test_another_cluster_has_schedules_of_its_own(run, nightly):
    assert run("pause", "Nightly", "--cluster", "beta").code == 3
    assert run("schedules", "list", "--cluster", "beta", "-o", "json").json["items"] == []


# -- Workflows -------------------------------------------------------------------------------------


def test_workflows_are_shown_and_run(run, nightly):
    second = make_schedule(name="second")
    nodes = [NewNode(nightly.pk), NewNode(second.pk, [nightly.pk], "continue")]
    workflow = workflows.create("Chain", nodes, by="test")
    assert "Chain" in run("workflows", "list").out
    assert run("workflows", "list", "--search", "none", "-o", "json").json["items"] == []
    assert "second (continue) after Nightly" in run("workflows", "show", "chain").out
    assert len(run("workflows", "show", str(workflow.pk), "-o", "json").json["nodes"]) == 2
    done = run("workflows", "trigger", "chain", "-o", "json").json
    assert [node["state"] for node in done["nodes"]] == ["ready", "blocked"]
    [item] = run("workflows", "runs", "chain", "-o", "json").json["items"]
    assert item["id"] == done["id"]
    assert run("workflows", "runs", "chain", "--state", "failed", "-o", "json").json["items"] == []
    assert "running" in run("workflows", "runs", "chain").out
    for verb in ("show", "trigger", "runs"):
        assert run("workflows", verb, "nobody").code == 3
    assert Workflow.objects.count() == 1


# -- Jobs ------------------------------------------------------------------------------------------


def test_jobs_are_listed_by_what_made_them(run, nightly):
    run("trigger", "nightly")
    run("jobs", "enqueue", "demo:noop", "--retry-curve", "1,5")
    found = run("jobs", "list", "--schedule", str(nightly.pk), "-o", "json").json["items"]
    assert [job["trigger"] for job in found] == ["manual"]
    assert len(run("jobs", "list", "--trigger", "manual", "-o", "json").json["items"]) == 1
    assert run("jobs", "list", "--workflow-run", MISSING, "-o", "json").json["items"] == []
    assert run("jobs", "list", "--schedule", "x").code == 2
    assert Job.objects.get(schedule_id=None).retry_curve == "1,5"
    assert run("jobs", "enqueue", "demo:noop", "--retry-curve", "x").code == 2


# -- Formats ---------------------------------------------------------------------------------------


def test_yaml_is_the_document_and_csv_the_table(run, nightly):
    make_schedule(name="=1+1", description="a\nb")
    as_json = run("schedules", "list", "-o", "json").json
    assert yaml.safe_load(run("schedules", "list", "-o", "yaml").out) == as_json
    rows = list(csv.DictReader(io.StringIO(run("schedules", "list", "-o", "csv").out)))
    # A spreadsheet must not take a name for a formula.
    assert [row["name"] for row in rows] == ["'=1+1", "Nightly"]
    [record] = csv.DictReader(io.StringIO(run("schedules", "show", "nightly", "-o", "csv").out))
    assert (record["name"], record["is_paused"], record["deleted_at"]) == ("Nightly", "false", "")
