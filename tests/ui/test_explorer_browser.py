"""From an alert to the problem fixed, in a real browser: the line, all of a group, a log, a copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.models import AuditEntry
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.models import BulkOperation, Job, Queue
from jobs.states import Reason, State
from tests.api.test_failures import make_failure
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import chromium, program, visit
from tests.ui.test_browser import _answers, _people, in_thread, until

pytestmark = pytest.mark.django_db(transaction=True)
MANY = 2134


def _rows() -> dict[str, str]:
    _people()
    with cluster_bound("alpha"):
        Queue.objects.all().create_queue("mail")
        failure = make_failure(7, count=MANY)
        now = timezone.now()
        Job.objects.bulk_create(
            Job(
                type="mail:send",
                queue="mail",
                # Only the last of them can be found by what it was given.
                payload={"user": {"id": n}},
                state=State.FAILED,
                reason=Reason.ERROR,
                error="ValueError: no order 17" if n else "ValueError: no paper",
                fingerprint=failure.fingerprint,
                enqueued_by="test",
                timeout_seconds=30.0,
                max_attempts=3,
                attempts=3,
                created_at=now - timedelta(seconds=n),
                finished_at=now,
            )
            for n in range(MANY)
        )
        runs = NewJob(type="demo:progress", payload={"steps": 5000, "seconds": 0.2})
        echo = NewJob(type="demo:echo", payload={"to": "anna", "n": 1})
        return {
            "failure": failure.fingerprint,
            "running": str(enqueue(runs, by="test").job.pk),
            "echo": str(enqueue(echo, by="test").job.pk),
        }


@pytest.fixture
def explorer(transactional_db: None) -> Iterator[tuple[Any, str, dict[str, str]]]:
    """A browser, the address of a server, and what there is on the cluster, which has a node."""
    program()
    port, environment = free_port(), worker_environment()
    made = in_thread(_rows)
    with ExitStack() as stack:
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=environment))
        # It leaves the letters alone: what is retried stays to be counted.
        node = ("worker", "--cluster", "alpha", "--concurrency", "2", "--queues", "default")
        stack.enter_context(started(*node, env=environment, grace=1))
        until(lambda: _answers(port), 120)
        browser = stack.enter_context(chromium())
        yield browser, f"http://127.0.0.1:{port}", made


@pytest.mark.once
def test_the_stories_of_the_explorer(explorer: Any) -> None:
    browser, address, made = explorer
    with visit(browser, address) as visitor:
        visitor.page.set_default_timeout(60_000)
        visitor.sign_in("operator")
        _use_the_line(visitor)
        _retry_all(visitor, made["failure"])
        _follow_the_log(visitor, made["running"])
        _edit_a_copy(visitor, made["echo"])
    told = in_thread(_told)
    assert told["failed"] == 0
    assert told["waiting"] == MANY
    assert told["operations"] == [("retry", "the paper is back", {"retried": MANY})]
    assert ("bulk_operations.request", "the paper is back") in told["traces"]
    assert told["copies"] == [{"to": "bert", "n": 1}]


def _use_the_line(visitor: Any) -> None:
    page = visitor.go("/admin/alpha/jobs/").page
    page.keyboard.press("/")
    page.keyboard.type("sta")
    page.wait_for_selector("#f-choices li:has-text('state:')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("fai")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.input_value("#f-line") == "state:failed "
    page.keyboard.type("args.user.id:2000")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"q=state%3Afailed"))
    # It is far back: the search says how far it got, until it is there.
    while page.locator(".ui-table tbody tr").count() == 0:
        page.get_by_role("link", name="Go on").click()
        page.wait_for_load_state()
    assert page.locator(".ui-table tbody tr").count() == 1
    visitor.check("line")


def _retry_all(visitor: Any, fingerprint: str) -> None:
    """Open the alert's link, press Retry all, confirm: three clicks, and a reason."""
    clicks = 1
    visitor.go(f"/admin/alpha/failures/{fingerprint}/")
    visitor.page.get_by_role("link", name=re.compile("Retry all")).click()
    clicks += 1
    visitor.page.wait_for_selector("h2:has-text('can be retried')")
    visitor.page.fill("input[name=reason]", "the paper is back")
    visitor.page.get_by_role("button", name=re.compile(r"Retry 2\s134 jobs")).click()
    clicks += 1
    visitor.page.wait_for_selector(".ui-state-finished")
    assert re.search(r"2\s134 jobs were changed", visitor.page.inner_text(".ui-why"))
    assert clicks == 3
    visitor.check("bulk")


def _follow_the_log(visitor: Any, job: str) -> None:
    page = visitor.go(f"/admin/alpha/jobs/{job}/").page
    page.wait_for_selector(".ui-log p")
    first = page.locator(".ui-log p").count()
    page.wait_for_function(f"document.querySelectorAll('.ui-log p').length > {first} + 3")
    page.fill("#log-find", "no such words")
    page.keyboard.press("Enter")
    visitor.sees("No line holds it")
    visitor.check("log")


def _edit_a_copy(visitor: Any, job: str) -> None:
    page = visitor.go(f"/admin/alpha/jobs/{job}/").page
    visitor.click("Changed copy…", "link")
    payload = page.input_value("textarea[name=payload]")
    page.fill("textarea[name=payload]", payload.replace("anna", "bert"))
    visitor.click("Show the difference")
    page.wait_for_selector(".ui-added:has-text('bert')")
    assert "anna" in page.inner_text(".ui-gone")
    visitor.click("Enqueue the copy").sees("This is the copy.")
    page.wait_for_selector(".ui-state-succeeded")
    visitor.check("copy")


def _told() -> dict[str, Any]:
    with cluster_bound("alpha"):
        return {
            "failed": Job.objects.filter(queue="mail", state="failed").count(),
            # Some at once, the others spread over a time.
            "waiting": Job.objects.filter(queue="mail", state__in=("ready", "scheduled")).count(),
            "operations": [
                *BulkOperation.objects.values_list("action", "reason", "outcomes"),
            ],
            "traces": [*AuditEntry.objects.values_list("verb", "reason")],
            "copies": [
                *Job.objects.filter(copy_of__isnull=False).values_list("payload", flat=True)
            ],
        }
