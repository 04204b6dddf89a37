"""manage.py definitions: what a cluster has as files, and a cluster as files say."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.definitions import text as text_of
from jobs.engine import calendars, schedules, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Calendar, Queue, Schedule, Source, Workflow, WorkflowNode

WHOLE = """\
queues:
  mail:
    description: letters
    max_concurrency: 4
    retry_base_seconds: 2.5
  reports: {}
calendars:
  closed:
    description: all doors shut
    dates:
    - '2030-12-24'
    - '2030-12-25'
schedules:
  close the day:
    workflow: Day
    expression: 30 23 * * *
    timezone: Europe/Berlin
  nightly:
    description: 'no: "yes", 08:30'
    enabled: false
    type: demo:echo
    payload:
      a: null
      day: '2026-01-01'
      list:
      - 1
      - 2.5
      - 'no'
      - '12:30'
      text: "two\\nlines \\U0001F600"
    queue: mail
    priority: -3
    timeout_seconds: 60.0
    max_attempts: 5
    on_lost: hold
    tags:
    - eu
    - 08
    metadata:
      team: a
    expression: 0 3 * * 1-5
    timezone: America/New_York
    gap: skip
    spread_seconds: 30.0
    exclusions:
      calendars:
      - closed
      countries:
      - 'NO'
      days_of_week:
      - Sunday
      time_ranges:
      - end: '23:30'
        start: '22:00'
    misfire: all
    misfire_limit: 7
    overlap: queue_one
    needs: any
    depends_on:
    - often
    - once
  often:
    type: demo:noop
    interval_seconds: 90.0
    anchor_at: '2026-01-01T00:00:00Z'
  once:
    type: demo:noop
    run_at: '2099-01-01T08:00:00Z'
    ends_at: '2099-02-01T08:00:00Z'
  raw:
    type: demo:noop
    payload_base64: AAEC
    expression: '@daily'
workflows:
  Day:
    description: in the evening
    nodes:
    - schedule: often
    - schedule: nightly
      depends_on:
      - often
      on_failure: continue
"""


@pytest.fixture
def definitions(run, tmp_path):
    """Run a verb over a text."""

    def do(verb, text="", *words):
        path = tmp_path / "definitions.yaml"
        path.write_text(text)
        return run("definitions", verb, *([str(path)] if verb != "export" else []), *words)

    return do


@pytest.fixture(autouse=True)
def _alpha(alpha):
    """The rows are alpha's."""


def apply(definitions, text, *words):
    done = definitions("apply", text, "--yes", *words)
    assert done.code == 0, done.err
    return done


def state():
    rows = [*Schedule.objects.order_by("pk").values(), *Workflow.objects.order_by("pk").values()]
    others = [*Queue.objects.order_by("pk").values(), *Calendar.objects.order_by("pk").values()]
    return rows, others


def one(text="expression: 0 3 * * *", name="nightly", **more):
    lines = [text, "type: demo:noop", *(f"{key}: {value}" for key, value in more.items())]
    body = "\n".join(f"    {line}" for line in lines)
    return f"schedules:\n  {name}:\n{body}\n"


def test_what_is_applied_to_an_empty_cluster_is_exported_as_it_was_written(definitions):
    apply(definitions, WHOLE)
    assert definitions("export").out == WHOLE
    nightly = Schedule.objects.get(name="nightly")
    assert (nightly.source, nightly.is_enabled, nightly.next_run_at) == ("file", False, None)
    assert nightly.payload["list"] == [1, 2.5, "no", "12:30"]
    assert nightly.exclusions["countries"] == ["NO"]
    assert bytes(Schedule.objects.get(name="raw").payload_bytes) == b"\x00\x01\x02"
    assert Schedule.objects.get(name="close the day").workflow_id == Workflow.objects.get().pk
    assert WorkflowNode.objects.get(position=1).on_failure == "continue"


def test_what_people_made_goes_round_into_another_cluster(definitions, run, tmp_path, monkeypatch):
    Queue.objects.all().create_queue("mail", max_entries=5, overflow="drop_oldest")
    calendars.create("closed", ["2031-01-01"], by="anna")
    values = {"type": "demo:noop", "timing": "cron", "expression": "5 4 * * *", "queue": "mail"}
    first = schedules.create({**values, "name": "Ä first"}, by="anna")
    every = {"timing": "interval", "interval_seconds": 60, "type": "demo:noop"}
    second = schedules.create(
        {**every, "name": "second", "exclusions": {"calendars": ["closed"]}},
        by="anna",
        depends_on=[first.pk],
    )
    nodes = [NewNode(first.pk), NewNode(second.pk, [first.pk])]
    flow = workflows.create("flow", nodes, by="anna")
    starter = {"timing": "cron", "expression": "@daily", "workflow_id": flow.pk, "name": "starter"}
    schedules.create(starter, by="anna")
    text = definitions("export").out
    assert definitions("plan", text).code == 0
    file = tmp_path / "there.yaml"
    file.write_text(text)
    monkeypatch.setenv("YARDMASTER_CLUSTER", "beta")
    assert run("definitions", "apply", str(file), "--yes").code == 0
    assert run("definitions", "export").out == text
    with cluster_bound("beta"):
        assert Schedule.objects.count() == 3


def test_applying_twice_changes_nothing_and_moves_no_next_run(definitions):
    apply(definitions, WHOLE)
    before = state()
    done = apply(definitions, WHOLE)
    assert done.out.strip() == "nothing differs"
    assert definitions("plan", WHOLE).code == 0
    assert state() == before


def test_a_plan_shows_what_differs_and_changes_nothing(definitions):
    apply(definitions, WHOLE)
    before = state()
    changed = WHOLE.replace("0 3 * * 1-5", "0 4 * * 1-5").replace(
        "max_concurrency: 4", "rate_limit: 9"
    )
    changed = changed.replace("    priority: -3\n", "").replace("- often\n    - once", "- once")
    done = definitions("plan", changed + "  second flow:\n    nodes:\n    - schedule: often\n")
    assert done.code == 4
    assert done.out.splitlines() == [
        "~ queue mail",
        "    max_concurrency: 4 -> (none)",
        "    rate_limit: (none) -> 9",
        "~ schedule nightly",
        "    priority: -3 -> (none)",
        "    expression: 0 3 * * 1-5 -> 0 4 * * 1-5",
        '    depends_on: ["often", "once"] -> ["once"]',
        "+ workflow second flow",
        '    nodes: [{"schedule": "often"}]',
    ]
    assert state() == before
    assert definitions("apply", changed, "--dry-run").code == 0
    assert state() == before


def test_a_payload_of_no_bytes_is_told_from_none(definitions):
    apply(definitions, one(payload_base64="''"))
    told = definitions("plan", one()).out.splitlines()
    assert told == ["~ schedule nightly", '    payload_base64: "" -> (none)']


def test_only_what_differs_is_changed(definitions):
    apply(definitions, WHOLE)
    rows = {row.name: row for row in Schedule.objects.all()}
    apply(definitions, WHOLE.replace("priority: -3", "priority: -4"))
    for row in Schedule.objects.all():
        is_other = row.name != "nightly"
        assert (row.version == rows[row.name].version) is is_other
        assert row.next_run_at == rows[row.name].next_run_at
    assert Schedule.objects.get(name="nightly").priority == -4


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "path"),
    [
        (one("expression: 0 25 * * *"), "schedules.nightly.expression"),
        (one("expression: 5"), "schedules.nightly.expression"),
        (one("run_at: 2030-01-01T00:00:00"), "schedules.nightly.run_at"),
        (one("interval_seconds: 0.01"), "schedules.nightly.interval_seconds"),
        (one("{}: 1".format("cron")), "schedules.nightly.cron"),
        (one("description: none"), "schedules.nightly"),
        (one("expression: '@daily'\n    interval_seconds: 5"), "schedules.nightly"),
        (one(timing="interval"), "schedules.nightly.timing"),
        (one(timezone="Mars/Olympus"), "schedules.nightly.timezone"),
        (one(queue="no-such"), "schedules.nightly.queue"),
        (one(priority="high"), "schedules.nightly.priority"),
        (one(priority="true"), "schedules.nightly.priority"),
        (one(tags="[08, 9]"), "schedules.nightly.tags.1"),
        (one(overlap="never"), "schedules.nightly.overlap"),
        (one(enabled="maybe"), "schedules.nightly.enabled"),
        (one(enabled="{production: 1}"), "schedules.nightly.enabled.production"),
        (one(depends_on="[other]"), "schedules.nightly.depends_on.0"),
        (one(depends_on="[nightly]"), "schedules.nightly.depends_on"),
        (one(workflow="none"), "schedules.nightly.workflow"),
        (one(exclusions="{calendars: [none]}"), "schedules.nightly.exclusions.calendars.0"),
        (one(payload_base64="=x="), "schedules.nightly.payload_base64"),
        (one(metadata="[1]"), "schedules.nightly.metadata"),
        (one(name="5"), "schedules.5"),
        (one() + one(name="Nightly").replace("schedules:\n", ""), "schedules.Nightly"),
        ("queues: {mail: {max_concurrency: 0}}", "queues.mail.max_concurrency"),
        ("queues: {mail: {speed: 1}}", "queues.mail.speed"),
        ("queues: {mail: {overflow: drop_oldest}}", "queues.mail.overflow"),
        ("queues: {'a b': {}}", "queues.a b.name"),
        ("calendars: {x: {dates: [soon]}}", "calendars.x.dates.0"),
        ("calendars: {x: {dates: 2030-01-01}}", "calendars.x.dates"),
        ("workflows: {f: {nodes: []}}", "workflows.f.nodes"),
        ("workflows: {f: {}}", "workflows.f.nodes"),
        ("workflows: {f: {nodes: [{schedule: x}]}}", "workflows.f.nodes.0.schedule.0"),
        (
            one() + "workflows: {f: {nodes: [{schedule: nightly, on_failure: cry}]}}",
            "workflows.f.nodes.0.on_failure",
        ),
        (
            one() + "workflows: {f: {nodes: [{schedule: nightly}, {schedule: nightly}]}}",
            "workflows.f.nodes.1.schedule",
        ),
        ("jobs: {}", "jobs"),
        ("queues: [mail]", "queues"),
        ("schedules: {x: 5}", "schedules.x"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_nothing_is_stored(definitions, text, path):
    before = state()
    done = definitions("apply", text, "--yes", "-o", "json")
    assert done.code == 2, (done.out, done.err)
    errors = json.loads(done.err)["errors"]
    assert path in [error["field"] for error in errors], errors
    assert state() == before


def test_all_that_is_wrong_is_told_at_once_and_what_is_right_is_not_stored(definitions):
    text = "queues: {mail: {}}\n" + one(queue="gone", name="a")
    text += one(timezone="Mars/Olympus", name="b").replace("schedules:\n", "") + one(
        name="c"
    ).replace("schedules:\n", "")
    text += one(name="d", depends_on="[a]").replace("schedules:\n", "")
    done = definitions("apply", text, "--yes")
    assert done.code == 2
    assert "schedules.a.queue: " in done.err
    assert "schedules.b.timezone: " in done.err
    assert "d.depends_on" not in done.err
    assert not Schedule.objects.exists()
    assert not Queue.objects.filter(name="mail").exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x", "no anchors and aliases"),
        ("queues: !!python/object:os.system {}", "no tags"),
        ("[" * 100, "more than 40 levels"),
        ("queues: {a: {}, a: {}}", "stands there twice"),
        ("queues: {a: ", "line"),
        ("a: 1\n---\nb: 2", "document"),
        ("queues: {[1]: {}}", "a key is a text"),
        ("x" * (17 << 20), "larger than 16 MiB"),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused(definitions, text, said):
    done = definitions("plan", text)
    assert done.code == 2
    assert said in done.err


def test_a_file_that_is_not_there_is_not_found(run):
    assert run("definitions", "plan", "/no/such/file.yaml").code == 3


def test_enabled_may_differ_by_environment_and_is_left_alone_where_nothing_is_said(
    definitions, monkeypatch
):
    text = one(enabled="{production: true, default: false}")
    apply(definitions, text)
    assert not Schedule.objects.get().is_enabled
    apply(definitions, text, "--environment", "production")
    assert Schedule.objects.get().is_enabled
    monkeypatch.setenv("YARDMASTER_ENVIRONMENT", "test")
    assert definitions("plan", text).out.splitlines() == [
        "~ schedule nightly",
        "    enabled: true -> false",
    ]
    apply(definitions, text)
    for silent in (one(), one(enabled="{production: true}")):
        assert definitions("plan", silent).code == 0
    schedules.change(Schedule.objects.get().pk, {"is_enabled": True}, by="anna")
    assert definitions("plan", one()).code == 0


def test_prune_deletes_what_came_from_files_and_nothing_else(definitions):
    apply(definitions, WHOLE)
    theirs = {"name": "theirs", "type": "demo:noop", "timing": "cron", "expression": "@daily"}
    schedules.create(theirs, by="anna")
    assert definitions("plan", "queues: {}").code == 0
    done = definitions("plan", "", "--prune")
    assert done.code == 4
    assert sorted(done.out.splitlines()) == [
        "- schedule close the day",
        "- schedule nightly",
        "- schedule often",
        "- schedule once",
        "- schedule raw",
        "- workflow Day",
    ]
    apply(definitions, "", "--prune")
    assert [row.name for row in Schedule.objects.filter(deleted_at=None)] == ["theirs"]
    assert Queue.objects.filter(name="mail").exists()


def test_what_others_need_is_not_pruned(definitions):
    apply(definitions, one())
    values = {"name": "theirs", "type": "demo:noop", "timing": "cron", "expression": "@daily"}
    schedules.create(values, by="anna", depends_on=[Schedule.objects.get().pk])
    done = definitions("apply", "", "--prune", "--yes")
    assert done.code == 2
    assert "schedules.nightly: cannot be deleted, it is needed by 'theirs'" in done.err


def test_dependencies_may_be_turned_round_at_one_stroke(definitions):
    def two(first, second):
        return one(name="a", depends_on=first) + one(name="b", depends_on=second).replace(
            "schedules:\n", ""
        )

    apply(definitions, two("[b]", "[]"))
    apply(definitions, two("[]", "[a]"))
    assert Schedule.objects.get(name="b").dependencies.get().prerequisite.name == "a"
    done = definitions("apply", two("[b]", "[a]"), "--yes")
    assert done.code == 2
    assert "circle" in done.err


def test_schedules_of_code_are_neither_exported_nor_changed(definitions):
    values = {"name": "coded", "type": "demo:noop", "timing": "cron", "expression": "@daily"}
    schedules.create(values, by="code", source=Source.CODE)
    done = definitions("export")
    assert "coded" not in done.out
    assert "'coded' stands in code" in done.err
    done = definitions("plan", one(name="coded"))
    assert (done.code, "schedules.coded: stands in code" in done.err) == (2, True)


def test_a_dependency_on_what_is_deleted_is_told_of_and_not_lost_silently(definitions):
    apply(definitions, one(name="first"))
    [first] = Schedule.objects.all()
    apply(
        definitions, one(name="first") + one(name="second", depends_on="[first]").partition("\n")[2]
    )
    schedules.delete(first.pk, by="anna")
    done = definitions("export")
    assert "depends_on" not in done.out
    assert "schedule 'second' depends on 'first', which is deleted" in done.err
    assert "first (deleted)" in definitions("plan", done.out).out
    assert Schedule.objects.get(name="second").dependencies.count() == 1


def test_what_has_had_its_time_is_left_alone(definitions):
    text = one("run_at: 2020-01-01T00:00:00Z")
    done = definitions("plan", text)
    assert done.code == 0
    assert "schedules.nightly has had its time" in done.err
    apply(definitions, text)
    assert not Schedule.objects.exists()


def test_a_change_of_a_calendar_moves_the_schedules_that_name_it(definitions):
    tomorrow = f"{timezone.now() + timedelta(days=1):%Y-%m-%d}"
    text = "calendars: {closed: {dates: []}}\n" + one(exclusions="{calendars: [closed]}")
    apply(definitions, text)
    before = Schedule.objects.get().next_run_at
    apply(definitions, text.replace("[]", f"['{before:%Y-%m-%d}', '{tomorrow}']"))
    assert Schedule.objects.get().next_run_at > before


def test_names_are_found_whatever_their_case_and_written_as_the_file_says(definitions):
    apply(definitions, one(name="nightly"))
    done = apply(definitions, one(name="Nightly"))
    assert done.out.splitlines() == ["~ schedule Nightly", "    name: nightly -> Nightly"]
    assert Schedule.objects.get().name == "Nightly"


def test_several_files_are_one_and_what_stands_in_two_is_refused(run, tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("queues: {mail: {}}")
    second.write_text(one(queue="mail"))
    assert run("definitions", "apply", str(first), str(second), "--yes").code == 0
    second.write_text("queues: {mail: {}}")
    done = run("definitions", "plan", str(first), str(second))
    assert (done.code, "defined twice" in done.err) == (2, True)


def test_without_a_terminal_apply_wants_to_be_told_yes(definitions):
    done = definitions("apply", one())
    assert (done.code, "--yes" in done.err) == (2, True)
    assert not Schedule.objects.exists()


def test_json_tells_the_same(definitions):
    done = definitions("plan", one(), "-o", "json")
    assert done.code == 4
    (change,) = done.json["changes"]
    assert (change["action"], change["section"], change["name"]) == (
        "create",
        "schedules",
        "nightly",
    )
    assert {"field": "expression", "old": None, "new": "0 3 * * *"} in change["fields"]


def test_text_is_read_as_it_was_written_whatever_stands_in_it():
    odd = ["12:30", "no", "1e3", "0x1F", "1_000", "<<", "=", "null", "~", "", " x", "a: b", "on"]
    odd += ["2026-01-01", "True", "yes", ".5", "1.", "+1", "-0", "0o7", ".inf", "\x85", "a\u2028b"]
    odd += ["\ttab", "#c", "- a", "!x", "&a", "*b", "'q'", '"', "%", "@", "`", "|", "\x07", "1:2.3"]
    document = {"queues": dict.fromkeys(odd, odd), "n": [1, 1.5, 1e20, 1e-7, True, None, 10**30]}
    assert text_of.read(text_of.write(document)) == document
