"""Schedules, workflows and graphs in a real browser, against a server of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import schedules, workflows
from jobs.engine.workflow_rows import NewNode
from jobs.models import Fire, FireState, Job
from tests.factories import make_job
from tests.jobs.schedule_cases import (
    fire,
    hours_ago,
    keep_away_from_the_turn,
    make_schedule,
    put_back,
)
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import SCHEMES, WIDTHS, chromium, program, visit
from tests.ui.test_browser import _answers, _people, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)
DAILY = {"type": "demo:echo", "timing": "cron", "expression": "0 3 * * *", "timezone": "UTC"}


def _work() -> dict[str, str]:
    with cluster_bound("alpha"):
        names = ("load orders", "check stock", "write bills", "mail the customers", "close the day")
        made = [schedules.create({"name": name, **DAILY}, by="test") for name in names]
        load, check, write, mail, close = (one.pk for one in made)
        nodes = [
            NewNode(load),
            NewNode(check, [load], "continue"),
            NewNode(write, [load]),
            NewNode(mail, [check, write]),
            NewNode(close, [mail]),
        ]
        graph = workflows.create("end of day", nodes, by="test")
        run = workflows.start_run(graph.pk, by="test")
        return {
            "workflow": str(graph.pk),
            "run": str(run.pk),
            "schedule": str(load),
            **_late_and_missed(),
        }


def _late_and_missed() -> dict[str, str]:
    """A schedule that nobody has started in time, and one with a gap after an outage."""
    keep_away_from_the_turn()
    holes = make_schedule(name="poll the partner", misfire="skip", overlap="allow")
    for n in range(6, 18):
        job = make_job("failed" if n in (9, 13) else "succeeded", schedule_id=holes.pk)
        fired = {"state": FireState.FIRED, "fired_at": hours_ago(n), "job_id": job.pk}
        Fire.objects.create(schedule=holes, due_at=hours_ago(n), **fired)
    put_back(holes, hours_ago(5))
    fire()
    berlin = {"timezone": "Europe/Berlin", "expression": "30 2 * * 0", "timing": "cron"}
    make_schedule(name="weekly report", **berlin)
    late = make_schedule(name="send the letters")
    put_back(late, hours_ago(0))
    return {"holes": str(holes.pk), "late": str(late.pk)}


@pytest.fixture
def yard(transactional_db: None) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """A browser, the address of a server, and the ids of its rows; no node is there."""
    program()
    port = free_port()
    _people()
    made = _work()
    with ExitStack() as stack:
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=worker_environment()))
        until(lambda: _answers(port), 120)
        yield stack.enter_context(chromium()), f"http://127.0.0.1:{port}", made


@pytest.mark.once
def test_graphs_are_drawn_and_lead_to_what_they_show(yard: Any) -> None:
    browser, address, made = yard
    definition = f"/admin/alpha/workflows/{made['workflow']}/"
    run = f"{definition}runs/{made['run']}/"
    for scheme in SCHEMES:
        with visit(browser, address, scheme=scheme) as visitor:
            visitor.sign_in("operator")
            for path in (definition, run):
                for width in WIDTHS:
                    visitor.page.set_viewport_size({"width": width, "height": 900})
                    visitor.go(path)
                    visitor.page.wait_for_selector(".ui-graph svg")
                    assert visitor.page.locator(".ui-graph-node").count() == 5
                    assert visitor.page.locator(".ui-graph-edge").count() == 5
                    visitor.check(f"{scheme}/{width}{path}")
            # What changed is drawn anew where it was, and nobody is asked again where a node goes.
            node = visitor.page.locator(".ui-graph-node", has_text="load orders")
            before = node.bounding_box()
            if scheme == SCHEMES[0]:
                in_thread(partial(_run_first, made["run"]))
            visitor.page.wait_for_selector(".ui-graph-succeeded")
            assert node.bounding_box() == before
            visitor.page.locator(".ui-graph").focus()
            visitor.page.keyboard.press("Tab")
            visitor.page.keyboard.press("Enter")
            visitor.page.wait_for_url("**/jobs/*/")
            assert visitor.complaints == []


def _run_first(run_id: str) -> None:
    from uuid import UUID

    from jobs.models import Job, WorkflowRun
    from tests.jobs.schedule_cases import begin_run, end_run

    with cluster_bound("alpha"):
        run = WorkflowRun.objects.get(pk=UUID(run_id))
        job = Job.objects.get(pk=UUID(run.nodes[0]["job_id"]))
        begin_run(job)
        end_run(job)


class Clicks:
    """Counts what a hand does; opening the alert's link is the first."""

    def __init__(self, visitor: Any, path: str) -> None:
        self.visitor, self.count = visitor, 1
        visitor.go(path)

    def on(self, name: str, role: str = "button") -> Clicks:
        self.count += 1
        self.visitor.click(name, role)
        return self


def test_a_late_schedule_runs_and_a_gap_is_made_up_for_in_three_clicks(yard: Any) -> None:
    browser, address, made = yard
    with visit(browser, address) as visitor:
        visitor.sign_in("operator")
        # The link of the alert ScheduleLate.
        clicks = Clicks(visitor, "/admin/alpha/schedules/?name=send%20the%20letters")
        clicks.on("send the letters", "link").on("Run now")
        visitor.sees("runs now; its next run stays where it is")
        assert clicks.count == 3
        clicks = Clicks(visitor, f"/admin/alpha/schedules/{made['holes']}/")
        clicks.on("Run all…", "link")
        visitor.sees("All of them run, at once.")
        visitor.page.fill("input[name=reason]", "the nodes were down")
        clicks.on("Run all")
        visitor.sees("6 runs of what was missed: made.")
        assert clicks.count == 3
        assert visitor.complaints == []
    told = in_thread(_told)
    assert told == [
        ("schedules.trigger", made["late"], ""),
        ("schedules.run_missed", made["holes"], "the nodes were down"),
    ]


def _told() -> list[tuple[str, str, str]]:
    with cluster_bound("alpha"):
        assert Job.objects.filter(state="ready", schedule_id__isnull=False).count() >= 7
        rows = AuditEntry.objects.order_by("at", "id")
        return [*rows.values_list("verb", "target_id", "reason")]


@pytest.mark.once
def test_a_form_says_what_it_comes_to_while_it_is_written(yard: Any) -> None:
    browser, address, _ = yard
    with visit(browser, address) as visitor:
        visitor.sign_in("operator").go("/admin/alpha/schedules/").click("New schedule", "link")
        page = visitor.page
        page.fill("[name=expression]", "99 * * * *")
        page.wait_for_selector("#e-expression >> text=is no minute")
        page.fill("[name=expression]", "30 6 * * 1-5")
        visitor.sees("At 06:30 on Monday through Friday (UTC)")
        assert page.locator("#e-expression").inner_text() == ""
        assert page.locator(".ui-runs time").count() == 5
        visitor.sees("Still to be filled in: name.")
        page.fill("[name=name]", "early report")
        page.fill("[name=type]", "demo:echo")
        visitor.click("Save").sees("Schedule early report is made.")
        visitor.click("Edit", "link").sees("The next runs stay where they are.")
        page.select_option("[name=timing]", "interval")
        assert page.locator("[name=expression]").is_hidden()
        page.fill("[name=interval_seconds]", "600")
        visitor.sees("The next runs move.")
        visitor.check("form")
        visitor.click("Save").sees("Nothing was run.").sees("Every 10 minutes")
        assert visitor.complaints == []


@pytest.mark.once
def test_pages_of_schedules_read_well_in_both_themes_and_widths(yard: Any) -> None:
    browser, address, made = yard
    root = "/admin/alpha/schedules/"
    one = f"{root}{made['holes']}/"
    load = f"{root}load/"
    pages = (root, one, load, f"{root}{made['late']}/?runs=20", f"{one}edit/", f"{root}new/")
    for scheme in SCHEMES:
        with visit(browser, address, scheme=scheme) as visitor:
            visitor.sign_in("operator")
            for path in pages:
                visitor.go(path)
                for width in WIDTHS:
                    visitor.page.set_viewport_size({"width": width, "height": 900})
                    visitor.check(f"{scheme}/{width}{path}")
