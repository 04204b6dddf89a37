"""Who looks at the screen, and what he may do on which cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from authn.permissions import is_allowed, is_allowed_without_cluster
from authn.principal import Principal
from authn.users import principal_of
from clusters import refusals
from clusters.acting import Acting, who_acts
from clusters.binding import current_cluster
from clusters.errors import NotAllowed
from jobs.engine.started_kinds import barred_kinds, kinds_started_by, not_granted
from jobs.executors import CONDUCTED, GRANTED_KINDS
from jobs.models import Job


def caller(request: HttpRequest) -> Principal | None:
    """Who is signed in; his roles are read once a request."""
    known: Any = getattr(request, "_caller", ...)
    if known is ...:
        user: Any = request.user
        may_sign_in = user.is_authenticated and user.is_staff
        known = principal_of(user) if may_sign_in else None
        request._caller = known  # type: ignore[attr-defined]
    return known  # type: ignore[no-any-return]


def may(request: HttpRequest, verb: str) -> bool:
    """Whether the caller's role on the bound cluster covers the verb."""
    principal = caller(request)
    return principal is not None and is_allowed(principal, verb, current_cluster().id)


def require(request: HttpRequest, verb: str) -> Principal:
    """The caller, if he may do this on the bound cluster."""
    asks_for(request, verb)
    principal = caller(request)
    if principal is None or not is_allowed(principal, verb, current_cluster().id):
        raise NotAllowed(verb)
    return principal


def may_start(request: HttpRequest, *kinds: str) -> bool:
    """Whether the caller may start work of these kinds on the bound cluster, where they need a grant."""
    return caller(request) is not None and not _barred(kinds)


def require_start(request: HttpRequest, *kinds: str) -> None:
    """Refuse the caller, if he may not."""
    _refuse(request, _barred(kinds))


def may_on(request: HttpRequest, verb: str, cluster_id: str) -> bool:
    """The same on a cluster that is named, or on all of them (``*``)."""
    principal = caller(request)
    return principal is not None and is_allowed(principal, verb, cluster_id)


def may_anywhere(request: HttpRequest, verb: str) -> bool:
    """Whether he may do this at an address that names no cluster; the domain asks for those meant."""
    principal = caller(request)
    return principal is not None and is_allowed_without_cluster(principal, verb)


def require_anywhere(request: HttpRequest, verb: str) -> Principal:
    """The caller, if he may do this at such an address."""
    asks_for(request, verb)
    principal = caller(request)
    if principal is None or not is_allowed_without_cluster(principal, verb):
        raise NotAllowed(verb)
    return principal


def may_start_again(request: HttpRequest, job: Job) -> bool:
    """Whether the caller may start this job again, with all that starts with it."""
    return caller(request) is not None and not _barred_again(job)


def require_start_again(request: HttpRequest, job: Job) -> None:
    """Refuse the caller, if he may not."""
    _refuse(request, _barred_again(job))


def _barred(kinds: Iterable[str]) -> list[str]:
    """Those of these kinds that the caller may not start."""
    return sorted(barred_kinds(current_cluster().alias).intersection(kinds))


def _barred_again(job: Job) -> list[str]:
    if not job.has_dependants and job.kind not in CONDUCTED:
        # Neither a step nor made of steps.
        return _barred([job.kind])
    if not _barred(GRANTED_KINDS):
        # Whatever starts with it.
        return []
    return _barred(kinds_started_by(job._state.db or "", {job.pk: job.kind})[job.pk])


def _refuse(request: HttpRequest, barred: list[str]) -> None:
    if barred:
        raise NotAllowed(_asked_for(request), barred[0])
    if caller(request) is None:
        raise NotAllowed(_asked_for(request))


# -- Refusals, for the audit -----------------------------------------------------------------------


def asks_for(request: HttpRequest, verb: str) -> None:
    """Note what a page is for: the verb that it asks for first."""
    if not hasattr(request, "_verb"):
        request._verb = verb  # type: ignore[attr-defined]


def tell_refusal(request: HttpRequest, error: Exception) -> None:
    """Write that the caller was refused, if this is what the error says; the answer is the page's."""
    somebody, verb = who_acts(), _asked_for(request)
    site: str | None = getattr(request, "cluster_of_site", None)
    if somebody is None or _is_about_the_thing(error, somebody, verb, site):
        return
    refusals.tell(request, error, somebody, cluster_id=site, verb=verb)


def tell_kind_not_offered(request: HttpRequest, kind: str) -> None:
    """The same where a form has no such choice for him, and refuses it as if it were misspelt."""
    for name in _barred([kind]):
        tell_refusal(request, not_granted(name))


def _is_about_the_thing(error: Exception, somebody: Acting, verb: str, site: str | None) -> bool:
    """Whether nobody may do this to it, such as delete the default queue: then no role is wanting."""
    is_of_the_admin = isinstance(error, PermissionDenied) and not isinstance(error, NotAllowed)
    # What has no verb is nobody's to do.
    # The fleet's own things are the superusers'.
    may_do = somebody.may(verb, site) if site is not None else somebody.is_superuser
    return is_of_the_admin and (not verb or may_do)


def _asked_for(request: HttpRequest) -> str:
    verb: str = getattr(request, "_verb", "")
    return verb
