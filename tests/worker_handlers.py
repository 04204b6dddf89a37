"""Handlers for tests that run real nodes; named in YARDMASTER_HANDLERS."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.registry import Context, JobCancelled, PermanentError, job


@job("test:ledger")
def ledger(context: Context, payload: Any) -> None:
    """Append what happens to a file that outlives every process."""
    line = f"{context.id} {context.fence} {os.getpid()}\n"
    with Path(payload["path"]).open("a") as file:
        file.write("S " + line)
        file.flush()
        time.sleep(payload.get("seconds", 0))
        file.write("E " + line)


@job("test:exit")
def exit_at_once(context: Context, payload: Any) -> None:
    os._exit(3)


@job("test:crash-once")
def crash_once(context: Context, payload: Any) -> str:
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "survived"


@job("test:spin")
def spin(context: Context, payload: Any) -> None:
    """Work without ever looking at cancel requests."""
    context.log("begun")
    end = time.monotonic() + payload.get("seconds", 60)
    while time.monotonic() < end:
        pass


@job("test:stubborn")
def stubborn(context: Context, payload: Any) -> None:
    """Swallow every attempt to interrupt it."""
    context.log("begun")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException:
            continue


@job("test:with-child")
def with_child(context: Context, payload: Any) -> None:
    """Start a program and never end it."""
    child = subprocess.Popen(["sleep", "300"])
    Path(payload["path"]).write_text(str(child.pid))
    time.sleep(60)


@job("test:async")
async def asynchronous(context: Context, payload: Any) -> str:
    await asyncio.sleep(0.01)
    print("from a coroutine")
    return "done"


@job("test:print")
def printing(context: Context, payload: Any) -> None:
    print("to stdout \x00 with a NUL")
    print("to stderr", file=sys.stderr)
    context.log("to the log", level="warning")
    for _ in range((payload or {}).get("lines", 0)):
        print("x" * 100)


@job("test:result")
def result(context: Context, payload: Any) -> Any:
    return {
        "nan": float("nan"),
        "object": object(),
        "nul": "\x00",
        "text-about-nul": "\\u0000",
        "surrogate": "\ud800",
        "large": "x" * 200_000,
        "fine": {"a": [1, None, "ü"]},
    }[payload["which"]]


@job("test:permanent")
def permanent(context: Context, payload: Any) -> None:
    raise PermanentError("no attempt can help")


@job("test:cooperative")
def cooperative(context: Context, payload: Any) -> None:
    """Look at cancel requests between the steps of long work."""
    context.log("begun")
    while not context.cancelled:
        time.sleep(0.01)
    raise JobCancelled


@job("test:odd-words")
def odd_words(context: Context, payload: Any) -> None:
    """Say things that neither a database nor JSON can hold."""
    context.log("fine", level="\x00")
    context.progress(12, "note \x00 \ud800")
    if payload:
        context.progress(float(payload))


@job("test:sleep")
def sleeping(context: Context, payload: Any) -> None:
    time.sleep(payload["seconds"])


@job("test:leak")
def leaking(context: Context, payload: Any) -> Any:
    """Say all that it was told in every way there is, and fail with it where that is asked for."""
    text = "".join(payload["says"])
    for piece in (text[:5], text[5:], "\n"):
        sys.stdout.write(piece)
        sys.stdout.flush()
    # Across the border of two reads of a pipe.
    for piece in (text[:7], text[7:] + "\n"):
        os.write(2, piece.encode())
        time.sleep(0.05)
    context.log(f"told {payload!r}")
    context.progress(50, f"with {text}")
    subprocess.run(["echo", base64.b64encode(f"user:{text}".encode()).decode()], check=True)
    print(quote(text, safe=""), json.dumps(text))
    if payload.get("fails"):
        raise ValueError(f"cannot work with {payload!r}")
    return {"said": payload["says"], text: [f"<{text}>"]}


@job("test:leak-and-die")
def leaking_to_death(context: Context, payload: Any) -> None:
    """Say what it was told, to whoever reads the pipes in the end, and take the process down."""
    for _ in range(3):
        os.write(1, f"told {payload['says']}\n".encode())
        os.write(2, f"{payload['says']}\n".encode())
    os.kill(os.getpid(), signal.SIGSEGV)


@job("test:leak-later")
def leaking_later(context: Context, payload: Any) -> None:
    """Leave a thread behind that goes on talking while other jobs run, and when none does."""

    def talk() -> None:
        for _ in range(60):
            os.write(1, f"still {payload['says']}\n".encode())
            print("and", payload["says"], flush=True)
            time.sleep(0.05)

    threading.Thread(target=talk, daemon=True).start()


@job("test:clock")
def clock(context: Context, payload: Any) -> None:
    """Print the time, many times a second."""
    ends_at = time.monotonic() + payload["seconds"]
    while time.monotonic() < ends_at:
        print(time.time(), flush=True)
        time.sleep(0.1)


@job("test:length")
def length(context: Context, payload: Any) -> int:
    return len(payload["says"])
