"""The screen in a real browser, against a server and nodes of our own.

What a test itself asks the databases happens in a thread: the browser's driver keeps an event loop in
this one.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connections

from authn.models import UserRole
from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine import alert_rules, calendars, schedules, workflows
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.engine.workflow_rows import NewNode
from jobs.models import Job, Queue, Schedule
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import Visit, chromium, program, visit

pytestmark = pytest.mark.django_db(transaction=True)
CLUSTERS = ("alpha", "beta")


def in_thread(work: Callable[[], Any]) -> Any:
    """Ask the databases where no event loop runs."""

    def asked() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asked).result()


def _people() -> None:
    # As the server reads it: the tests' own settings have a faster way, which it does not know.
    password = PBKDF2PasswordHasher().encode("correct horse", "salt-of-the-tests", 10)
    users = get_user_model().objects
    for role in ("viewer", "operator"):
        user = users.create(username=role, password=password, is_staff=True)
        UserRole.objects.create(user=user, cluster_id="*", role=role)
    users.create(username="root", password=password, is_staff=True, is_superuser=True)


def _work() -> dict[str, str]:
    made = {}
    for cluster in CLUSTERS:
        with cluster_bound(cluster):
            Queue.objects.all().create_queue("mail", description=f"letters of {cluster}")
            Queue.objects.all().create_queue("slow")
            Queue.objects.all().named("slow").pause(by="test", reason="it rests")
            for n in range(60):
                enqueue(NewJob(type="demo:echo", queue="mail", payload={"n": n}), by="test")
            fails = NewJob(type="demo:fail", payload={"times": 9}, max_attempts=1, tags=["eu"])
            made[f"{cluster}-failed"] = str(enqueue(fails, by="test").job.pk)
            waits = NewJob(type="demo:echo", queue="slow", payload=f"only in {cluster}")
            made[f"{cluster}-waiting"] = str(enqueue(waits, by="test").job.pk)
            runs = NewJob(type="demo:progress", payload={"steps": 2000, "seconds": 0.1})
            nightly = {"name": "nightly", "type": "demo:echo", "timezone": "Europe/Berlin"}
            timing = {"timing": "cron", "expression": "0 3 * * *"}
            schedule = schedules.create({**nightly, **timing}, by="test")
            second = {"name": "afterwards", "type": "demo:echo", **timing}
            after = schedules.create(second, by="test")
            nodes = [NewNode(schedule.pk), NewNode(after.pk, [schedule.pk])]
            graph = workflows.create("morning", nodes, by="test")
            weekly = {"name": "weekly", "workflow_id": graph.pk, **timing}
            made[f"{cluster}-weekly"] = str(schedules.create(weekly, by="test").pk)
            made[f"{cluster}-workflow"] = str(graph.pk)
            run = workflows.start_run(graph.pk, by="test")
            made[f"{cluster}-run"] = str(run.pk)
            calendars.create("closed", ["2034-12-25"], by="test")
            made[f"{cluster}-schedule"] = str(schedule.pk)
            alert = {"name": "backup", "kind": "heartbeat", "type": "x", "limit_seconds": 3600}
            told = {"for_seconds": 0, "webhook_url": "https://hooks.invalid/x"}
            made[f"{cluster}-alert"] = str(alert_rules.create({**alert, **told}, by="test").pk)
            alert_rules.create({"name": "late", "kind": "late_schedules"}, by="test")
            made[f"{cluster}-running"] = str(enqueue(runs, by="test").job.pk)
    return made


def _state_of(cluster: str, job_id: str) -> str:
    with cluster_bound(cluster):
        return str(Job.objects.get(pk=job_id).state)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)
    return value


@pytest.fixture
def yard(transactional_db: None) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """A browser, the address of a server, and the ids of its jobs; only `alpha` has a node."""
    program()
    port = free_port()
    environment = worker_environment()
    with ExitStack() as stack:
        _people()
        made = _work()
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=environment))
        node = ("worker", "--cluster", "alpha", "--concurrency", "2")
        stack.enter_context(started(*node, env=environment, grace=1))
        until(lambda: _answers(port))
        until(lambda: _state_of("alpha", made["alpha-failed"]) == "failed")
        until(lambda: _state_of("alpha", made["alpha-running"]) == "running")
        browser = stack.enter_context(chromium())
        yield browser, f"http://127.0.0.1:{port}", made


def test_each_button_once(yard: Any) -> None:
    browser, address, made = yard
    with visit(browser, address) as visitor:
        visitor.sign_in("operator")
        _pause_and_resume(visitor)
        _retry(visitor, made["alpha-failed"])
        _cancel(visitor, made["alpha-waiting"])
        _trigger(visitor, made["alpha-schedule"])
        _workflow(visitor, made["alpha-workflow"])
        _calendar(visitor)
        _drain(visitor)
    told = in_thread(_traces)
    assert told == [
        ("queues.pause", "mail", "the server moves"),
        ("queues.resume", "mail", ""),
        ("jobs.retry", made["alpha-failed"], ""),
        ("jobs.cancel", made["alpha-waiting"], "nobody wants it"),
        ("schedules.trigger", made["alpha-schedule"], ""),
        ("workflows.trigger", made["alpha-workflow"], ""),
        ("workflows.cancel", made["alpha-workflow"], "too late"),
        ("workflows.trigger", made["alpha-workflow"], ""),
        ("calendars.change", "closed", ""),
        ("nodes.drain", told[9][1], "new release"),
    ]


def _traces() -> list[tuple[str, str, str]]:
    with cluster_bound("beta"):
        assert not AuditEntry.objects.exists()
    with cluster_bound("alpha"):
        assert {entry.actor for entry in AuditEntry.objects.all()} == {"user:operator"}
        rows = AuditEntry.objects.order_by("at", "id")
        return [*rows.values_list("verb", "target_id", "reason")]


def _pause_and_resume(visitor: Visit) -> None:
    visitor.go("/admin/alpha/queues/").click("Pause… mail", "link")
    visitor.click("Pause the queue")
    visitor.sees("This field is required.")
    visitor.complaints.clear()  # the browser tells of the 400
    visitor.page.fill("input[name=reason]", "the server moves")
    visitor.click("Pause the queue").sees("Queue mail is paused.").sees("the server moves")
    visitor.click("Resume mail").sees("Queue mail goes on.")
    visitor.check("queues")


def _retry(visitor: Visit, job: str) -> None:
    visitor.go(f"/admin/alpha/jobs/{job}/").sees("It has ended as failed")
    visitor.click("Retry").sees("It is ready again.")
    # It fails once more, and the page finds that out by itself.
    visitor.page.wait_for_selector("text=attempt 2")
    visitor.page.wait_for_selector(".ui-state-failed")
    visitor.check("retry")


def _cancel(visitor: Visit, job: str) -> None:
    visitor.go(f"/admin/alpha/jobs/{job}/").sees("The queue slow was paused by test")
    visitor.click("Cancel…", "link").sees("It has not started, and will not.")
    visitor.page.fill("input[name=reason]", "nobody wants it")
    visitor.click("Cancel the job").sees("It has ended as cancelled")
    visitor.check("cancel")


def _trigger(visitor: Visit, schedule: str) -> None:
    visitor.go(f"/admin/alpha/schedules/{schedule}/").sees("Its next run is")
    visitor.click("Run now").sees("runs now")
    visitor.page.wait_for_selector(".ui-state-succeeded")
    visitor.check("trigger")


def _workflow(visitor: Visit, workflow: str) -> None:
    # A run that goes on until it is stopped: its first node waits in a queue that rests.
    in_thread(_let_nodes_wait)
    visitor.go(f"/admin/alpha/workflows/{workflow}/")
    visitor.click("Run now").sees("0 of 2 nodes have succeeded")
    visitor.click("Cancel…", "link").sees("No other node starts")
    visitor.page.fill("input[name=reason]", "too late")
    visitor.click("Cancel the run")
    visitor.page.wait_for_selector(".ui-why:has-text('it ended')")
    in_thread(_let_nodes_go)
    visitor.click("Run again what did not succeed")
    visitor.page.wait_for_selector(".ui-why:has-text('2 of 2 nodes have succeeded')")
    # From a node to its job, and back to the run.
    visitor.click("afterwards", "link").sees("It has ended as succeeded")
    visitor.page.get_by_role("link", name="run", exact=True).click()
    visitor.sees("2 of 2 nodes have succeeded")
    visitor.check("workflow")


def _let_nodes_wait() -> None:
    _move_schedules("slow")


def _let_nodes_go() -> None:
    _move_schedules("default")


def _move_schedules(queue: str) -> None:
    with cluster_bound("alpha"):
        for name in ("nightly", "afterwards"):
            pk = Schedule.objects.get(name=name).pk
            schedules.change(pk, {"queue": queue}, by="test")


def _calendar(visitor: Visit) -> None:
    visitor.go("/admin/alpha/jobs/calendar/").click("closed", "link")
    assert visitor.page.input_value("textarea[name=dates]") == "2034-12-25"
    visitor.page.fill("textarea[name=dates]", "2034-12-25\n2034-12-31")
    visitor.page.locator("button[name=_save], input[name=_save]").first.click()
    visitor.sees("was changed successfully")
    visitor.check("calendar")


def _drain(visitor: Visit) -> None:
    visitor.go("/admin/alpha/nodes/").click("Drain…", "link")
    visitor.page.fill("input[name=reason]", "new release")
    visitor.click("Drain the node").sees("takes nothing new")
    visitor.page.wait_for_selector(".ui-state-draining")
    visitor.check("drain")


def test_a_viewer_watches(yard: Any) -> None:
    browser, address, made = yard
    with visit(browser, address) as visitor:
        visitor.sign_in("viewer")
        # The fleet's cards come by themselves, each from its own cluster.
        visitor.page.wait_for_selector("[data-cluster=alpha] .ui-figures")
        visitor.page.wait_for_selector("[data-cluster=beta] .ui-figures")
        visitor.check("fleet")
        for page in ("queues/", "nodes/", f"jobs/{made['alpha-waiting']}/"):
            visitor.go(f"/admin/alpha/{page}")
            assert visitor.page.locator(".ui form[method=post], a[href*=drain]").count() == 0
        html = visitor.page.content()
        assert "only in alpha" in html
        assert "only in beta" not in html

        visitor.go(f"/admin/alpha/jobs/{made['alpha-running']}/")
        # The log grows while it is watched, and progress moves.
        first = visitor.page.locator(".ui-log p").count()
        visitor.page.wait_for_function(
            f"document.querySelectorAll('.ui-log p').length > {first} + 5"
        )
        note = visitor.page.locator("#live").inner_text()
        visitor.page.wait_for_function(
            f"document.getElementById('live').innerText !== {json.dumps(note)}"
        )
        visitor.check("job")

        _keys(visitor)


def _keys(visitor: Visit) -> None:
    page = visitor.page
    page.keyboard.press("p")
    assert page.inner_text("#ui-live-word") == "Paused"
    page.reload()
    # It is remembered.
    page.wait_for_function("document.getElementById('ui-live-word').textContent === 'Paused'")
    page.keyboard.press("p")
    for letter, path in (
        ("q", "queues/"),
        ("n", "nodes/"),
        ("w", "workflows/"),
        ("f", "failures/"),
        ("c", ""),
    ):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(f"{visitor.address}/admin/alpha/{path}")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url(f"{visitor.address}/admin/alpha/jobs/")
    page.keyboard.press("/")
    page.keyboard.type("queue:mail")
    # In a field letters are letters.
    assert page.input_value("#f-line") == "queue:mail"
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{visitor.address}/admin/alpha/jobs/?q=queue%3Amail")
    page.keyboard.press("Escape")
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("?")
    page.wait_for_selector("#ui-help[open]")
    visitor.check("keys")


def test_without_a_browser_the_tests_are_skipped_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARDMASTER_TEST_BROWSER", "/nowhere/chromium")
    monkeypatch.delenv("YARDMASTER_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install the package chromium"):
        program()
    monkeypatch.setenv("YARDMASTER_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="install the package chromium"):
        program()
