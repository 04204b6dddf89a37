"""Make, list, rotate and revoke API keys."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings

from authn.api.keys import key_to_json
from authn.keys import change_key, create_key, digest_of, rotate_key
from authn.management.role_arguments import add_clusters, add_grants
from authn.models import ALL_CLUSTERS, ApiKey, Role
from clusters.management.base import (
    Conflict,
    NotFound,
    UsageError,
    check_database_is_there,
    duration,
    moment,
)
from clusters.routers import CONTROL
from jobs.management.base import JobsCommand


class Command(JobsCommand):
    help = "Make, list, rotate and revoke API keys. The text of a key is shown once."
    acts_on_cluster = False

    def add_verbs(self) -> None:
        create = self.verb("create", self.create, "make a key and print it")
        create.add_argument("--name", required=True, help="who will use it; unique")
        create.add_argument("--role", required=True, choices=Role.values)
        add_clusters(create, required=True)
        add_grants(create)
        create.add_argument(
            "--expires", type=_expiry, metavar="30d", help="a duration or a time; never if left out"
        )
        create.add_argument("--owner", default="", help="who answers for it")
        create.add_argument(
            "--from",
            dest="addresses",
            action="append",
            default=[],
            metavar="NETWORK",
            help="an address or network its callers must come from; may be given again",
        )
        self.verb("list", self.list_keys, "all keys, without their texts")
        rotate = self.verb("rotate", self.rotate, "give a key a new text and print it")
        rotate.add_argument("name")
        rotate.add_argument(
            "--grace",
            type=duration,
            default=86400.0,
            metavar="24h",
            help="how long the old text is good too (default 24h; 0s: not at all)",
        )
        self.verb(
            "digest", self.digest, "print the SHA-256 of a key read from stdin, for the auth file"
        )
        change = self.verb("change", self.change, "change what is named of a key")
        change.add_argument("name")
        change.add_argument("--rename", metavar="NAME", help="what it is called from now on")
        change.add_argument("--owner", help="who answers for it")
        when = change.add_mutually_exclusive_group()
        when.add_argument("--expires", type=_expiry, metavar="30d", help="a duration or a time")
        when.add_argument("--never-expires", action="store_true", help="take back its end")
        where = change.add_mutually_exclusive_group()
        where.add_argument(
            "--from",
            dest="addresses",
            action="append",
            metavar="NETWORK",
            help="where its callers must come from, in the place of what was said before",
        )
        where.add_argument("--from-anywhere", action="store_true")
        revoke = self.verb("revoke", self.revoke, "refuse a key from now on, for ever")
        revoke.add_argument("name")
        revoke.add_argument(
            "--yes", action="store_true", help="do not ask; scripts, which cannot answer, need it"
        )

    def create(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        if unknown := set(asked.cluster or ()) - settings.CLUSTERS.keys():
            raise NotFound(
                f"there is no cluster {', '.join(sorted(unknown))}; "
                f"known: {', '.join(settings.CLUSTERS)}"
            )
        key, text = create_key(
            asked.name,
            role=asked.role,
            clusters=[ALL_CLUSTERS] if asked.all_clusters else asked.cluster,
            grants=asked.grant,
            expires=asked.expires,
            owner=asked.owner,
            addresses=asked.addresses,
        )
        self.show({**key_to_json(_read(key.name)), "key": text}, lambda: self.stdout.write(text))
        self.say("Keep it safe: this text cannot be shown again.")

    def list_keys(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        documents = [
            key_to_json(key)
            for key in ApiKey.objects.prefetch_related("role_bindings").order_by("name")
        ]
        self.show(
            {"items": documents},
            lambda: self.print_table(
                ("name", "owner", "state", "roles", "grants", "from", "used", "expires"),
                (
                    (
                        key["name"],
                        key["owner"],
                        key["state"],
                        [f"{binding['role']} on {binding['cluster']}" for binding in key["roles"]],
                        sorted({kind for b in key["roles"] for kind in b["granted_kinds"]}),
                        key["addresses"],
                        key["last_used_at"],
                        key["expires_at"],
                    )
                    for key in documents
                ),
            ),
        )

    def rotate(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        key = _read(asked.name)
        text = rotate_key(key, timedelta(seconds=asked.grace))
        if text is None:
            raise Conflict(f"the key {asked.name!r} is not valid any more")
        self.show({**key_to_json(_read(key.name)), "key": text}, lambda: self.stdout.write(text))
        self.say("Keep it safe: this text cannot be shown again.")

    def change(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        key = _read(asked.name)
        named = {"name": asked.rename, "owner": asked.owner, "expires_at": asked.expires}
        values: dict[str, Any] = {k: value for k, value in named.items() if value is not None}
        if asked.never_expires:
            values["expires_at"] = None
        if asked.addresses or asked.from_anywhere:
            values["addresses"] = asked.addresses or []
        if not values:
            raise UsageError("names nothing to change")
        if not change_key(key, values):
            self.say(f"{asked.name} is so already.")
        document = key_to_json(_read(values.get("name", asked.name)))
        self.show(document, lambda: self.print_record(document))

    def digest(self, asked: Namespace) -> None:
        text = sys.stdin.readline().strip()
        if not text:
            raise UsageError("no key on stdin")
        found = digest_of(text).hex()
        self.show({"sha256": found}, lambda: self.stdout.write(found))

    def revoke(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        key = _read(asked.name)
        self.confirm(f"Revoke the key {asked.name!r}?", is_confirmed=asked.yes)
        if not ApiKey.objects.filter(pk=key.pk).revoke():
            raise Conflict(f"the key {asked.name!r} was revoked before")
        document = key_to_json(_read(asked.name))
        self.show(document, lambda: self.stdout.write(f"{asked.name} revoked"))


def _read(name: str) -> ApiKey:
    try:
        return ApiKey.objects.prefetch_related("role_bindings").get(name=name)
    except ApiKey.DoesNotExist:
        raise NotFound(f"there is no key named {name[:100]!r}") from None


def _expiry(text: str) -> datetime:
    try:
        seconds = duration(text)
    except ArgumentTypeError:
        when = moment(text)
    else:
        when = datetime.now(UTC) + timedelta(seconds=seconds)
    if when <= datetime.now(UTC):
        raise ArgumentTypeError("a key must expire in the future")
    return when
