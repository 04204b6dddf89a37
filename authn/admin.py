"""API keys in the admin site: seen, and revoked. A command makes them; it shows the text once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from authn.models import ApiKey, RoleBinding


class RoleBindingInline(admin.TabularInline):  # type: ignore[type-arg]
    model = RoleBinding
    extra = 0
    can_delete = False
    fields = readonly_fields = ("cluster_id", "role", "granted_kinds")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    # The digest is named nowhere here, so no page shows it.
    fields = readonly_fields = ("name", "public_id", "created_at", "expires_at", "revoked_at")
    list_display = ("name", "public_id", "roles", "created_at", "expires_at", "revoked_at")
    list_filter = ("revoked_at", "role_bindings__role", "role_bindings__cluster_id")
    search_fields = ("name", "public_id")
    ordering = ("name",)
    inlines = (RoleBindingInline,)
    actions = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).prefetch_related("role_bindings").defer("digest")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # A name once used stays in the records of what its key did.
        return False

    @admin.display(description="roles")
    def roles(self, key: ApiKey) -> str:
        return ", ".join(str(binding) for binding in key.role_bindings.all())

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = ApiKey.objects.filter(pk__in=queryset.values("pk")).revoke()
        self.message_user(request, f"{count} revoked.", messages.SUCCESS)
