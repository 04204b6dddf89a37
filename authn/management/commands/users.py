"""Make users, list them, give them a new password, keep them out and let them in again."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from hmac import compare_digest
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model

from authn import accounts
from authn.accounts import RoleWanted
from authn.management.role_arguments import add_clusters, add_grants
from authn.models import ALL_CLUSTERS, Role
from clusters.management.base import NotFound, UsageError, check_database_is_there
from clusters.routers import CONTROL
from jobs.management.base import JobsCommand

# Bytes of stdin; a password is far shorter.
MOST_READ = 1 << 16


class Command(JobsCommand):
    help = (
        "Users with a password. A password is read from stdin or asked for, and never an argument."
    )
    acts_on_cluster = False

    def add_verbs(self) -> None:
        create = self.verb("create", self.create, "make a user, with a role if one is named")
        create.add_argument("name")
        create.add_argument("--role", choices=Role.values, help="on the clusters that are named")
        add_clusters(create, required=False)
        add_grants(create)
        create.add_argument("--email", default="")
        create.add_argument(
            "--api-only", action="store_true", help="the user does not sign in to the screen"
        )
        self._add_password(create)
        self.verb("list", self.list_users, "all users, their roles and groups")
        password = self.verb("password", self.password, "give a user another password")
        password.add_argument("name")
        self._add_password(password)
        deactivate = self.verb("deactivate", self.deactivate, "keep a user out from now on")
        deactivate.add_argument("name")
        activate = self.verb("activate", self.activate, "let a user in again")
        activate.add_argument("name")

    def _add_password(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password from stdin, instead of asking for it on the terminal",
        )

    def create(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        clusters = [ALL_CLUSTERS] if asked.all_clusters else [*dict.fromkeys(asked.cluster or ())]
        if bool(clusters) != bool(asked.role):
            raise UsageError("a role and the clusters it is for go together", field="role")
        if asked.grant and not clusters:
            raise UsageError("a grant goes with a role", field="grant")
        if unknown := {*clusters} - {ALL_CLUSTERS, *settings.CLUSTERS}:
            known = ", ".join(settings.CLUSTERS)
            raise NotFound(f"there is no cluster {', '.join(sorted(unknown))}; known: {known}")
        user = accounts.create(
            asked.name,
            _read_password(asked),
            wanted=[RoleWanted(one, asked.role, tuple(asked.grant)) for one in clusters],
            email=asked.email,
            may_sign_in=not asked.api_only,
        )
        self._show(user)
        if not clusters:
            self.say("Without a role the user sees nothing: manage.py roles give user NAME …")

    def list_users(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        users = get_user_model()._default_manager.prefetch_related("cluster_roles", "groups")
        documents = [_to_json(user) for user in users.order_by("username")]
        columns = ("name", "is_active", "is_superuser", "may_sign_in", "roles", "groups")
        self.show(
            {"items": documents},
            lambda: self.print_table(
                (*columns, "last_login_at"),
                (
                    (
                        *(_cell(one, name) for name in columns),
                        one["last_login_at"],
                    )
                    for one in documents
                ),
            ),
        )

    def password(self, asked: Namespace) -> None:
        user = _find(asked)
        accounts.set_password(user, _read_password(asked))
        self._show(user)
        self.say("Who was signed in with the password before is signed out; tokens ended with it.")

    def deactivate(self, asked: Namespace) -> None:
        self._set_active(asked, False)

    def activate(self, asked: Namespace) -> None:
        self._set_active(asked, True)

    def _set_active(self, asked: Namespace, is_active: bool) -> None:
        if not accounts.set_active(_find(asked), is_active):
            self.say(f"{asked.name} is so already.")
        self._show(_find(asked))

    def _show(self, user: Any) -> None:
        document = _to_json(user)
        self.show(
            document, lambda: self.print_record({name: _cell(document, name) for name in document})
        )


def _to_json(user: Any) -> dict[str, Any]:
    return {
        "name": user.get_username(),
        "email": user.email,
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "may_sign_in": user.is_staff,
        "roles": [
            {"cluster": row.cluster_id, "role": row.role, "granted_kinds": row.granted_kinds}
            for row in sorted(user.cluster_roles.all(), key=lambda row: row.cluster_id)
        ],
        "groups": sorted(group.name for group in user.groups.all()),
        "created_at": user.date_joined.isoformat(),
        "last_login_at": user.last_login and user.last_login.isoformat(),
    }


def _cell(document: dict[str, Any], name: str) -> Any:
    if name != "roles":
        return document[name]
    return [f"{one['role']} on {one['cluster']}" for one in document["roles"]]


def _find(asked: Namespace) -> Any:
    check_database_is_there(CONTROL)
    users = get_user_model()._default_manager
    user = (
        None if "\0" in asked.name else users.filter(username=accounts.normal(asked.name)).first()
    )
    if user is None:
        raise NotFound(f"there is no user named {asked.name[:100]!r}")
    return user


def _read_password(asked: Namespace) -> str:
    """From stdin or the terminal: arguments are seen by everybody on the host."""
    if asked.password_stdin:
        try:
            # Python's own text stream would take any byte, as half of a character.
            text = sys.stdin.buffer.read(MOST_READ).decode()
        except UnicodeDecodeError:
            raise UsageError("the password is no UTF-8", field="password") from None
        # The end of the line is not of the password.
        password = text.removesuffix("\n").removesuffix("\r")
    elif sys.stdin.isatty():
        try:
            password, again = getpass.getpass("Password: "), getpass.getpass("Again: ")
            _bytes(password).decode()
        except EOFError:
            raise UsageError("no password was typed", field="password") from None
        except UnicodeDecodeError:
            raise UsageError("the password is no UTF-8", field="password") from None
        if not compare_digest(_bytes(again), _bytes(password)):
            raise UsageError("the two are not the same", field="password")
    else:
        raise UsageError(
            "say --password-stdin where no terminal can ask for the password", field="password"
        )
    if not password or "\n" in password or "\0" in password:
        raise UsageError("a password is one line of text", field="password")
    return password


def _bytes(typed: str) -> bytes:
    """What was typed: a terminal's bytes may be no text."""
    return typed.encode(errors="surrogateescape")
