"""Make, list and revoke API keys."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from authn.keys import create_key
from authn.models import ALL_CLUSTERS, ApiKey, Role
from clusters.management.base import (
    Conflict,
    NotFound,
    OperatorCommand,
    UsageError,
    check_database_is_there,
    duration,
    moment,
)
from clusters.routers import CONTROL
from jobs.executors import KINDS


class Command(OperatorCommand):
    help = "Make, list and revoke API keys. A key's text is shown once, when it is made."
    acts_on_cluster = False

    def add_verbs(self) -> None:
        create = self.verb("create", self.create, "make a key and print it")
        create.add_argument("--name", required=True, help="who will use it; unique")
        create.add_argument("--role", required=True, choices=Role.values)
        where = create.add_mutually_exclusive_group(required=True)
        where.add_argument("--cluster", action="append", metavar="ID", help="may be given again")
        where.add_argument("--all-clusters", action="store_true", help="also those of the future")
        create.add_argument(
            "--grant",
            action="append",
            default=[],
            choices=sorted(kind.name for kind in KINDS.values() if kind.needs_grant),
            help="a kind of work that no role covers",
        )
        create.add_argument(
            "--expires", type=_expiry, metavar="30d", help="a duration or a time; never if left out"
        )
        self.verb("list", self.list_keys, "all keys, without their texts")
        revoke = self.verb("revoke", self.revoke, "refuse a key from now on, for ever")
        revoke.add_argument("name")
        revoke.add_argument("--yes", action="store_true", help="do not ask")

    def create(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        if unknown := set(asked.cluster or ()) - settings.CLUSTERS.keys():
            raise NotFound(
                f"there is no cluster {', '.join(sorted(unknown))}; "
                f"known: {', '.join(settings.CLUSTERS)}"
            )
        if not 1 <= len(asked.name) <= 100 or not asked.name.isprintable():
            raise UsageError("a name has 1 to 100 printable characters", field="name")
        try:
            with transaction.atomic(using=CONTROL):
                key, text = create_key(
                    asked.name,
                    role=asked.role,
                    clusters=[ALL_CLUSTERS] if asked.all_clusters else asked.cluster,
                    grants=asked.grant,
                    expires=asked.expires,
                )
        except IntegrityError:
            raise Conflict(f"a key named {asked.name!r} exists", code="duplicate_key") from None
        self.show({**_document(_read(key.name)), "key": text}, lambda: self.stdout.write(text))
        self.say("Keep it safe: this text cannot be shown again.")

    def list_keys(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        documents = [
            _document(key)
            for key in ApiKey.objects.prefetch_related("role_bindings").order_by("name")
        ]
        self.show(
            {"items": documents},
            lambda: self.print_table(
                ("name", "status", "roles", "grants", "created", "expires"),
                (
                    (
                        key["name"],
                        key["status"],
                        [f"{binding['role']} on {binding['cluster']}" for binding in key["roles"]],
                        sorted({kind for b in key["roles"] for kind in b["granted_kinds"]}),
                        key["created_at"],
                        key["expires_at"],
                    )
                    for key in documents
                ),
            ),
        )

    def revoke(self, asked: Namespace) -> None:
        check_database_is_there(CONTROL)
        key = _read(asked.name)
        self.confirm(f"Revoke the key {asked.name!r}?", is_confirmed=asked.yes)
        if not ApiKey.objects.filter(pk=key.pk).revoke():
            raise Conflict(f"the key {asked.name!r} was revoked before")
        document = _document(_read(asked.name))
        self.show(document, lambda: self.stdout.write(f"{asked.name} revoked"))


def _read(name: str) -> ApiKey:
    try:
        return ApiKey.objects.prefetch_related("role_bindings").get(name=name)
    except ApiKey.DoesNotExist:
        raise NotFound(f"there is no key named {name[:100]!r}") from None


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "public_id": key.public_id,
        "status": _status(key),
        "roles": [
            {
                "cluster": binding.cluster_id,
                "role": binding.role,
                "granted_kinds": binding.granted_kinds,
            }
            for binding in key.role_bindings.all()
        ],
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
    }


def _status(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return "expired" if expired else "valid"


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


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
