"""Users and groups with their roles, and API keys, on the fleet's site.

A key is seen here and revoked; a command makes it and shows its text once.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest

from authn.accounts import roles_told, told_of
from authn.models import ALL_CLUSTERS, ApiKey, GroupRole, RoleBinding, UserRole
from jobs.executors import GRANTED_KINDS
from ui import theme
from ui.admin import ControlAdmin
from ui.callers import asks_for


class UserRoleForm(forms.ModelForm):  # type: ignore[type-arg]
    cluster_id = forms.ChoiceField(label="Cluster", widget=theme.UnfoldAdminSelectWidget)
    granted_kinds = forms.MultipleChoiceField(
        required=False,
        widget=theme.UnfoldAdminSelectMultipleWidget,
        help_text="Kinds that run foreign programs; they are in no role.",
    )

    class Meta:
        model = UserRole
        fields = ("cluster_id", "role", "granted_kinds")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            # Where it is narrow the headings that would tell are not shown.
            field.widget.attrs["aria-label"] = str(field.label or name.replace("_", " "))
        clusters = [(ALL_CLUSTERS, "all clusters"), *((id_, id_) for id_ in settings.CLUSTERS)]
        self.fields["cluster_id"].choices = clusters  # type: ignore[attr-defined]
        kinds = [(name, name) for name in GRANTED_KINDS]
        self.fields["granted_kinds"].choices = kinds  # type: ignore[attr-defined]


class GroupRoleForm(UserRoleForm):
    class Meta(UserRoleForm.Meta):
        model = GroupRole  # type: ignore[assignment]


class _RoleInline(theme.TabularInline):  # type: ignore[misc]
    extra = 0

    def _may(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    has_view_permission = has_add_permission = has_change_permission = _may
    has_delete_permission = _may


class UserRoleInline(_RoleInline):
    model = UserRole
    form = UserRoleForm


class GroupRoleInline(_RoleInline):
    model = GroupRole
    form = GroupRoleForm


class UserAdmin(ControlAdmin, DjangoUserAdmin):  # type: ignore[misc, type-arg]
    """Who may sign in, and what he may do on which cluster."""

    verbs = {"add": "users.create", "change": "users.change", "delete": "users.delete"}
    audit_type = "user"
    audit_key = "username"
    form = theme.UserChangeForm
    add_form = theme.UserCreationForm
    change_password_form = theme.AdminPasswordChangeForm
    list_display = ("username", "roles", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username", "email")
    ordering = ("username",)
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2")}),)
    inlines = (UserRoleInline,)

    def user_change_password(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        asks_for(request, self.verbs["change"])
        return super().user_change_password(request, *args, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.prefetch_related("cluster_roles")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            # Whoever is made here is meant to sign in; what he sees is his roles' to say.
            obj.is_staff = True
        else:
            obj.audited_before = self.audited(get_user_model()._default_manager.get(pk=obj.pk))
        super().save_model(request, obj, form, change)

    def audited(self, obj: Any) -> dict[str, Any]:
        return told_of(obj)

    @admin.display(description="roles")
    def roles(self, user: Any) -> str:
        if user.is_superuser:
            return "superuser"
        return ", ".join(str(role) for role in user.cluster_roles.all()) or "none"


class GroupAdmin(ControlAdmin):
    """Roles of all users of a group."""

    verbs = {"add": "groups.create", "change": "groups.change", "delete": "groups.delete"}
    audit_type = "group"
    audit_key = "name"
    fields = ("name",)
    list_display = ("name", "roles")
    search_fields = ("name",)
    ordering = ("name",)
    inlines = (GroupRoleInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        rows: QuerySet[Group] = super().get_queryset(request)
        return rows.prefetch_related("cluster_roles")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            obj.audited_before = self.audited(Group.objects.get(pk=obj.pk))
        super().save_model(request, obj, form, change)

    def audited(self, obj: Any) -> dict[str, Any]:
        return {"name": obj.name, "roles": roles_told(GroupRole.objects.filter(group_id=obj.pk))}

    @admin.display(description="roles")
    def roles(self, group: Any) -> str:
        return ", ".join(str(role) for role in group.cluster_roles.all()) or "none"


class RoleBindingInline(theme.TabularInline):  # type: ignore[misc]
    model = RoleBinding
    extra = 0
    can_delete = False
    fields = readonly_fields = ("cluster_id", "role", "granted_kinds")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ApiKeyAdmin(ControlAdmin):
    verbs = {"change": "keys.change"}
    audit_type = "api_key"
    audit_key = "name"
    # The digest is named nowhere here, so no page shows it.
    fields = readonly_fields = (
        *("name", "owner", "public_id", "addresses", "created_at", "rotated_at"),
        *("previous_until", "last_used_at", "expires_at", "revoked_at"),
    )
    list_display = ("name", "owner", "roles", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("role_bindings__role",)
    search_fields = ("name", "owner", "public_id")
    ordering = ("name",)
    inlines = (RoleBindingInline,)
    actions = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        rows: QuerySet[ApiKey] = super().get_queryset(request)
        return rows.prefetch_related("role_bindings").defer("digest", "previous_digest")

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


def register(site: Any) -> None:
    """Put users, groups and keys on the fleet's site."""
    site.register(get_user_model(), UserAdmin)
    site.register(Group, GroupAdmin)
    site.register(ApiKey, ApiKeyAdmin)
