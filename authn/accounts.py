"""Users: made, let in or kept out, and given a new password. A password goes in and never comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from authn import roles
from authn.errors import DuplicateUser, InvalidAccess
from authn.models import UserRole
from authn.passwords import MAX_PASSWORD
from authn.roles import Holder
from clusters.deeds import access_deed, differences
from clusters.routers import CONTROL

TARGET = "user"


class RoleWanted(NamedTuple):
    """A role that a new user is to have."""

    cluster_id: str
    role: str
    grants: tuple[str, ...] = ()


def create(
    name: str,
    password: str,
    *,
    wanted: Iterable[RoleWanted] = (),
    email: str = "",
    full_name: str = "",
    may_sign_in: bool = True,
    on: Sequence[str] = (),
    may_be_weak: bool = False,
) -> Any:
    """Make a user with these roles, all of it or nothing.

    ``may_sign_in``: to the screen; without, the user has the APIs alone. ``on`` are the clusters that
    are concerned; without any, all of them are. ``may_be_weak``: the caller has rules of its own about
    passwords.
    """
    name = normal(name)
    user = get_user_model()(username=name, email=email, first_name=full_name, is_staff=may_sign_in)
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        field, problems = next(iter(error.message_dict.items()))
        raise InvalidAccess(" ".join(problems), field=field) from None
    _set_password(user, password, may_be_weak=may_be_weak)
    with access_deed("users.create", TARGET, name, on=on) as trace:
        try:
            with transaction.atomic(using=CONTROL):
                user.save(force_insert=True)
        except IntegrityError:
            raise DuplicateUser(f"there is a user named {name!r}", field="name") from None
        for cluster_id, role, grants in wanted:
            roles.give(Holder("user", user), cluster_id, role, grants)
        trace.after = told_of(user)
    return user


def set_password(user: Any, password: str) -> None:
    """Give a user another password; who is signed in with the one before is signed out."""
    _set_password(user, password)
    with access_deed("users.change", TARGET, user.get_username()) as trace:
        user.save(update_fields=["password"])
        trace.after = {"changed": ["password"]}


def set_active(user: Any, is_active: bool) -> bool:
    """Let a user in again, or keep him out everywhere from now on; False: he is so already."""
    with access_deed("users.change", TARGET, user.get_username()) as trace:
        rows = get_user_model()._default_manager.filter(pk=user.pk, is_active=not is_active)
        trace.before, trace.after = differences(
            {"is_active": not is_active}, {"is_active": is_active}
        )
        trace.is_done = bool(rows.update(is_active=is_active))
    return trace.is_done


def told_of(user: Any) -> dict[str, Any]:
    """What the audit keeps of a user."""
    rights = ("username", "is_active", "is_staff", "is_superuser")
    told: dict[str, Any] = {name: getattr(user, name) for name in rights}
    told["groups"] = [*user.groups.order_by("name").values_list("name", flat=True)]
    return told | {"roles": roles_told(UserRole.objects.filter(user_id=user.pk))}


def roles_told(rows: Any) -> Mapping[str, Any]:
    """Roles and grants as the audit tells of them; read anew, as those of a form are stored by now."""
    return {
        row.cluster_id: [row.role, *row.granted_kinds] for row in rows.order_by("cluster_id").all()
    }


def normal(name: str) -> str:
    """A user's name as it is stored, and as the form of the screen looks for it: letters that look
    alike are one."""
    return str(get_user_model().normalize_username(name))


def _set_password(user: Any, password: str, *, may_be_weak: bool = False) -> None:
    if len(password) > MAX_PASSWORD:
        raise InvalidAccess(f"has more than {MAX_PASSWORD} characters", field="password")
    if not may_be_weak:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise InvalidAccess(" ".join(error.messages), field="password") from None
    user.set_password(password)
