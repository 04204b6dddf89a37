"""Handlers of the fault suite; named in YARDMASTER_HANDLERS. What they do is in the ledger."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.registry import Context, JobCancelled, job
from tests.faults.ledger import write

# While a job runs it says so this often: a line after another's start proves an overlap.
TICK_SECONDS = 0.1


def _work(seconds: float, context: Context) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        if left > TICK_SECONDS:
            write("T", context.id, context.fence)


@job("fault:work")
def work(context: Context, payload: Any) -> None:
    """Take a while and succeed; on its first attempts fail, where the payload says so."""
    payload = payload or {}
    write("S", context.id, context.fence)
    _work(payload.get("seconds", 0.0), context)
    write("E", context.id, context.fence)
    if context.attempt <= payload.get("fails", 0):
        raise RuntimeError("as the test wanted")


@job("fault:keep")
def keep(context: Context, payload: Any) -> Any:
    """Like work, with a result and a log line, which travel other ways."""
    write("S", context.id, context.fence)
    context.log("at work")
    context.progress(50, "half")
    _work((payload or {}).get("seconds", 0.0), context)
    write("E", context.id, context.fence)
    return {"fence": context.fence}


@job("fault:polite")
def polite(context: Context, payload: Any) -> None:
    """Work until asked to stop."""
    write("S", context.id, context.fence)
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        if context.cancelled:
            raise JobCancelled
        time.sleep(0.01)
    write("E", context.id, context.fence)


@job("fault:family")
def family(context: Context, payload: Any) -> None:
    """Start a program and never end it; look at no request to stop, but let the signal through."""
    write("S", context.id, context.fence)
    subprocess.Popen(["sleep", payload["marker"]])
    _work(payload["seconds"], context)
    write("E", context.id, context.fence)


@job("fault:deaf")
def deaf(context: Context, payload: Any) -> None:
    """As a family, and the signal changes nothing: only the kill of the whole group ends it."""
    write("S", context.id, context.fence)
    subprocess.Popen(["sleep", payload["marker"]])
    end = time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        with suppress(JobCancelled):
            _work(end - time.monotonic(), context)
    write("E", context.id, context.fence)


# -- The poison set ----------------------------------------------------------------------------------


@job("poison:exit")
def poison_exit(context: Context, payload: Any) -> None:
    write("S", context.id, context.fence)
    os._exit(3)


@job("poison:segfault")
def poison_segfault(context: Context, payload: Any) -> None:
    write("S", context.id, context.fence)
    ctypes.string_at(0)


@job("poison:signal")
def poison_signal(context: Context, payload: Any) -> None:
    write("S", context.id, context.fence)
    os.kill(os.getpid(), signal.SIGKILL)


@job("poison:gil")
def poison_gil(context: Context, payload: Any) -> None:
    """A loop in C that never lets go of the interpreter: no thread of the child runs any more."""
    write("S", context.id, context.fence)
    ctypes.PyDLL(None).sleep(600)


@job("poison:memory")
def poison_memory(context: Context, payload: Any) -> None:
    """Take memory until somebody says no."""
    write("S", context.id, context.fence)
    parts = []
    for _ in range(10 * 1024 // 64):
        parts.append(bytearray(64 << 20))
        parts[-1][:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(
            parts[-1][:: os.sysconf("SC_PAGE_SIZE")]
        )


@job("poison:forks")
def poison_forks(context: Context, payload: Any) -> None:
    """As many processes as it can get, none of which ends by itself."""
    write("S", context.id, context.fence)
    for _ in range(payload["forks"]):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    time.sleep(600)


@job("poison:descriptors")
def poison_descriptors(context: Context, payload: Any) -> None:
    write("S", context.id, context.fence)
    leaked = []
    for _ in range(1 << 20):
        leaked.append(os.dup(0))


@job("poison:daemon")
def poison_daemon(context: Context, payload: Any) -> None:
    """Leave a process of another session behind and say that all is well."""
    write("S", context.id, context.fence)
    subprocess.Popen(
        [sys.executable, "-c", f"import time; '{payload['marker']}'; time.sleep(600)"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    write("E", context.id, context.fence)


@job("poison:disk")
def poison_disk(context: Context, payload: Any) -> None:
    """Fill its temporary directory, as far as the payload's bound lets it go."""
    write("S", context.id, context.fence)
    with tempfile.NamedTemporaryFile(dir=payload["directory"]) as file:
        for _ in range(payload["megabytes"]):
            file.write(b"\0" * (1 << 20))
        file.flush()
        os._exit(4)


@job("poison:line")
def poison_line(context: Context, payload: Any) -> None:
    """One line of many megabytes."""
    write("S", context.id, context.fence)
    print("x" * (payload["megabytes"] << 20))
    write("E", context.id, context.fence)


@job("flood:lines")
def flood_lines(context: Context, payload: Any) -> None:
    """Lines as fast as they go, with bytes in them that no database likes."""
    write("S", context.id, context.fence)
    line = "\x1b[31mred\x1b[0m \x00 \ud800 " + "y" * 80
    for number in range(payload["lines"]):
        print(number, line)
    Path(os.devnull).write_text("done")
    write("E", context.id, context.fence)
