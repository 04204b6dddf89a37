"""Everything in one terminal: databases, first admin and key, the API and UI, a node per cluster."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from rich.console import Console

from clusters.management.addresses import WILDCARDS, Address, address
from clusters.management.children import Children, run
from clusters.management.commands.serve import DEFAULT_BIND, whole
from clusters.management.installation import (
    DEMO_CLUSTERS,
    Credentials,
    make_credentials,
    make_home,
    make_secret_key,
    make_work_keys,
    write_demo_clusters,
)
from clusters.processes import forbid_inspection

START_SECONDS = 60
# A node ends by itself within its grace, 25 s unless set; this is for one that hangs.
STOP_SECONDS = 60
# A process that was killed earlier than this is not started again.
SOON_SECONDS = 3.0
LIVE_PATH = "/livez"
DEMO_HANDLERS = "jobs.demo.handlers"


class Command(BaseCommand):
    help = (
        "Run everything on this machine: create what is missing below YARDMASTER_HOME, then serve "
        "the API and the pages and run a node for each cluster, until Ctrl-C."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--bind", type=address, default=DEFAULT_BIND, help="default %(default)s"
        )
        parser.add_argument(
            "--workers", type=whole(1, 64), default=2, help="processes that serve (default 2)"
        )
        parser.add_argument(
            "--concurrency",
            type=whole(1, 64),
            default=2,
            help="jobs at a time per node (default 2)",
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            help="fill clusters that have no job yet with a day that might have been",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.console = Console(no_color="NO_COLOR" in os.environ or options["no_color"])
        self.stops = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        bind: Address = options["bind"]
        if problem := bind.problem():
            raise CommandError(problem)
        if not bind.is_loopback:
            self.stderr.write(
                f"Warning: others can reach {bind}. The API key and the admin made here may run "
                "programs on this machine; `manage.py serve` and `worker` start without either."
            )
        make_home(settings.HOME)
        forbid_inspection()
        with _only_one(settings.HOME):
            self._run(bind, options)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def _run(self, bind: Address, options: dict[str, Any]) -> None:
        make_secret_key(settings.HOME)
        make_work_keys(settings.HOME)
        environment = _environment(bind)
        clusters = _clusters(environment)
        with self._step("Preparing the databases"):
            done = run(environment, "migrate", "--skip-checks")
        if done.returncode:
            sys.stderr.write(done.stdout)
            raise CommandError("the databases could not be prepared; see above")
        if options["demo"]:
            self._fill(environment)
        credentials, is_first = make_credentials(settings.HOME, f"http://{bind.local}")
        connections.close_all()

        children = Children(environment)
        try:
            children.start(
                "serve", "serve", "--bind", str(bind), "--workers", str(options["workers"])
            )
            for cluster_id in clusters:
                children.start(
                    f"worker of {cluster_id}",
                    *("worker", "--cluster", cluster_id, "--enable-shell"),
                    *("--concurrency", str(options["concurrency"])),
                )
            with self._step("Starting"):
                is_up = self._wait_until_live(bind.local, children)
            if is_up:
                if is_first and not options["demo"]:
                    self._submit_first_jobs(bind.local, clusters, credentials)
                self._tell(credentials, clusters, _source(environment), is_first)
                self._watch(children)
        finally:
            killed = self._stop(children)
        if dead := [name for name, _ in self.dead if name not in killed]:
            raise CommandError(f"{', '.join(dead)} ended by itself; everything was stopped")

    # -- Running ----------------------------------------------------------------------------------

    dead: list[tuple[str, int]] = []

    def _wait_until_live(self, local: Address, children: Children) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while not self.stops:
            if self._somebody_died(children):
                return False
            if _is_live(local):
                return True
            if time.monotonic() > deadline:
                raise CommandError(f"no answer from http://{local}{LIVE_PATH}; stopped")
            time.sleep(0.1)
        return False

    def _watch(self, children: Children) -> None:
        while not self.stops:
            self._replace_killed(children)
            if self._somebody_died(children):
                return
            time.sleep(0.2)

    def _replace_killed(self, children: Children) -> None:
        """A node may die at any time, and its jobs go on with the next: show that it is so.

        One that ends soon after its start would only do so again.
        """
        for name, code in children.dead():
            if code < 0 and children.age_seconds(name) > SOON_SECONDS and self.stops == 0:
                self.stderr.write(f"{name} was ended by signal {-code}; starting another")
                children.start_again(name)

    def _somebody_died(self, children: Children) -> bool:
        self.dead = children.dead()
        for name, code in self.dead:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.stderr.write(f"{name} has ended ({how}); stopping the rest")
        return bool(self.dead)

    def _stop(self, children: Children) -> list[str]:
        asked = self.stops
        with self._step("Stopping (again Ctrl-C: at once)"):
            killed = children.stop(STOP_SECONDS, lambda: self.stops > asked)
        if killed:
            self.stderr.write(f"did not end when asked, killed: {', '.join(killed)}")
        return killed

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        if not self.console.is_terminal:
            self.console.print(f"{what} ...")
            yield
            return
        with self.console.status(what):
            yield

    def _fill(self, environment: dict[str, str]) -> None:
        """The demo, and its work for the nodes that are about to start."""
        handlers = [*settings.HANDLERS, DEMO_HANDLERS]
        environment["YARDMASTER_HANDLERS"] = ",".join(dict.fromkeys(handlers))
        connections.close_all()
        self.console.print("Filling the clusters with a day ...")
        if run(environment, "demo", "--if-empty", is_shown=True).returncode:
            raise CommandError("the demo could not be written; see above")

    # -- First jobs -------------------------------------------------------------------------------

    def _submit_first_jobs(
        self, local: Address, clusters: list[str], credentials: Credentials
    ) -> None:
        with self._step("Submitting the first jobs"):
            for number, job in enumerate(_first_jobs(local)):
                cluster_id = clusters[number % len(clusters)]
                path = f"{settings.BASE_PATH.rstrip('/')}/{cluster_id}/jobs"
                status, body = _post(local, path, job, credentials.api_key)
                if status >= 300:
                    self.stderr.write(f"{cluster_id} refused a {job['kind']} job: {status} {body}")
                    continue
                about = job.get("type") or job["kind"]
                self.console.print(
                    f"  {cluster_id}: {about} is job {json.loads(body).get('id')}", highlight=False
                )

    def _tell(
        self, credentials: Credentials, clusters: list[str], source: str, is_first: bool
    ) -> None:
        url, base = credentials.url, settings.BASE_PATH.rstrip("/")
        file = settings.HOME / "dev-credentials.json"
        read_key = f"import json; print(json.load(open('{file}'))['api_key'])"
        lines = [
            "",
            f"Yardmaster is up at {url}",
            f"  Admin     {url}/admin/",
            f"  API       {url}{base}/swagger",
            f"  Clusters  {', '.join(clusters)}, from {source}",
            f"  Secrets   {file} (admin's password, API key)",
        ]
        if is_first:
            # Shown this once; afterwards they are in the file only.
            lines += [
                f"            {credentials.admin_user} / {credentials.admin_password}",
                f"            {credentials.api_key}",
            ]
        elif credentials.admin_password is None:
            lines.append(
                "            the password is not known any more; make a new one: "
                f"manage.py changepassword {credentials.admin_user}"
            )
        lines += [
            "            The key is admin of all clusters and may run shell jobs, which the nodes",
            "            here accept, and containers where YARDMASTER_CONTAINER_ENGINE names an",
            "            engine: for this machine only.",
            "",
            "See the jobs:",
            f'  KEY=$({sys.executable} -c "{read_key}")',
        ]
        lines += [
            f'  curl -H "{settings.API_KEY_HEADER}: $KEY" {url}{base}/{cluster_id}/jobs'
            for cluster_id in clusters[:2]
        ]
        lines += ["", "Ctrl-C stops everything."]
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Two of these on the same files would run everything twice."""
    with (home / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(f"another `manage.py up` is running on {home}") from None
        yield


def _environment(bind: Address) -> dict[str, str]:
    """This process's own environment, with the demo clusters where it names none."""
    environment = {**os.environ, "YARDMASTER_HOME": str(settings.HOME), "PYTHONUNBUFFERED": "1"}
    named = ("YARDMASTER_CLUSTERS", "YARDMASTER_CLUSTERS_FILE", "YARDMASTER_CONFIG")
    if not any(environment.get(name) for name in named):
        environment["YARDMASTER_CONFIG"] = str(write_demo_clusters(settings.HOME))
    environment["YARDMASTER_HTTP_ALLOW"] = ",".join([*settings.HTTP_ALLOW, str(bind.local)])
    if not bind.is_loopback and bind.host not in WILDCARDS:
        hosts = [*settings.ALLOWED_HOSTS, bind.host]
        environment["YARDMASTER_ALLOWED_HOSTS"] = ",".join(dict.fromkeys(hosts))
    return environment


def _source(environment: dict[str, str]) -> str:
    """Where the clusters come from; what the environment names counts, wherever the home is."""
    named = [
        *(["YARDMASTER_CLUSTERS"] if environment.get("YARDMASTER_CLUSTERS") else []),
        *(["YARDMASTER_CLUSTERS_FILE"] if environment.get("YARDMASTER_CLUSTERS_FILE") else []),
    ]
    if file := environment.get("YARDMASTER_CONFIG"):
        path = Path(file).resolve()
        is_ours = path == settings.HOME / "clusters.toml"
        named.append(str(path) if is_ours else f"{path} (YARDMASTER_CONFIG)")
    return " and ".join(named)


def _clusters(environment: dict[str, str]) -> list[str]:
    is_demo = environment.get("YARDMASTER_CONFIG") == str(settings.HOME / "clusters.toml")
    return [*DEMO_CLUSTERS] if is_demo else [*settings.CLUSTERS]


def _first_jobs(local: Address) -> list[dict[str, Any]]:
    return [
        {"kind": "python", "type": "demo:echo", "payload": {"hello": "world"}},
        {"kind": "http", "payload": {"method": "GET", "url": f"http://{local}{LIVE_PATH}"}},
        {"kind": "shell", "payload": {"argv": ["echo", "hello from a shell job"]}},
        {"kind": "python", "type": "demo:fail", "payload": {"times": 2}, "max_attempts": 5},
    ]


def _is_live(local: Address) -> bool:
    try:
        status, _ = _request(local, "GET", LIVE_PATH, timeout=2)
    except OSError:
        return False
    return status == 200


def _post(local: Address, path: str, document: dict[str, Any], api_key: str) -> tuple[int, str]:
    headers = {"content-type": "application/json", settings.API_KEY_HEADER: api_key}
    return _request(local, "POST", path, json.dumps(document).encode(), headers)


def _request(
    local: Address,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30,
) -> tuple[int, str]:
    """Ask our own server, past any proxy that the environment names."""
    connection = http.client.HTTPConnection(local.host, local.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"not an HTTP answer: {error}") from error
    finally:
        connection.close()
