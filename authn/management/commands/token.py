"""Print a token for a user, as `POST {base}/token` gives him for his password."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model

from authn.tokens import issue
from clusters.management.base import (
    Conflict,
    NotFound,
    OperatorCommand,
    check_database_is_there,
    duration,
)
from clusters.routers import CONTROL


class Command(OperatorCommand):
    help = "Print a token for a user: good until it expires, he is barred or his password changes."
    acts_on_cluster = False

    def shape(self, parser: ArgumentParser) -> None:
        self.add_common(parser)
        parser.add_argument("user", help="the name he signs in with")
        parser.add_argument(
            "--lifetime",
            type=_lifetime,
            default=timedelta(seconds=settings.JWT_LIFETIME),
            metavar="1h",
            help=f"default {settings.JWT_LIFETIME}s, at most {settings.JWT_MAX_LIFETIME}s",
        )
        parser.add_argument(
            "--one-time", action="store_true", help="good for one request, and refused from then on"
        )
        parser.set_defaults(run=self.print_token)

    def print_token(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        model = get_user_model()
        user = model._default_manager.filter(**{model.USERNAME_FIELD: asked.user}).first()
        if user is None:
            raise NotFound(f"there is no user {asked.user[:100]!r}")
        if not user.is_active:
            raise Conflict(f"the user {asked.user!r} may not sign in")
        issued = issue(user, asked.lifetime, is_one_time=asked.one_time)
        when = issued.expires_at.isoformat().replace("+00:00", "Z")
        self.show(
            {"access_token": issued.text, "token_type": "Bearer", "expires_at": when},
            lambda: self.stdout.write(issued.text),
        )


def _lifetime(text: str) -> timedelta:
    seconds = duration(text)
    if not 1 <= seconds <= settings.JWT_MAX_LIFETIME:
        raise ArgumentTypeError(f"a token lives 1 to {settings.JWT_MAX_LIFETIME} seconds")
    return timedelta(seconds=seconds)
