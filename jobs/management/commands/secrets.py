"""Keep named secrets of a cluster; nobody reads them back."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from clusters.binding import current_cluster
from clusters.deeds import traced
from clusters.management.base import UsageError, operator
from jobs.api.secrets import secret_to_json
from jobs.engine.reseal import reseal
from jobs.management.base import JobsCommand
from jobs.models import Secret


class Command(JobsCommand):
    help = "Keep named secrets of a cluster; nobody reads them back."

    def add_verbs(self) -> None:
        self.verb("list", self.list_secrets, "the names of all secrets")
        parser = self.verb("set", self.put, "keep a secret, or put another value in its place")
        parser.add_argument("name")
        self._add_value(parser)
        parser.add_argument("--description", default=None)
        self.verb("delete", self.delete, "forget a secret").add_argument("name")
        self.verb(
            "reseal",
            self.reseal,
            "encrypt all that is encrypted with the first of the keys in YARDMASTER_SECRETS_KEY",
        )

    def _add_value(self, parser: ArgumentParser) -> None:
        """The value is no argument: every process of a host can read those of the others."""
        parser.add_argument(
            "--from-file",
            type=Path,
            help="the value; else standard input, or asked for on a terminal",
        )

    def list_secrets(self, asked: Namespace) -> None:
        found = [secret_to_json(secret) for secret in Secret.objects.order_by("name")]
        columns = ("name", "description", "updated_at", "updated_by", "is_under_first_key")
        self.show(
            {"items": found, "next": None, "previous": None},
            lambda: self.print_table(columns, ([one[c] for c in columns] for one in found)),
        )

    def put(self, asked: Namespace) -> None:
        value, secrets = self._value(asked), Secret.objects.all()
        more = {} if asked.description is None else {"description": asked.description}
        with traced("secrets.write", "secret", asked.name) as trace:
            if secrets.filter(name=asked.name).exists():
                secrets.change(asked.name, value=value, by=operator(), **more)
            else:
                secrets.create_secret(asked.name, value, by=operator(), **more)
            trace.after = {"has_new_value": True}
        document = secret_to_json(secrets.get(name=asked.name))
        self.show(document, lambda: self.print_record(document))

    def _value(self, asked: Namespace) -> str:
        try:
            if asked.from_file is not None:
                text: str = asked.from_file.read_text()
            elif sys.stdin.isatty():
                return getpass.getpass("Value: ")
            else:
                text = sys.stdin.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the value cannot be read: {error}", field="value") from None
        # The end of the last line is of the file, not of the value.
        return text.removesuffix("\n").removesuffix("\r")

    def delete(self, asked: Namespace) -> None:
        Secret.objects.all().delete_secret(asked.name)
        self.show({"deleted": 1}, lambda: self.say(f"{asked.name} is deleted."))

    def reseal(self, asked: Namespace) -> None:
        # In batches, each a transaction of its own; what is done stays done.
        done = reseal(current_cluster().alias)
        with traced("secrets.write", "secret", "*") as trace:
            trace.after = done
        self.show(done, lambda: self.print_record(done))
