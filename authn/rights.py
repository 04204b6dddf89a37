"""The rights of somebody who is not on the line: who asked for work that goes on in the background.

Read anew at each question, as those of a caller are at each request.
"""

from __future__ import annotations

from django.conf import settings

from authn.keys import principal_of_configured
from authn.models import ApiKey
from authn.permissions import is_allowed
from authn.principal import Principal, anonymous_of
from authn.users import principal_of
from jobs.executors import GRANTED_KINDS
from jobs.rights import NONE, Rights


def rights_of(actor: str, verb: str, cluster_id: str) -> Rights:
    """What this actor may do now; one that nobody knows may nothing."""
    origin, _, name = actor.partition(":")
    if origin == "cli":
        # Whoever may run management commands has the database itself.
        return Rights(True, frozenset(GRANTED_KINDS))
    find = _FIND.get(origin)
    principal = None if find is None else find(name)
    if principal is None or not is_allowed(principal, verb, cluster_id):
        return NONE
    return Rights(True, principal.kinds_granted_on(cluster_id))


def _of_key(name: str) -> Principal | None:
    key = ApiKey.objects.all().valid().filter(name=name).first()
    if key is None:
        configured = settings.AUTH.key_named(name)
        return None if configured is None else principal_of_configured(configured)
    bindings = list(key.role_bindings.all())
    return Principal(
        name=name,
        actor=f"key:{name}",
        roles={binding.cluster_id: binding.role for binding in bindings},
        granted_kinds={
            binding.cluster_id: frozenset(binding.granted_kinds) for binding in bindings
        },
    )


def _of_user(name: str) -> Principal | None:
    from django.contrib.auth import get_user_model

    model = get_user_model()
    user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    return principal_of(user)


_FIND = {
    "key": _of_key,
    "user": _of_user,
    "anonymous": anonymous_of,
    "certificate": anonymous_of,
}
