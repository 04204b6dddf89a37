"""Start real processes of ours against the test databases. Their tests need `transactional_db`."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db import connections

from clusters.registry import alias_of

ROOT = Path(__file__).resolve().parent.parent


def database_url(alias: str) -> str:
    """The address of a database as it is now: of this run, and of this pytest-xdist worker."""
    database = connections[alias].settings_dict
    if connections[alias].vendor == "sqlite":
        return f"sqlite:///{quote(str(database['NAME']))}"
    user = quote(database["USER"], safe="")
    if database["PASSWORD"]:
        user += ":" + quote(database["PASSWORD"], safe="")
    host = database["HOST"] + (f":{database['PORT']}" if database["PORT"] else "")
    query = {k: v for k, v in database["OPTIONS"].items() if k in ("host", "port", "sslmode")}
    return f"postgresql://{user}@{host}/{quote(database['NAME'])}?{urlencode(query)}"


def worker_environment(**variables: str) -> dict[str, str]:
    """The environment in which a `manage.py` of ours works on the very databases of this test."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("YARDMASTER_")}
    clusters = (f"{name}={database_url(alias_of(name))}" for name in settings.CLUSTERS)
    return {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONUNBUFFERED": "1",
        "YARDMASTER_HOME": str(settings.HOME),
        "YARDMASTER_SECRET_KEY": settings.SECRET_KEY,
        "YARDMASTER_SECRETS_KEY": ",".join(settings.SECRETS_KEYS),
        "YARDMASTER_DATABASE_URL": database_url("default"),
        "YARDMASTER_CLUSTERS": ",".join(clusters),
        "YARDMASTER_REQUESTS_PER_SECOND": "0",
        **variables,
    }


def manage(
    *arguments: str,
    env: dict[str, str] | None = None,
    input: str | None = None,  # noqa: A002  as subprocess calls it
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=worker_environment() if env is None else env,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def started(
    *arguments: str, env: dict[str, str] | None = None, grace: float = 10
) -> Iterator[subprocess.Popen[str]]:
    """Run `manage.py` beside the block; afterwards nothing of its process group is left."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=worker_environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_group(process)
            if process.stdout is not None:
                process.stdout.close()


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port nobody listens on at this moment.

    Below those that the system gives to connections, one of which might have it before the server has.
    """
    while True:
        port = random.randrange(11_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
