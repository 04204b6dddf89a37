"""Tokens for users: sign in once with a password, and show what came back for an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from authn import passwords, refusals
from authn.authentication import CredentialAuthentication, InvalidCredentials, surface_of
from authn.presented import PASSWORD, Presented
from authn.principal import Principal
from authn.tokens import issue
from authn.transport import refuse_in_the_clear
from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Boolean
from clusters.api.schema import BODY, answers

MIN_LIFETIME = 60


class TokenForm(serializers.Serializer[Any]):
    username = serializers.CharField(
        required=False,
        max_length=passwords.MAX_NAME,
        trim_whitespace=False,
        help_text="Left out where the request's headers say who asks.",
    )
    password = serializers.CharField(
        required=False,
        max_length=passwords.MAX_PASSWORD,
        trim_whitespace=False,
        style={"input_type": "password"},
    )
    lifetime_seconds = serializers.IntegerField(
        required=False, min_value=MIN_LIFETIME, max_value=settings.JWT_MAX_LIFETIME
    )
    one_time = Boolean(
        required=False, help_text="True: good for one request, and refused from then on."
    )


class Token(serializers.Serializer[Any]):
    access_token = serializers.CharField(help_text="Send it as `Authorization: Bearer …`.")
    token_type = serializers.CharField()
    expires_in_seconds = serializers.IntegerField()
    expires_at = serializers.DateTimeField()


class PasswordInBody(BaseAuthentication):
    """A name and a password in the body, where no header holds a credential."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        body = request.data
        if not isinstance(body, dict):
            return None
        name, password = body.get("username"), body.get("password")
        if not isinstance(name, str) or not isinstance(password, str):
            return None
        refuse_in_the_clear(request._request)
        address = str(request.META.get("REMOTE_ADDR", ""))
        principal = passwords.find_principal(name, password, address)
        if principal is None:
            shown = Presented(PASSWORD, user=name)
            refusals.tell(request._request, shown, surface_of(request))
            raise InvalidCredentials
        return principal, PASSWORD


class TokenViewSet(NativeViewSet):
    authentication_classes = [CredentialAuthentication, PasswordInBody]
    verbs = {"create": "tokens.issue"}

    @extend_schema(
        operation_id="token_issue",
        summary="Sign in with a name and a password, and get a token",
        request=TokenForm,
        responses=answers({200: Token}, 429, *BODY),
    )
    def create(self, request: Request) -> HttpResponse:
        self.query()
        form = self.body(TokenForm)
        origin, _, name = self.principal.actor.partition(":")
        # With a token one gets no other, or none would ever end.
        user = _user(name) if request.auth == PASSWORD and origin == "user" else None
        if user is None:
            raise PermissionDenied
        seconds = form.get("lifetime_seconds") or settings.JWT_LIFETIME
        is_one_time = form.get("one_time", False)
        issued = issue(user, timedelta(seconds=seconds), is_one_time=is_one_time)
        left = issued.expires_at - datetime.now(UTC)
        return reply(
            {
                "access_token": issued.text,
                "token_type": "Bearer",
                "expires_in_seconds": round(left.total_seconds()),
                "expires_at": issued.expires_at.isoformat().replace("+00:00", "Z"),
            },
            headers={"Cache-Control": "no-store"},
        )


def _user(name: str) -> Any:
    model = get_user_model()
    return model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
