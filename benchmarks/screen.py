"""HTTP: what it costs that many people watch the screen of a cluster with many jobs."""

from __future__ import annotations

import http.client
import re
import secrets
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlencode

import psutil

from benchmarks.bench import Bench
from benchmarks.contestants import Ours
from benchmarks.load import TIMEOUT_SECONDS, Target, read_reply
from benchmarks.producer import CLUSTER
from benchmarks.results import Measurement, percentiles
from benchmarks.web import WORKERS, watched

WATCHERS, TICK_SECONDS = 20, 5.0
QUEUES, READY_SHARE = 50, 10
SITE = f"/admin/{CLUSTER}/"
# What the watchers have open; the charts are asked for less often, see templates/ui/series/slot.html.
PAGES = {
    "fleet": f"{SITE}card/",
    "now": SITE,
    "queues": f"{SITE}queues/",
    "one queue": f"{SITE}queues/q1/",
    "nodes": f"{SITE}nodes/",
}
CHARTS, CHARTS_SECONDS = f"{SITE}series/?range=1h", 15.0
LOADS = 20


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who has signed in."""

    target: Target
    cookies: str

    def connect(self) -> socket.socket:
        return socket.create_connection((self.target.host, self.target.port), TIMEOUT_SECONDS)

    def request(self, path: str, version: str | None) -> bytes:
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: {self.target.host}:{self.target.port}",
            f"Cookie: {self.cookies}",
        ]
        if version is not None:
            head += ["HX-Request: true", f"UI-Version: {version}"]
        return ("\r\n".join(head) + "\r\n\r\n").encode()


@dataclass(slots=True)
class Watched:
    """What some watchers saw in some time."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)


def measure(bench: Bench) -> None:
    for one in bench.contestants:
        if isinstance(one, Ours):
            _measure(bench, one)


def _measure(bench: Bench, ours: Ours) -> None:
    rows = bench.asked.rows
    how = f"{WORKERS} workers, {WATCHERS} watchers every {TICK_SECONDS:g} s"
    cost = bench.add(Measurement("screen", "watched", ours.name, how, "% of a core"))
    pages = {
        name: bench.add(Measurement("screen", f"GET {name}", ours.name, "1 visitor", "ms, p95"))
        for name in PAGES
    }
    ours.prepare()
    bench.say(f"filling {rows:,} jobs in {QUEUES} queues: {ours.name}")
    ours.produce("busy", rows, rows // READY_SHARE, QUEUES)
    with watched(ours) as (target, server):
        visitor = signed_in(ours, target)
        for run in range(bench.asked.runs):
            for name, path in PAGES.items():
                seen = load(visitor, path)
                found = percentiles(seen.milliseconds, 50, 95)
                pages[name].values.append(found["p95"])
                pages[name].notes = {"p50 ms": found["p50"], "bytes": max(seen.sizes), "rows": rows}
            length = max(bench.asked.seconds, 4 * TICK_SECONDS)
            used, seen = _watch(visitor, _Cores(server, ours), length)
            cost.values.append(used["all"])
            cost.notes = {
                **{f"{name} %": round(share, 1) for name, share in used.items()},
                **{f"{k} ms": v for k, v in percentiles(seen.milliseconds, 50, 95).items()},
                "requests": len(seen.milliseconds),
                "unchanged": seen.statuses[204],
                "rows": rows,
            }
            bench.say(f"screen {run + 1}: {ours.name}: {cost.notes}")


def signed_in(ours: Ours, target: Target) -> Visitor:
    """A superuser with a session, by the form."""
    name, password = f"watcher-{secrets.token_hex(4)}", secrets.token_hex(16)
    who = ("--noinput", "--username", name, "--email", "")
    ours.manage("createsuperuser", *who, DJANGO_SUPERUSER_PASSWORD=password)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", "/admin/login/")
    page = connection.getresponse()
    cookie = (page.getheader("Set-Cookie") or "").partition(";")[0]
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.read())
    assert token
    form = {"username": name, "password": password, "csrfmiddlewaretoken": token[1].decode()}
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/admin/login/?next=/admin/", urlencode(form), headers)
    answer = connection.getresponse()
    given = [value.partition(";")[0] for key, value in answer.getheaders() if key == "Set-Cookie"]
    connection.close()
    if not any(value.startswith("sessionid=") for value in given):
        raise RuntimeError(f"nobody could sign in: {answer.status}")
    return Visitor(target, "; ".join(given))


class _Cores:
    """How much time of cores the server has used, and its database's processes for it."""

    def __init__(self, server: int, ours: Ours) -> None:
        self._server = psutil.Process(server)
        self._databases = ours.database_names

    def used(self) -> dict[str, float]:
        server = [self._server, *self._server.children(recursive=True)]
        found = {"server": sum(map(_seconds, server))}
        if self._databases:
            found["database"] = sum(map(_seconds, self._backends()))
        return found

    def _backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes tell in their names which database they serve."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "postgres"
            and any(name in " ".join(process.info["cmdline"] or []) for name in self._databases)
        ]


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def load(visitor: Visitor, path: str) -> Watched:
    """Load a page anew, again and again; nothing of it is shared."""
    seen = Watched()
    connection = visitor.connect()
    for _ in range(LOADS):
        connection = _ask(visitor, connection, path, None, seen)[0]
    connection.close()
    if set(seen.statuses) != {200}:
        raise RuntimeError(f"{path} answered {dict(seen.statuses)}")
    return seen


def _watch(visitor: Visitor, cores: _Cores, seconds: float) -> tuple[dict[str, float], Watched]:
    """Let all watch at once; returns what part of a core the server and its database used."""
    seen = Watched()
    errors: list[BaseException] = []
    begun, before = time.perf_counter(), cores.used()
    paths = [*PAGES.values()]

    def watch(number: int) -> None:
        try:
            _one_watcher(visitor, paths[number % len(paths)], number, begun + seconds, seen)
        except (OSError, ValueError) as error:
            errors.append(error)

    threads = [threading.Thread(target=watch, args=(n,)) for n in range(WATCHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    length, after = time.perf_counter() - begun, cores.used()
    if errors:
        raise errors[0]
    if refused := {status for status in seen.statuses if status not in (200, 204)}:
        raise RuntimeError(f"the server answered {sorted(refused)}")
    used = {name: 100 * (after[name] - before[name]) / length for name in after}
    return {"all": sum(used.values()), **used}, seen


def _one_watcher(visitor: Visitor, path: str, number: int, until: float, seen: Watched) -> None:
    connection, version, charts_version = visitor.connect(), "", ""
    has_charts = path in (PAGES["now"], PAGES["one queue"])
    charts_at = 0.0
    # They did not open their pages at the same moment.
    time.sleep(TICK_SECONDS * number / WATCHERS)
    while (begun := time.perf_counter()) < until:
        connection, version = _ask(visitor, connection, path, version, seen)
        if has_charts and begun >= charts_at:
            connection, charts_version = _ask(visitor, connection, CHARTS, charts_version, seen)
            charts_at = begun + CHARTS_SECONDS
        now = time.perf_counter()
        time.sleep(max(0.0, min(begun + TICK_SECONDS, until) - now))
    connection.close()


def _ask(
    visitor: Visitor, connection: socket.socket, path: str, version: str | None, seen: Watched
) -> tuple[socket.socket, str]:
    begun = time.perf_counter()
    connection.sendall(visitor.request(path, version))
    status, headers, body = read_reply(connection)
    seen.milliseconds.append((time.perf_counter() - begun) * 1000)
    seen.statuses[status] += 1
    seen.sizes.append(len(body))
    if headers.get("connection") == "close":
        connection.close()
        connection = visitor.connect()
    return connection, headers.get("ui-version", version or "")
