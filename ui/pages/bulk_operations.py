"""Bulk operations: what one would be about, how those that run get on, and the way to stop them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from authn.principal import Principal
from clusters.api.fields import Choice, QueryNumber, Text
from clusters.api.paging import NEWEST_FIRST
from clusters.binding import current_cluster
from clusters.models import Node
from config.problems import FieldError, InvalidInput
from jobs.api.bulk_wire import BulkFilter, BulkOperationListQuery, percent
from jobs.api.filters import spelled_out
from jobs.engine import bulk
from jobs.engine.bulk_terms import MAX_LIMIT, MAX_SPREAD_SECONDS
from jobs.errors import JobError
from jobs.filter_text import as_query, written
from jobs.models import BulkAction, BulkOperation, BulkStatus, Queue
from jobs.models.bulk_operation import OPEN
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from ui.answers import address, done, post_only, refused, sent
from ui.asking import Asked
from ui.bulk_forms import FORMS
from ui.callers import may, require
from ui.fragments import show
from ui.words import number

PAGE_SIZE = 50
SHOWN_JOBS, SHOWN_QUEUES = 5, 200
# Words of the address that are no condition, and the argument that each stands for.
ARGUMENTS = {
    "limit": "limit",
    "spread_seconds": "spread_seconds",
    "to_queue": "queue",
    "to_priority": "priority",
}
VERBS: Mapping[str, str] = {
    BulkAction.RETRY: "Retry",
    BulkAction.RUN_NOW: "Run now",
    BulkAction.CANCEL: "Cancel",
    BulkAction.MOVE: "Move",
    BulkAction.SET_PRIORITY: "Change the priority of",
    BulkAction.DELETE: "Delete",
}
CAN: Mapping[str, str] = {
    BulkAction.RETRY: "can be retried",
    BulkAction.RUN_NOW: "can be run now",
    BulkAction.CANCEL: "can be cancelled",
    BulkAction.MOVE: "can be moved",
    BulkAction.SET_PRIORITY: "can be changed",
    BulkAction.DELETE: "can be deleted",
}
EFFECTS: Mapping[str, str] = {
    BulkAction.RETRY: "Each runs again and has at least one attempt for it. One that is held for a "
    "person stays as it is, unless the filter says is_held.",
    BulkAction.RUN_NOW: "Each is ready at once, without waiting for its time.",
    BulkAction.CANCEL: "What has not started never will; what runs is asked to stop.",
    BulkAction.MOVE: "Each waits in the other queue, at its place by the same order. What runs stays.",
    BulkAction.SET_PRIORITY: "The lower number runs first. What runs already is left alone.",
    BulkAction.DELETE: "The jobs, their attempts and their logs are gone for good. Their figures stay.",
}


class Query(BulkFilter):
    """The words of the filter, the action, and what the action needs besides."""

    action = Choice(choices=BulkAction.values, required=False)
    limit = QueryNumber(min_value=1, max_value=MAX_LIMIT, required=False)
    spread_seconds = QueryNumber(min_value=1, max_value=MAX_SPREAD_SECONDS, required=False)
    to_queue = Text(max_length=100, required=False)
    to_priority = QueryNumber(min_value=HIGHEST_PRIORITY, max_value=LOWEST_PRIORITY, required=False)


# -- Asked for -------------------------------------------------------------------------------------


def new(site: Any, request: HttpRequest) -> HttpResponse:
    """Say what it would be about; then, with a reason, let the nodes do it."""
    principal = require(request, "bulk_operations.request")
    asked = Asked(request, Query)
    try:
        asked.words = spelled_out(asked.words)
    except InvalidInput as error:
        asked.refuse(error)
    action = asked.words.pop("action", None)
    given = {
        meant: asked.words.pop(word) for word, meant in ARGUMENTS.items() if word in asked.words
    }
    if asked.errors or action is None:
        return _choice(site, request, asked)
    require(request, f"bulk_operations.{action}")
    form = FORMS[action](sent(request), given=given, cluster=current_cluster())
    try:
        limit = {name: given[name] for name in ("limit",) if name in given}
        found = bulk.glance(action, asked.words, limit)
    except JobError as error:
        asked.errors = [FieldError(error.field or "filter", error.code, str(error))]
        return _choice(site, request, asked)
    if request.method == "POST" and form.is_valid():
        operation = _start(principal, action, asked.words, limit, form, found)
        if operation is not None:
            to = address(request, "bulk-operation", operation_id=operation.pk)
            return done(request, "The nodes have begun with it, or will soon.", to)
    return _confirm(site, request, asked.words, action, given, form, found)


def _start(
    principal: Principal,
    action: str,
    words: Mapping[str, Any],
    limit: Mapping[str, Any],
    form: Any,
    found: bulk.DryRun,
) -> BulkOperation | None:
    """The operation, or None and in the form why there is none."""
    if found.has_grown(form.cleaned_data["size"]):
        form.add_error(None, "There are more of them now than you have seen. Look again.")
        return None
    try:
        return bulk.request(
            action,
            words,
            reason=form.cleaned_data["reason"],
            by=principal.actor,
            arguments={**limit, **form.arguments()},
        )
    except JobError as error:
        form.refuse(error)
        return None


def _choice(site: Any, request: HttpRequest, asked: Asked) -> HttpResponse:
    """What may be done with the jobs of a filter; or what is wrong with it."""
    query = as_query(asked.words)
    actions = [
        (verb, f"?{urlencode([('action', str(action)), *query])}", EFFECTS[action])
        for action, verb in VERBS.items()
        if may(request, f"bulk_operations.{action}")
    ]
    context = {
        **site.each_context(request),
        "title": "What to do with these jobs?" if not asked.errors else "Bulk operation",
        "subtitle": None,
        "errors": asked.errors,
        "filter": written(asked.words),
        "actions": actions if query and not asked.errors else [],
    }
    template = "ui/bulk_operations/choice.html"
    return TemplateResponse(request, template, context, status=asked.status)


def _confirm(
    site: Any,
    request: HttpRequest,
    words: Mapping[str, Any],
    action: str,
    given: Mapping[str, Any],
    form: Any,
    found: bulk.DryRun,
) -> HttpResponse:
    jobs = _link(request, "jobs", _conditions(words))
    names = Queue.objects.order_by("name").values_list("name", flat=True)
    context = {
        **site.each_context(request),
        "title": _title(action, given.get("limit"), found),
        "subtitle": None,
        "form": form,
        "found": found,
        "sample": found.sample[:SHOWN_JOBS],
        "filter": written(words),
        "can": CAN[action],
        "effect": EFFECTS[action],
        "button": f"{VERBS[action]} {_jobs(found.size, found.is_exact or 'limit' in given)}",
        "is_dangerous": action in (BulkAction.DELETE, BulkAction.CANCEL),
        "jobs": jobs,
        "back": jobs,
        "others": _other_sizes(request, action, words, given),
        "has_node": Node.objects.all().alive().filter(lease_until__gt=Now()).exists(),
        "queues": [*names[:SHOWN_QUEUES]] if action == BulkAction.MOVE else [],
    }
    return TemplateResponse(
        request, "ui/bulk_operations/new.html", context, status=400 if form.errors else 200
    )


def _title(action: str, limit: int | None, found: bulk.DryRun) -> str:
    if limit is not None and found.size == limit:
        return (
            f"{VERBS[action]} the {number(limit)} oldest of {_jobs(found.count, found.is_exact)}?"
        )
    return f"{VERBS[action]} {_jobs(found.size, found.is_exact)}?"


def _jobs(count: int | None, is_exact: bool = True) -> str:
    if count is None:
        return "all that match"
    more = "" if is_exact else " or more"
    return f"{number(count)}{more} {'job' if count == 1 and is_exact else 'jobs'}"


def _other_sizes(
    request: HttpRequest, action: str, words: Mapping[str, Any], given: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The same for a few, or for all."""
    if "limit" in given:
        rest = {name: value for name, value in given.items() if name != "limit"}
        return [("All of them", new_link(request, action, words, rest))]
    return [("Only the 10 oldest", new_link(request, action, words, {**given, "limit": 10}))]


# -- Under way -------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "bulk_operations.read")
    asked = Asked(request, BulkOperationListQuery)
    context = asked.page(request, _found, NEWEST_FIRST, PAGE_SIZE)
    context["rows"] = [_shown(request, one) for one in context["rows"]]
    kept = [("action", asked.words["action"])] if "action" in asked.words else []
    context["tabs"] = [
        {
            "name": name,
            "url": f"?{urlencode([*kept, *([('status', name)] if name != 'all' else [])])}",
            "is_active": asked.words.get("status", "all") == name,
        }
        for name in ("all", *BulkStatus.values)
    ]
    return show(
        site, request, "bulk_operations", context, title="Bulk operations", status=asked.status
    )


def _found(words: Mapping[str, Any]) -> QuerySet[BulkOperation]:
    chosen = {word: words[word] for word in ("status", "action") if word in words}
    return BulkOperation.objects.filter(**chosen).defer("cursor")


def one(site: Any, request: HttpRequest, operation_id: UUID) -> HttpResponse:
    require(request, "bulk_operations.read")
    operation = _one(operation_id)
    outcomes = [
        {"name": name, "count": count, "about": bulk.OUTCOMES.get(name, "")}
        for name, count in sorted(operation.outcomes.items(), key=lambda pair: -pair[1])
    ]
    context = {
        **_shown(request, operation),
        "outcomes": outcomes,
        "changed": sum(operation.outcomes.get(name, 0) for name in bulk.DONE),
        "arguments": _arguments(operation.arguments),
        "may_stop": operation.status in OPEN and may(request, "bulk_operations.stop"),
        "following": [] if operation.status in OPEN else _following(request, operation),
        "has_node": operation.status not in OPEN
        or Node.objects.all().alive().filter(lease_until__gt=Now()).exists(),
    }
    return show(site, request, "bulk_operation", context, title="Bulk operation")


@post_only
def stop(site: Any, request: HttpRequest, operation_id: UUID) -> HttpResponse:
    """End it before its next batch; what is done stays done, and the rest can be asked for again."""
    principal = require(request, "bulk_operations.stop")
    back = address(request, "bulk-operation", operation_id=_one(operation_id).pk)
    try:
        bulk.cancel(operation_id, by=principal.actor)
    except JobError as error:
        return refused(request, error, back)
    return done(request, "It is stopped. What was done stays done.", back)


def _one(operation_id: UUID) -> BulkOperation:
    operation = BulkOperation.objects.filter(pk=operation_id).first()
    if operation is None:
        raise Http404
    return operation


def _shown(request: HttpRequest, operation: BulkOperation) -> dict[str, Any]:
    return {
        "operation": operation,
        "verb": VERBS.get(operation.action, operation.action),
        "percent": percent(operation),
        "is_open": operation.status in OPEN,
        "is_all": operation.filter == {"all": True},
        "filter": written(operation.filter),
        "jobs": _link(request, "jobs", _conditions(operation.filter)),
    }


def _arguments(arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
    words = {"queue": "to queue", "spread_seconds": "spread over, in seconds"}
    return [(words.get(name, name), value) for name, value in arguments.items()]


def _following(request: HttpRequest, operation: BulkOperation) -> list[tuple[str, str]]:
    """What one may want next: the rest, the same again, all of it taken back."""
    links = []
    arguments = {name: value for name, value in operation.arguments.items() if name != "limit"}
    if may(request, f"bulk_operations.{operation.action}"):
        again = new_link(request, operation.action, operation.filter, arguments)
        links.append(("The rest of them…" if "limit" in operation.arguments else "Again…", again))
    back = bulk.inverse(operation)
    if back is not None and may(request, f"bulk_operations.{back.action}"):
        said = {"retry": "Retry what it cancelled…", "move": "Move back…"}[back.action]
        links.append((said, new_link(request, *back)))
    return links


# -- Links -----------------------------------------------------------------------------------------


def new_link(
    request: HttpRequest,
    action: str,
    words: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """Where this operation is looked at and asked for."""
    named = {meant: word for word, meant in ARGUMENTS.items()}
    rest = [(named[name], str(value)) for name, value in (arguments or {}).items()]
    query = [("action", str(action)), *as_query(words), *rest]
    return f"{address(request, 'bulk-operation-new')}?{urlencode(query)}"


def _link(request: HttpRequest, name: str, words: Mapping[str, Any]) -> str:
    query = urlencode(as_query(words))
    return f"{address(request, name)}?{query}" if query else address(request, name)


def _conditions(words: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in words.items() if word != "all"}


ROUTES = (
    ("bulk-operations/", page, "bulk-operations"),
    ("bulk-operations/new/", new, "bulk-operation-new"),
    ("bulk-operations/<uuid:operation_id>/", one, "bulk-operation"),
    ("bulk-operations/<uuid:operation_id>/stop/", stop, "bulk-operation-stop"),
)
