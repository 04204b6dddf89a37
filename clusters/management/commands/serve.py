"""Answer HTTP: the API and the pages, under gunicorn. No work runs here, and no thread is started."""

from __future__ import annotations

import logging
import ssl
import warnings
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, connections

from clusters.binding import cluster_bound
from clusters.errors import UnsoundSettings
from clusters.management.addresses import Address, address
from clusters.management.base import CommandFailed, check_database_is_there
from clusters.models import ClusterSetting
from clusters.processes import forbid_inspection
from config import metrics_directory
from config.server import Server

logger = logging.getLogger(__name__)

DEFAULT_BIND = Address("127.0.0.1", 8080)


class Command(BaseCommand):
    help = "Serve the API and the pages. SIGTERM or Ctrl-C lets running requests end."
    # Checked below, once the flags are known.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("--bind", type=address, default=DEFAULT_BIND, help=f"default {DEFAULT_BIND}")
        add("--workers", type=whole(1, 64), default=2, help="processes (default 2)")
        add("--tls-cert", metavar="PEM", help="certificate chain; needs --tls-key")
        add("--tls-key", metavar="PEM")
        add("--tls-client-ca", metavar="PEM", help="demand client certificates of this authority")
        add(
            "--max-body",
            type=whole(1024, 64 << 20),
            default=settings.MAX_BODY_BYTES,
            metavar="BYTES",
            help=f"largest request body (default {settings.MAX_BODY_BYTES})",
        )
        add(
            "--read-timeout",
            type=seconds,
            default=30,
            metavar="SECONDS",
            help="for all of a request to arrive, such as 30, 30s or 2m (default 30)",
        )
        add(
            "--write-timeout",
            type=seconds,
            default=30,
            metavar="SECONDS",
            help="for each part of an answer to leave (default 30)",
        )
        add(
            "--unsafe-bind",
            action="store_true",
            help="allow an address others can reach while anonymous callers are let in",
        )
        add("--queue", metavar="NAME", help="queue of tasks of asyncjobs clients that name none")
        add(
            "--allow-create-default",
            action="store_true",
            help="let asyncjobs clients have a queue DEFAULT, made where it is missing",
        )
        add("--access-log", action="store_true", help="a JSON object for each request, on stdout")
        add("--pid-file", metavar="PATH")

    def handle(self, *args: Any, **options: Any) -> None:
        problems = refusals(options)
        if not problems and (problem := options["bind"].problem()):
            problems.append(problem)
        if problems:
            raise CommandError("not started:\n" + "\n".join(f"  - {text}" for text in problems))
        settings.MAX_BODY_BYTES = options["max_body"]
        if options["tls_cert"]:
            settings.USE_TLS = True
            settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
            settings.SECURE_HSTS_SECONDS = settings.SECURE_HSTS_SECONDS or 31_536_000
        settings.CLIENT_CERTIFICATES = bool(options["tls_client_ca"])
        if options["unsafe_bind"] and not options["bind"].is_loopback:
            logger.warning("--unsafe-bind: %s is open to others", options["bind"])
        # Before anything counts.
        with metrics_directory.made(settings.HOME):
            self._serve(options)

    def _serve(self, options: dict[str, Any]) -> None:
        # Static files are found in the apps; a directory of collected ones is not needed.
        warnings.filterwarnings("ignore", message="No directory at", category=UserWarning)
        settings.ASYNCJOBS_QUEUE = options["queue"] or settings.ASYNCJOBS_QUEUE
        settings.ASYNCJOBS_ALLOW_DEFAULT |= options["allow_create_default"]
        self.check()
        persist_explicit_settings(by="serve")
        prepare_task_queue()
        # Programs that jobs start may run as our own user, and must not read our environment.
        forbid_inspection()
        Server(options).run()


def whole(low: int, high: int) -> Any:
    """An argument type: a whole number between two limits."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text[:12]) <= high:
            return int(text)
        raise ArgumentTypeError(f"{text[:20]!r} is no whole number from {low} to {high}")

    return parse


def seconds(text: str) -> int:
    """An argument type: from a second to an hour, in whole seconds, bare or with the unit s or m."""
    number, factor = text.removesuffix("s"), 1
    if text.endswith("m"):
        number, factor = text.removesuffix("m"), 60
    if number.isascii() and number.isdigit() and 1 <= int(number[:12]) * factor <= 3600:
        return int(number) * factor
    raise ArgumentTypeError(f"{text[:20]!r} is no time from 1s to 60m")


def refusals(options: dict[str, Any]) -> list[str]:
    """Why this configuration must not be served."""
    bind, problems = options["bind"], []
    if settings.SECRET_KEY_IS_EPHEMERAL:
        problems.append(
            "no secret key: set YARDMASTER_SECRET_KEY or YARDMASTER_SECRET_KEY_FILE "
            "(50 random characters), or let `manage.py up` make one"
        )
    if settings.DEBUG and not bind.is_loopback:
        problems.append(f"YARDMASTER_DEBUG is on and others can reach {bind}")
    # Surfaces that answer callers without credentials; none does unless its setting says so.
    open_by = [
        variable
        for variable, is_open in (
            ("YARDMASTER_ANONYMOUS", settings.ANONYMOUS_ROLES),
            ("YARDMASTER_REQUIRE_AUTHENTICATION", not settings.REQUIRE_AUTHENTICATION),
        )
        if is_open
    ]
    is_guarded = bind.is_loopback or options["unsafe_bind"] or options["tls_client_ca"]
    if open_by and not is_guarded:
        problems.append(
            f"anonymous callers are let in ({', '.join(open_by)}) and others can reach {bind}; "
            "say --unsafe-bind or --tls-client-ca"
        )
    return problems + _tls_problems(options)


def _tls_problems(options: dict[str, Any]) -> list[str]:
    certificate, key, authority = (options[f"tls_{name}"] for name in ("cert", "key", "client_ca"))
    if bool(certificate) != bool(key):
        return ["--tls-cert and --tls-key go together"]
    if authority and not certificate:
        return ["--tls-client-ca needs --tls-cert and --tls-key"]
    if not certificate:
        return []
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        if authority:
            context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        return [f"TLS: {error} (of {certificate}, {key} or {authority or 'no client authority'})"]
    return []


def prepare_task_queue() -> None:
    """See to the queue of tasks that name none; of a cluster that is down nothing is known."""
    from jobs.dialects.asyncjobs.start import prepare_queue

    cluster = settings.CLUSTERS[settings.DEFAULT_CLUSTER_ID]
    problem = None
    try:
        check_database_is_there(cluster.alias)
        with cluster_bound(cluster.id):
            problem = prepare_queue()
    except (CommandFailed, DatabaseError, InterfaceError) as error:
        logger.warning("the queue for asyncjobs clients was not looked for: %s", error)
    connections.close_all()
    if problem:
        raise CommandError(f"not started:\n  - --queue: {problem}")


def persist_explicit_settings(*, by: str) -> None:
    """Write what this process's configuration sets; a cluster that is down gets it at another start."""
    for cluster in settings.CLUSTERS.values():
        if not cluster.explicit_settings:
            continue
        try:
            check_database_is_there(cluster.alias)
            with cluster_bound(cluster.id):
                ClusterSetting.objects.all().persist(cluster.explicit_settings, by=by)
        except UnsoundSettings as error:
            raise CommandError(
                f"not started:\n  - the settings of {cluster.id} do not fit together with its "
                f"persisted ones: {error}"
            ) from None
        except (CommandFailed, DatabaseError, InterfaceError) as error:
            logger.warning("the settings of cluster %s were not stored: %s", cluster.id, error)
    connections.close_all()
