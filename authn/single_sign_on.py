"""Who comes from the provider of single sign-on: a user in the groups that it says, and in no others.

Roles are given to groups here, as always; the provider says who is in them. It is asked at each sign-in,
and what it no longer says is gone. It makes nobody a superuser.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest
from django.views.defaults import permission_denied

from authn.models import AccessAuditEntry
from config.single_sign_on import SingleSignOn, is_loopback

logger = logging.getLogger(__name__)

# What a provider may say of groups before we stop reading.
MAX_GROUPS = 1000


class People(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """What allauth asks us about people."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Refuse whoever is in no group that we know, and whoever wants anything but to sign in."""
        if sociallogin.state.get("process", "login") != "login":
            self.refuse(request, "accounts are not connected to each other")
        groups = self.groups_of(sociallogin)
        if not groups:
            if sociallogin.is_existing:
                _put_in(sociallogin.user, [], request)
            self.refuse(request, f"{sociallogin.account.uid[:100]!r} is in no group that is here")
        if sociallogin.is_existing:
            _put_in(sociallogin.user, groups, request)
        request.session.set_expiry(_given().session_seconds)

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return True

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> Any:
        """A new user, who has no password, with the groups he comes with."""
        with transaction.atomic():
            user = super().save_user(request, sociallogin, form)
            _put_in(user, self.groups_of(sociallogin), request)
        return user

    def groups_of(self, sociallogin: Any) -> list[Group]:
        """Those of our groups that the provider names; the others mean nothing here."""
        said = sociallogin.account.extra_data
        names: Any = None
        for part in (said.get("userinfo"), said.get("id_token")):
            if names is None and isinstance(part, dict):
                names = part.get(_given().groups_claim)
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, list):
            return []
        wanted = [name for name in names[:MAX_GROUPS] if isinstance(name, str)]
        return [*Group.objects.filter(name__in=wanted).order_by("name")]

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: Any = None,
        exception: Exception | None = None,
        extra_context: Any = None,
    ) -> None:
        self.refuse(request, f"{error}: {exception!r}" if exception else str(error))

    def refuse(self, request: HttpRequest, why: str) -> None:
        """One page for all, so that nothing can be told apart; the reason is for the log."""
        logger.warning("single sign-on refused: %s", why)
        denied = PermissionDenied("single sign-on")
        raise ImmediateHttpResponse(permission_denied(request, denied))

    def get_requests_session(self) -> requests.Session:
        """Asks the provider, and nobody that it might send us on to."""
        session = _Session()
        session.trust_env = False
        session.request = partial(  # type: ignore[method-assign]
            session.request, timeout=10.0, allow_redirects=False
        )
        return session


class _Session(requests.Session):
    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        address = urlsplit(request.url or "")
        if address.scheme != "https" and not is_loopback(address.hostname):
            raise requests.exceptions.InvalidURL("the provider is to be asked under TLS only")
        return super().send(request, **options)


def _given() -> SingleSignOn:
    given = settings.SINGLE_SIGN_ON
    assert given is not None, "allauth asks us only where there is a provider"
    return given


def _put_in(user: Any, groups: list[Group], request: HttpRequest) -> None:
    """Let a user be in these groups and in no others; with its trace, if that is new."""
    with transaction.atomic():
        before = sorted(user.groups.values_list("name", flat=True))
        after = sorted(group.name for group in groups)
        # Whoever has no groups may not see the screen either.
        if user.is_staff != bool(groups):
            user.is_staff = bool(groups)
            user.save(update_fields=["is_staff"])
        if before == after:
            return
        user.groups.set(groups)
        AccessAuditEntry.objects.create(
            actor="sso:provider",
            credential="sso",
            surface="admin",
            address=request.META.get("REMOTE_ADDR", "")[:45],
            verb="users.change",
            target_type="user",
            target_id=user.get_username()[:200],
            before={"groups": before},
            after={"groups": after},
            request_id=getattr(request, "request_id", None) or "",
        )
