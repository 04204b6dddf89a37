"""Pages that stand alone: what is not there, not allowed, not readable, or broken."""

from __future__ import annotations

import pytest
from django.contrib.staticfiles import finders
from django.test import RequestFactory

from config.problems import bad_request, server_error
from tests.factories import make_job

STYLE = "ui/refused.css"


def check(response, status, heading):
    text = response.content.decode()
    assert response.status_code == status
    assert f"<h1>{heading}</h1>" in text and STYLE in text
    assert '<a href="/admin/' in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "path", ["nothing/", "jobs/00000000-0000-7000-8000-000000000000/", "jobs/x/"]
)
def test_what_is_not_there_says_so_and_leads_back(viewer, alpha, path):
    check(viewer.get(f"/admin/alpha/{path}"), 404, "There is no such page")


def test_what_one_may_not_do_says_who_could_allow_it(viewer, alpha):
    job = make_job(state="failed")
    check(viewer.post(f"/admin/alpha/jobs/{job.pk}/retry/"), 403, "You may not do this")


def test_a_form_of_another_sign_in_says_what_to_do(viewer, alpha, monkeypatch):
    monkeypatch.setattr(viewer.handler, "enforce_csrf_checks", True)
    job = make_job(state="failed")
    check(viewer.post(f"/admin/alpha/jobs/{job.pk}/retry/"), 403, "This form is too old")


def test_a_mistake_of_ours_needs_nothing_to_be_told_of():
    request = RequestFactory().get("/admin/alpha/")
    check(server_error(request), 500, "Something went wrong on our side")
    request.request_id = "one-<b>"
    page = server_error(request)
    check(page, 500, "Something went wrong on our side")
    assert "<code>one-&lt;b&gt;</code>" in page.content.decode()
    check(bad_request(request, ValueError()), 400, "This cannot be read")


def test_their_style_is_there():
    assert finders.find(STYLE) is not None
