"""Saved views of the list of jobs: kept, deleted, and chosen to begin with."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, QueryDict

from clusters.api.fields import read_query
from clusters.binding import current_cluster
from config.problems import InvalidInput
from jobs.api.filters import spelled_out
from jobs.errors import InvalidJob, JobError
from ui.answers import address, done, post_only, refused
from ui.callers import require
from ui.models import MAX_LINE, MAX_NAME, SavedView
from ui.pages.jobs import Query, view_query


class ViewForm(forms.Form):
    name = forms.CharField(max_length=MAX_NAME)
    q = forms.CharField(max_length=MAX_LINE, required=False)
    is_shared = forms.BooleanField(required=False)


@post_only
def save(site: Any, request: HttpRequest) -> HttpResponse:
    """Keep the filter and the columns under a name; one's own view of that name becomes this one."""
    require(request, "views.keep")
    form = ViewForm(request.POST)
    columns = request.POST.getlist("columns")
    query = QueryDict(mutable=True)
    query.setlist("columns", columns)
    if request.POST.get("q", "").strip():
        query["q"] = request.POST["q"]
    back = f"{address(request, 'jobs')}?{query.urlencode() or 'q='}"
    try:
        if not form.is_valid():
            name, [said, *_] = next(iter(form.errors.items()))
            raise InvalidJob(f"{name}: {said}", field=name)
        # Only what can be shown again.
        spelled_out(read_query(Query, query))
        view = _views().keep(
            request.user,
            current_cluster().id,
            form.cleaned_data["name"].strip(),
            form.cleaned_data["q"].strip(),
            columns,
            is_shared=form.cleaned_data["is_shared"],
        )
    except InvalidInput as error:
        first = error.errors[0]
        return refused(request, InvalidJob(f"{first.field}: {first.message}"), back)
    except JobError as error:
        return refused(request, error, back)
    to = f"{address(request, 'jobs')}?{view_query(view)}"
    return done(request, f"View {view.name} is kept.", to)


@post_only
def delete(site: Any, request: HttpRequest, view_id: UUID) -> HttpResponse:
    require(request, "views.delete")
    view = _one(request, view_id)
    if view.owner_id != request.user.pk:
        # Whoever shares a view keeps it.
        raise Http404
    _views().drop(view)
    return done(request, f"View {view.name} is deleted.", f"{address(request, 'jobs')}?q=")


@post_only
def begin(site: Any, request: HttpRequest, view_id: UUID) -> HttpResponse:
    """Let one's own list begin with it."""
    require(request, "jobs.read")
    view = _one(request, view_id)
    _views().begin_with(request.user, view, current_cluster().id)
    to = f"{address(request, 'jobs')}?{view_query(view)}"
    return done(request, f"Your list of jobs begins with {view.name}.", to)


@post_only
def begin_with_all(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "jobs.read")
    _views().begin_with(request.user, None, current_cluster().id)
    return done(request, "Your list of jobs begins with all of them.", address(request, "jobs"))


def _views() -> Any:
    return SavedView.objects.all()


def _one(request: HttpRequest, view_id: UUID) -> SavedView:
    views = _views().of_cluster(current_cluster().id).seen_by(request.user)
    view: SavedView | None = views.filter(pk=view_id).first()
    if view is None:
        raise Http404
    return view


ROUTES = (
    ("jobs/views/save/", save, "job-view-save"),
    ("jobs/views/all/begin/", begin_with_all, "job-view-none"),
    ("jobs/views/<uuid:view_id>/delete/", delete, "job-view-delete"),
    ("jobs/views/<uuid:view_id>/begin/", begin, "job-view-begin"),
)
