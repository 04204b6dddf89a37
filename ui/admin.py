"""Our base of every ModelAdmin: rights from roles, a history of our own, lists that cost little.

The admin's own log is keyed by model and id in the control database and would mix the clusters: no site
uses it. What is done to a cluster's rows is in that cluster's audit, in the transaction of the deed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from authn.models import AccessAuditEntry
from clusters.binding import current_cluster
from clusters.deeds import tell, told_by_caller
from clusters.models import AuditEntry, Trace
from clusters.routers import CONTROL
from jobs.errors import JobError
from ui import theme
from ui.answers import confirm, refused
from ui.callers import asks_for, caller, may
from ui.forms import DestroyForm

# A list that is longer is estimated; to count it would cost more than it tells.
EXACT_UP_TO = 1000
SHOWN_DEEDS = 100


class EstimatingPaginator(Paginator):  # type: ignore[type-arg]
    """Counts as far as a look at so many rows goes; beyond it PostgreSQL's planner knows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        seen = len(rows.order_by().values_list("pk")[: EXACT_UP_TO + 1])
        if seen <= EXACT_UP_TO:
            return seen
        return max(seen, _estimated(rows))


def _estimated(rows: Any) -> int:
    connection = connections[rows.db]
    if connection.vendor != "postgresql":
        return EXACT_UP_TO + 1
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
            [rows.model._meta.db_table],
        )
        found = cursor.fetchone()
    return int(found[0]) if found else 0


class BaseAdmin(theme.ModelAdmin):  # type: ignore[misc]
    """Lists that are bounded, deeds that leave a trace, refusals that say why."""

    list_per_page = 50
    show_full_result_count = False
    paginator = EstimatingPaginator
    list_filter_submit = True
    compressed_fields = True

    # What the trace calls such a row, by which column it knows it, and the verbs of the admin's deeds.
    audit_type: ClassVar[str] = ""
    audit_key: ClassVar[str] = "pk"
    verbs: ClassVar[Mapping[str, str]] = {}
    trace_model: ClassVar[type[Trace]] = AuditEntry
    # None: that of the bound cluster.
    trace_database: ClassVar[str | None] = None

    def may_read_history(self, request: HttpRequest) -> bool:
        raise NotImplementedError

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self._asks_for(request, "add")
        return super().add_view(request, *args, **kwargs)  # type: ignore[no-any-return]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        self._asks_for(request, "add" if object_id is None else "change")
        try:
            with told_by_caller():
                return super().changeform_view(  # type: ignore[no-any-return]
                    request, object_id, *args, **kwargs
                )
        except JobError as error:
            return refused(request, error, request.get_full_path())

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self._asks_for(request, "delete")
        try:
            with told_by_caller():
                return super().delete_view(  # type: ignore[no-any-return]
                    request, *args, **kwargs
                )
        except JobError as error:
            return refused(request, error, request.get_full_path())

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # A form of the list is an action on the rows that are chosen there.
        self._asks_for(request, "change")
        return super().changelist_view(request, *args, **kwargs)  # type: ignore[no-any-return]

    def _asks_for(self, request: HttpRequest, deed: str) -> None:
        asks_for(request, self.verbs.get(deed, ""))

    # -- The trace: the admin calls these in the transaction of the deed --------------------------

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        self._trace(request, "add", obj, after=self.audited(obj))

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        before = getattr(obj, "audited_before", None)
        after = self.audited(obj)
        if before is not None:
            changed = [name for name in after if before.get(name) != after[name]]
            before = {name: before.get(name) for name in changed}
            after = {name: after[name] for name in changed}
        self._trace(request, "change", obj, before=before, after=after)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        for obj in queryset:
            self._trace(request, "delete", obj, before=self.audited(obj))

    def audited(self, obj: Any) -> dict[str, Any]:
        """What the audit keeps of a row."""
        return {"name": str(obj)}

    def _trace(
        self,
        request: HttpRequest,
        deed: str,
        obj: Any,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        tell(
            self.verbs[deed],
            self.audit_type,
            getattr(obj, self.audit_key),
            before=before,
            after=after,
            reason=getattr(request, "reason", ""),
            using=self.trace_database,
        )

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """What was done to this row, from the cluster's audit."""
        obj = self.get_object(request, object_id)
        if obj is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(
                request, self.opts, object_id
            )
            return missing
        if not self.may_read_history(request):
            raise PermissionDenied
        rows: Any = self.trace_model._default_manager.all()
        entries = rows.about(self.audit_type, str(getattr(obj, self.audit_key)))
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {obj}",
            "subtitle": None,
            "entries": [*entries[:SHOWN_DEEDS]],
            "object": obj,
            "opts": self.opts,
        }
        return TemplateResponse(request, "ui/history.html", context)


class ClusterAdmin(BaseAdmin):
    """Of rows that a cluster's database holds. What may be done says the table of verbs."""

    # ``verbs`` holds verbs of ``authn.permissions``; a deed that is not in it is denied.
    # What a deletion does, in words for whoever is about to confirm it.
    deletion_effect: ClassVar[str] = "It is deleted."

    def may_read_history(self, request: HttpRequest) -> bool:
        return may(request, "audit.read")

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """Like every deed that cannot be taken back, a deletion wants a reason."""
        obj = self.get_object(request, object_id)
        if obj is not None and self.has_delete_permission(request, obj):
            form = DestroyForm(request.POST or None, cluster=current_cluster())
            if not form.is_valid():
                return confirm(
                    self.admin_site,
                    request,
                    form,
                    title=f"Delete {obj}",
                    button="Delete",
                    effect=self.effect_of_deletion(obj),
                    target=str(obj),
                    back="../change/",
                )
            request.reason = form.cleaned_data["reason"]  # type: ignore[attr-defined]
        return super().delete_view(request, object_id, extra_context)

    def effect_of_deletion(self, obj: Any) -> str:
        return self.deletion_effect

    def _may(self, request: HttpRequest, deed: str) -> bool:
        verb = self.verbs.get(deed)
        return verb is not None and may(request, verb)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "view")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "view")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "delete")


class ControlAdmin(BaseAdmin):
    """Of rows of the control database: users, keys and roles are the superuser's."""

    trace_model = AccessAuditEntry
    trace_database = CONTROL

    def may_read_history(self, request: HttpRequest) -> bool:
        return self._is_superuser(request)

    def _is_superuser(self, request: HttpRequest) -> bool:
        return caller(request) is not None and bool(getattr(request.user, "is_superuser", False))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._is_superuser(request)
