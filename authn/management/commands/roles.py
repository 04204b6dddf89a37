"""Give roles to users, groups and API keys, take them away, and list them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.conf import settings

from authn import roles
from authn.management.role_arguments import add_grants
from authn.models import ALL_CLUSTERS, Role
from authn.roles import HOLDERS, Holder
from clusters.management.base import (
    Conflict,
    NotFound,
    UsageError,
    check_database_is_there,
)
from clusters.routers import CONTROL
from jobs.management.base import JobsCommand


class Command(JobsCommand):
    help = "Who may do what: roles of users, of groups and of API keys, on one cluster or on all."
    acts_on_cluster = False

    def add_verbs(self) -> None:
        give = self.verb("give", self.give, "give a role; it takes the place of the one before")
        self._add_whom(give)
        give.add_argument("--role", required=True, choices=Role.values)
        add_grants(give)
        take = self.verb("take", self.take, "take a role away")
        self._add_whom(take)
        listed = self.verb("list", self.list_roles, "the roles of one of them")
        self._add_holder(listed)

    def _add_whom(self, parser: ArgumentParser) -> None:
        self._add_holder(parser)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--cluster", metavar="ID", help="the cluster it is for")
        where.add_argument("--all-clusters", action="store_true", help="for all, later ones too")

    def _add_holder(self, parser: ArgumentParser) -> None:
        parser.add_argument("sort", choices=HOLDERS)
        parser.add_argument("name")

    def give(self, asked: Namespace) -> None:
        holder, cluster_id = _holder(asked), _cluster(asked)
        if not roles.give(holder, cluster_id, asked.role, asked.grant):
            self.say(f"{asked.sort} {asked.name} has that already.")
        self._show(holder)

    def take(self, asked: Namespace) -> None:
        holder, cluster_id = _holder(asked), _cluster(asked)
        if not roles.take(holder, cluster_id):
            raise Conflict(f"{asked.sort} {asked.name} has no role that was given for {cluster_id}")
        self._show(holder)

    def list_roles(self, asked: Namespace) -> None:
        self._show(_holder(asked))

    def _show(self, holder: Holder) -> None:
        items = [
            {"cluster": row.cluster_id, "role": row.role, "granted_kinds": row.granted_kinds}
            for row in holder.roles().order_by("cluster_id")
        ]
        document: dict[str, Any] = {"sort": holder.sort, "name": holder.name, "roles": items}
        columns = ("cluster", "role", "granted_kinds")
        self.show(
            document,
            lambda: self.print_table(columns, ([item[name] for name in columns] for item in items)),
        )


def _holder(asked: Namespace) -> Holder:
    check_database_is_there(CONTROL)
    holder = roles.find(asked.sort, asked.name)
    if holder is None:
        raise NotFound(f"there is no {asked.sort} named {asked.name[:100]!r}")
    return holder


def _cluster(asked: Namespace) -> str:
    if asked.all_clusters:
        return ALL_CLUSTERS
    if asked.cluster not in settings.CLUSTERS:
        known = ", ".join(settings.CLUSTERS)
        raise UsageError(f"there is no cluster {asked.cluster!r}; known: {known}", field="cluster")
    return str(asked.cluster)
