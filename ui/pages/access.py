"""Who may do what, over all clusters: roles of people, groups and keys, the keys themselves, and the
audit of both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from authn import roles
from authn.api.keys import BY_NAME, filtered_keys, one_key
from authn.errors import KeyNotFound
from authn.keys import create_key, rotate_key
from authn.models import ALL_CLUSTERS, AccessAuditEntry, ApiKey, KeyState
from authn.roles import HOLDERS
from clusters.api.fields import Choice, Text
from clusters.api.paging import Order, PageQuery
from clusters.errors import NotAllowed
from jobs.errors import JobError
from ui.access_forms import KeyForm, RoleForm, RotateForm
from ui.answers import address, confirm, done, refused, sent
from ui.asking import Asked
from ui.callers import may_anywhere, may_on, require_anywhere, tell_refusal
from ui.forms import ReasonForm
from ui.fragments import show
from ui.pages.audit import exported, listed

PAGE_SIZE = 50
# Of more clusters a matrix would be a wall; `cluster` chooses one.
MOST_COLUMNS = 8
NO_STORE = {"Cache-Control": "no-store"}


class MatrixQuery(PageQuery):
    sort = Choice(choices=HOLDERS, required=False)
    name = Text(max_length=150, required=False, help_text="Its beginning.")
    cluster = Text(max_length=25, required=False)


class KeysQuery(PageQuery):
    name = Text(max_length=100, required=False)
    state = Choice(choices=KeyState.values, required=False)
    cluster = Text(max_length=25, required=False)


# -- Roles -----------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    """The matrix: a row for each of them, a column for each cluster."""
    require_anywhere(request, "roles.read")
    asked = Asked(request, MatrixQuery)
    sort = asked.words.get("sort", "user")
    order = Order((roles.name_of(sort),), (str,), is_descending=False)
    turned = asked.page(request, lambda words: _holders(sort, words), order, PAGE_SIZE)
    columns = _columns(request, asked.words)
    context = {
        **turned,
        "rows": _matrix(request, sort, turned["rows"], columns),
        "columns": columns,
        "sort": sort,
        "sorts": [
            {"name": f"{one}s", "url": f"?sort={one}", "is_active": one == sort} for one in HOLDERS
        ],
        "name": asked.given.get("name", ""),
        "is_filtered": "name" in asked.words or "cluster" in asked.words,
        "has_more_clusters": len(_seen(request)) > len(columns),
        "tabs": tabs(request, "governance"),
        "may_give": may_anywhere(request, "roles.give"),
    }
    return show(site, request, "roles", context, title="Governance", status=asked.status)


def tabs(request: HttpRequest, active: str) -> list[dict[str, Any]]:
    parts = (
        ("Roles", "governance", "roles.read"),
        ("API keys", "keys", "keys.read"),
        ("Access audit", "access-audit", "access_audit.read"),
    )
    return [
        {"name": title, "url": address(request, name), "is_active": name == active}
        for title, name, verb in parts
        if may_anywhere(request, verb)
    ]


def _holders(sort: str, words: Mapping[str, Any]) -> Any:
    rows = roles.holders_seen(sort)
    if "name" in words:
        rows = rows.filter(**{f"{roles.name_of(sort)}__istartswith": words["name"]})
    return rows


def _seen(request: HttpRequest) -> list[str]:
    """The clusters whose roles the caller may see."""
    return [id_ for id_ in sorted(settings.CLUSTERS) if may_on(request, "roles.read", id_)]


def _columns(request: HttpRequest, words: Mapping[str, Any]) -> list[str]:
    """All clusters at once where he may see that, then one by one."""
    whole = [ALL_CLUSTERS] if may_on(request, "roles.read", ALL_CLUSTERS) else []
    seen = _seen(request)
    if "cluster" in words:
        seen = [id_ for id_ in seen if id_ == words["cluster"]]
    return whole + seen[:MOST_COLUMNS]


def _matrix(
    request: HttpRequest, sort: str, rows: list[Any], columns: list[str]
) -> list[dict[str, Any]]:
    given: dict[Any, dict[str, Any]] = defaultdict(dict)
    for row in roles.of_holders(sort, rows):
        one = roles.given(sort, row)
        given[one.holder.row.pk][row.cluster_id] = one
    gives = {id_: may_on(request, "roles.give", id_) for id_ in columns}
    return [
        {
            "name": getattr(holder, roles.name_of(sort)),
            "is_superuser": getattr(holder, "is_superuser", False),
            "is_ended": sort == "key" and holder.state != KeyState.VALID,
            "is_disabled": sort == "user" and not holder.is_active,
            "cells": [
                {
                    "cluster": id_,
                    "given": given[holder.pk].get(id_),
                    "everywhere": given[holder.pk].get(ALL_CLUSTERS),
                    "may_give": gives[id_],
                }
                for id_ in columns
            ],
        }
        for holder in rows
    ]


def give(site: Any, request: HttpRequest) -> HttpResponse:
    """One role of one of them on one cluster: another one, or the first."""
    require_anywhere(request, "roles.give")
    asked = {name: request.GET.get(name, "") for name in ("sort", "name", "cluster")}
    known = _known(asked)
    initial = {**asked, "role": "viewer"}
    if known is not None:
        initial |= {"role": known.row.role, "granted_kinds": known.row.granted_kinds}
    form = RoleForm(sent(request), initial=initial, **_places(request, "roles.give"))
    if request.method == "POST" and form.is_valid():
        words = form.cleaned_data
        holder = roles.find(words["sort"], words["name"])
        if holder is None:
            form.add_error("name", f"There is no such {words['sort']}.")
        else:
            try:
                kinds, reason = words["granted_kinds"], words["reason"]
                roles.give(holder, words["cluster"], words["role"], kinds, reason=reason)
            except JobError as error:
                tell_refusal(request, error)
                form.add_error(error.field if error.field in form.fields else None, str(error))
            else:
                said = f"{words['name']} is {words['role']} on {_named(words['cluster'])}."
                return done(request, said, f"{address(request, 'governance')}?sort={words['sort']}")
    return _form(
        site,
        request,
        form,
        title="Give a role",
        button="Give the role",
        back=address(request, "governance"),
        take=known.id
        if known is not None and may_on(request, "roles.take", asked["cluster"])
        else "",
    )


def _known(asked: Mapping[str, str]) -> Any:
    """The role that he has there, as far as whoever asks may see it."""
    if asked["sort"] not in HOLDERS or "\0" in "".join(asked.values()):
        return None
    rows = roles.seen(asked["sort"]).filter(
        roles.of_holders_named(asked["sort"], asked["name"]), cluster_id=asked["cluster"]
    )
    row = rows.first()
    return None if row is None else roles.given(asked["sort"], row)


def take(site: Any, request: HttpRequest, role_id: str) -> HttpResponse:
    require_anywhere(request, "roles.take")
    try:
        one = roles.find_given(role_id)
    except JobError:
        raise Http404 from None
    if not may_on(request, "roles.take", one.row.cluster_id):
        raise NotAllowed("roles.take")
    back = f"{address(request, 'governance')}?sort={one.holder.sort}"
    form = ReasonForm(sent(request))
    where = _named(one.row.cluster_id)
    if request.method == "POST" and form.is_valid():
        try:
            roles.take(one.holder, one.row.cluster_id, reason=form.cleaned_data["reason"])
        except JobError as error:
            return refused(request, error, back)
        return done(request, f"{one.holder.name} has no role on {where} any more.", back)
    return confirm(
        site,
        request,
        form,
        title="Take this role away?",
        button="Take it away",
        effect=f"{one.row.role.capitalize()} on {where}. It counts from the next request on.",
        target=one.holder.name,
        back=back,
    )


# -- Keys ------------------------------------------------------------------------------------------


def keys(site: Any, request: HttpRequest) -> HttpResponse:
    require_anywhere(request, "keys.read")
    asked = Asked(request, KeysQuery)
    turned = asked.page(request, lambda words: filtered_keys(dict(words)), BY_NAME, PAGE_SIZE)
    state = asked.words.get("state")
    context = {
        **turned,
        "rows": [_key_row(request, key) for key in turned["rows"]],
        "states": [
            {
                "name": name,
                "url": f"?state={name}" if name != "all" else "?",
                "is_active": is_active,
            }
            for name, is_active in (
                ("all", not state),
                *((one, one == state) for one in KeyState.values),
            )
        ],
        "is_filtered": bool(asked.words),
        "name": asked.given.get("name", ""),
        "state": state or "",
        "tabs": tabs(request, "keys"),
        "may_create": may_anywhere(request, "keys.create"),
    }
    return show(site, request, "access_keys", context, title="API keys", status=asked.status)


def _key_row(request: HttpRequest, key: ApiKey) -> dict[str, Any]:
    on = [binding.cluster_id for binding in key.role_bindings.all()] or [ALL_CLUSTERS]
    state = key.state
    return {
        "key": key,
        "state": state,
        "may_change": state == KeyState.VALID
        and all(may_on(request, "keys.change", id_) for id_ in on),
        "may_revoke": key.revoked_at is None
        and all(may_on(request, "keys.revoke", id_) for id_ in on),
    }


def new_key(site: Any, request: HttpRequest) -> HttpResponse:
    require_anywhere(request, "keys.create")
    form = KeyForm(sent(request), **_places(request, "keys.create"))
    if request.method == "POST" and form.is_valid():
        words = form.cleaned_data
        try:
            key, text = create_key(
                words["name"],
                words["role"],
                words["clusters"],
                words["granted_kinds"],
                form.expires(),
                owner=words["owner"],
                addresses=words["addresses"].split(),
            )
        except JobError as error:
            tell_refusal(request, error)
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            return _made(site, request, key, text, f"The key {key.name} is made.")
    back = address(request, "keys")
    return _form(site, request, form, title="New API key", button="Make the key", back=back)


def rotate(site: Any, request: HttpRequest, key_id: str) -> HttpResponse:
    require_anywhere(request, "keys.change")
    key = _key(key_id)
    form = RotateForm(sent(request))
    if request.method == "POST" and form.is_valid():
        back = address(request, "keys")
        try:
            text = rotate_key(key, form.keep_old())
        except JobError as error:
            return refused(request, error, back)
        if text is None:
            form.add_error(None, "The key is not valid any more; make another one.")
        else:
            return _made(site, request, key, text, f"The key {key.name} has a new text.")
    return _form(
        site,
        request,
        form,
        title=f"Rotate the key {key.name}",
        button="Make a new text",
        back=address(request, "keys"),
    )


def revoke(site: Any, request: HttpRequest, key_id: str) -> HttpResponse:
    """A key that has leaked, or that nobody needs: refused from now on, for ever."""
    require_anywhere(request, "keys.revoke")
    key, back = _key(key_id), address(request, "keys")
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        try:
            count = ApiKey.objects.filter(pk=key.pk).revoke(reason=form.cleaned_data["reason"])
        except JobError as error:
            return refused(request, error, back)
        said = "is revoked" if count else "was revoked before"
        return done(request, f"The key {key.name} {said}.", back)
    on = ", ".join(_named(one.cluster_id) for one in key.role_bindings.all()) or "no cluster"
    return confirm(
        site,
        request,
        form,
        title=f"Revoke the key {key.name}?",
        button="Revoke the key",
        effect=f"Whoever calls with it is refused from now on, for ever. It has a role on {on}.",
        target=key.name,
        back=back,
    )


def _key(key_id: str) -> ApiKey:
    try:
        return one_key(key_id)
    except KeyNotFound:
        raise Http404 from None


def _made(site: Any, request: HttpRequest, key: ApiKey, text: str, said: str) -> HttpResponse:
    """The only page that ever has the text of the key."""
    context = {
        **site.each_context(request),
        "title": said,
        "subtitle": None,
        "key": key,
        "text": text,
        "header": settings.API_KEY_HEADER,
        "back": address(request, "keys"),
    }
    return TemplateResponse(request, "ui/access_keys/made.html", context, headers=NO_STORE)


# -- The audit -------------------------------------------------------------------------------------


def audit(site: Any, request: HttpRequest) -> HttpResponse:
    require_anywhere(request, "access_audit.read")
    return listed(
        site,
        request,
        AccessAuditEntry.objects.all(),
        title="Access audit",
        tabs=tabs(request, "access-audit"),
        csv=address(request, "access-audit-csv"),
    )


def export(site: Any, request: HttpRequest) -> HttpResponseBase:
    require_anywhere(request, "access_audit.read")
    return exported(request, AccessAuditEntry.objects.all(), "access-audit")


# -- Shared ----------------------------------------------------------------------------------------


def _places(request: HttpRequest, verb: str) -> dict[str, Any]:
    """Where the caller may do this."""
    return {
        "clusters": [id_ for id_ in sorted(settings.CLUSTERS) if may_on(request, verb, id_)],
        "with_all": all(may_on(request, verb, id_) for id_ in [ALL_CLUSTERS, *settings.CLUSTERS]),
    }


def _named(cluster_id: str) -> str:
    return "all clusters" if cluster_id == ALL_CLUSTERS else cluster_id


def _form(
    site: Any,
    request: HttpRequest,
    form: Any,
    *,
    title: str,
    button: str,
    back: str,
    take: str = "",
) -> HttpResponse:
    context = {
        **site.each_context(request),
        "title": title,
        "subtitle": None,
        "form": form,
        "button": button,
        "back": back,
        "take": take,
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/access/form.html", context, status=status)


# Below the fleet's own address.
ROUTES = (
    ("governance/", page, "governance"),
    ("governance/roles/give/", give, "role-give"),
    ("governance/roles/<str:role_id>/take/", take, "role-take"),
    ("governance/keys/", keys, "keys"),
    ("governance/keys/new/", new_key, "key-new"),
    ("governance/keys/<str:key_id>/rotate/", rotate, "key-rotate"),
    ("governance/keys/<str:key_id>/revoke/", revoke, "key-revoke"),
    ("governance/audit/", audit, "access-audit"),
    ("governance/audit.csv", export, "access-audit-csv"),
)
