"""`make screenshots`: fill a cluster with the demo, and take the pictures that the documents show.

Nothing but a server runs: the day stays as it was filled in, so that the same seed gives the same
pictures, as far as the time of day goes.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.processes import ROOT, free_port
from tests.ui.browser import chromium, visit

WHERE = ROOT / "docs" / "screens"
HEIGHT = 860
MOST_BYTES = 150_000
START_SECONDS = 120
CLUSTERS = ("notifications", "payroll")
CLUSTER = """
[clusters.{id}]
title = "{name}"
database_url = "sqlite:///{home}/{id}.sqlite3"
"""
PASSWORD = "a password of the pictures"


class Picture(NamedTuple):
    name: str
    path: str
    width: int = 1280
    scheme: str = "light"
    # The first link that leads from there to what is shown.
    follow: str = ""


PICTURES = (
    Picture("fleet", "/admin/"),
    Picture("now", "/admin/notifications/"),
    Picture("failures", "/admin/notifications/failures/"),
    Picture(
        "failure",
        "/admin/notifications/failures/",
        follow=".ui-table a[href*='/failures/']:not([href*='/held/'])",
    ),
    Picture("jobs", "/admin/notifications/jobs/"),
    Picture(
        "job",
        "/admin/notifications/jobs/?state=failed&type=digest:build",
        scheme="dark",
        follow=".ui-table .ui-lead a",
    ),
    Picture("queues", "/admin/notifications/queues/"),
    Picture("nodes", "/admin/notifications/nodes/"),
    Picture("schedules", "/admin/notifications/schedules/"),
    Picture(
        "workflow", "/admin/notifications/workflows/", follow=".ui-table a[href*='/workflows/']"
    ),
    Picture("audit", "/admin/notifications/governance/"),
    Picture("roles", "/admin/governance/", scheme="dark"),
    Picture("keys", "/admin/governance/keys/"),
    Picture("phone", "/admin/notifications/failures/", width=390, scheme="dark"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ui.screenshots", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--to", type=Path, default=WHERE, help="default: docs/screens")
    parser.add_argument("--format", choices=("webp", "png"), default="webp")
    parser.add_argument("--only", default="", help="names of pictures, with commas between")
    asked = parser.parse_args()
    wanted = [one for one in PICTURES if not asked.only or one.name in asked.only.split(",")]
    asked.to.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="yardmaster-screens-") as home,
        _served(Path(home), asked.jobs) as address,
        chromium() as browser,
    ):
        for picture in wanted:
            taken = _take(browser, address, picture, asked.format)
            file = asked.to / f"{picture.name}.{asked.format}"
            file.write_bytes(taken)
            print(f"{file.name}: {len(taken) / 1000:.0f} kB")
            if asked.format == "webp" and len(taken) > MOST_BYTES:
                sys.exit(f"{file.name} is too large for the repository")


@contextmanager
def _served(home: Path, jobs: int) -> Iterator[str]:
    """A server on the demo, without any node."""
    port = free_port()
    for name in ("secret-key", "secrets-key"):
        (home / name).write_text(base64.urlsafe_b64encode(os.urandom(48)).decode() + "\n")
    config = home / "clusters.toml"
    config.write_text(
        "".join(CLUSTER.format(id=id_, name=id_.title(), home=home) for id_ in CLUSTERS)
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("YARDMASTER_")}
    environment = {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "YARDMASTER_HOME": str(home),
        "YARDMASTER_CONFIG": str(config),
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    _manage(environment, "migrate", "--skip-checks", "--verbosity", "0")
    _manage(environment, "createsuperuser", "--noinput", "--username", "admin", "--email", "")
    _manage(environment, "demo", "--jobs", str(jobs))
    bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
    command = [sys.executable, "manage.py", "serve", *bind]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _manage(environment: dict[str, str], *words: str) -> None:
    subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=environment, check=True)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/livez")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    sys.exit("the server does not answer")


def _take(browser: Any, address: str, picture: Picture, image: str) -> bytes:
    with visit(browser, address, width=picture.width, scheme=picture.scheme) as visitor:
        page = visitor.page
        page.set_viewport_size({"width": picture.width, "height": HEIGHT})
        page.set_default_timeout(120_000)
        visitor.sign_in("admin", PASSWORD)
        visitor.go(picture.path)
        if picture.follow:
            page.locator(picture.follow).first.click()
        page.wait_for_load_state("networkidle")
        if visitor.complaints:
            sys.exit(f"{picture.name}: {json.dumps(visitor.complaints)}")
        session = page.context.new_cdp_session(page)
        about: dict[str, Any] = {"format": image}
        if image == "webp":
            about["quality"] = 82
        shot = session.send("Page.captureScreenshot", about)
        return base64.b64decode(shot["data"])


def names() -> Sequence[str]:
    """The files that a run leaves."""
    return [f"{picture.name}.webp" for picture in PICTURES]
