"""The settings of a cluster: what holds and why, what was changed, and the way to change one."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.api.paging import Order, PageQuery
from clusters.binding import current_cluster
from clusters.errors import OutdatedSettings, UnsoundSettings
from clusters.models import ClusterSetting, SettingChange, forget_policies, settings_version
from clusters.policy import FIELDS, overridden
from jobs.api.settings import settings_to_json
from ui.access_forms import SettingForm
from ui.answers import address, done, sent
from ui.asking import Asked
from ui.callers import may, require
from ui.deeds import deed
from ui.fragments import show
from ui.pages.audit import tabs

PAGE_SIZE = 25
NEWEST_FIRST = Order(("id",), (uuid.UUID,))


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "settings.read")
    asked = Asked(request, PageQuery)
    turned = asked.page(request, lambda words: SettingChange.objects.all(), NEWEST_FIRST, PAGE_SIZE)
    rows = _rows()
    context = {
        "settings": settings_to_json(current_cluster(), rows),
        "changed": {name: row.updated_at for name, row in rows.items()},
        "changes": turned.pop("rows"),
        **turned,
        "tabs": tabs(request, "settings"),
        "may_change": may(request, "settings.change"),
    }
    return show(site, request, "settings", context, title="Settings", status=asked.status)


def change(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    """The old value, the new one, and why."""
    principal = require(request, "settings.change")
    if name not in FIELDS:
        raise Http404
    rows = _rows()
    version = settings_version({key: row.value for key, row in rows.items()})
    one = next(row for row in settings_to_json(current_cluster(), rows) if row["name"] == name)
    shown = "" if one["persisted"] is None else one["persisted"]
    form = SettingForm(sent(request), name=name, initial={"value": shown, "version": version})
    if request.method == "POST" and form.is_valid():
        value, reason = form.cleaned_data["value"], form.cleaned_data["reason"]
        try:
            with deed(
                request, "settings.change", "cluster", current_cluster().id, reason=reason
            ) as trace:
                changed = ClusterSetting.objects.all().change(
                    {name: value},
                    by=principal.actor,
                    reason=reason,
                    versions=[form.cleaned_data["version"]],
                )
                trace.is_done = bool(changed)
                trace.before = {key: was for key, (was, _) in changed.items()}
                trace.after = {key: now for key, (_, now) in changed.items()}
        except UnsoundSettings as error:
            for problem in error.problems.values():
                form.add_error("value", f"{problem[:1].upper()}{problem[1:]}.")
        except OutdatedSettings:
            form.add_error(None, "The settings were changed meanwhile; look at them again.")
        else:
            forget_policies()
            said = f"{name} is changed." if changed else f"{name} was so already."
            here = current_cluster().explicit_settings
            if name in overridden({key: row.value for key, row in _rows().items()}, here):
                said += (
                    f" The configuration of this server says otherwise and wins here: {here[name]}."
                )
            return done(request, said, address(request, "settings"))
    context = {
        **site.each_context(request),
        "title": f"Change {name}",
        "subtitle": None,
        "form": form,
        "setting": one,
        "back": address(request, "settings"),
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/settings/change.html", context, status=status)


def _rows() -> dict[str, ClusterSetting]:
    return {row.name: row for row in ClusterSetting.objects.filter(name__in=FIELDS)}


ROUTES = (
    ("governance/settings/", page, "settings"),
    ("governance/settings/<str:name>/", change, "setting"),
)
