"""Handlers that do what no handler should; named in YARDMASTER_HANDLERS by tests of real nodes."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobs.registry import Context, Throttled, job

_kept: list[Any] = []


@job("poison:exit")
def exit_at_once(context: Context, payload: Any) -> None:
    print("about to go")
    sys.__stderr__.write("last words\n")
    sys.__stderr__.flush()
    os._exit(3)


@job("poison:talk-and-die")
def talk_and_die(context: Context, payload: Any) -> None:
    """Say so many lines, and be gone before anybody can have read the last."""
    for number in range(payload["lines"]):
        print(f"line {number} " + "x" * 100)
    context.log("that was all")
    os.kill(os.getpid(), signal.SIGSEGV)


@job("poison:segfault")
def segfault(context: Context, payload: Any) -> None:
    ctypes.string_at(0)


@job("poison:hog")
def hog(context: Context, payload: Any) -> None:
    """Take memory bit by bit and keep it."""
    held = []
    while True:
        held.append(bytearray(16 << 20))
        time.sleep(0.02)


@job("poison:hog-at-once")
def hog_at_once(context: Context, payload: Any) -> None:
    bytearray(10 << 30)


@job("poison:hog-by-proxy")
def hog_by_proxy(context: Context, payload: Any) -> None:
    """Let a program take the memory."""
    code = "import time; x = b'x' * (400 << 20); time.sleep(60)"
    subprocess.run([sys.executable, "-c", code])


@job("poison:grow")
def grow(context: Context, payload: Any) -> int:
    """Keep some memory for good, as a leak does."""
    _kept.append(bytearray(payload["bytes"]))
    time.sleep(payload.get("seconds", 0))
    return os.getpid()


@job("poison:forks")
def forks(context: Context, payload: Any) -> None:
    while True:
        os.fork()


@job("poison:fork-storm-of-programs")
def storm(context: Context, payload: Any) -> None:
    script = f"n=0; while [ $n -lt 300 ]; do sleep {payload['marker']} & n=$((n+1)); done; wait"
    subprocess.run(["/bin/sh", "-c", script])


@job("poison:fork-and-return")
def fork_and_return(context: Context, payload: Any) -> str:
    """Come back twice, as who forgets to exit does."""
    if os.fork() == 0:
        return "copy"
    os.wait()
    time.sleep((payload or {}).get("seconds", 0))
    return "original"


@job("poison:descriptors")
def descriptors(context: Context, payload: Any) -> int:
    for _ in range(payload["count"]):
        _kept.append(os.open("/dev/null", os.O_RDONLY))
    return os.getpid()


@job("poison:daemon")
def daemon(context: Context, payload: Any) -> None:
    """Leave a program in a session of its own and a daemon made by hand."""
    subprocess.Popen(["sleep", payload["marker"]], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", payload["marker"]])
        os._exit(0)
    if payload.get("exits"):
        os._exit(1)
    end = time.monotonic() + payload.get("seconds", 0)
    while (left := end - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except BaseException:  # until it is killed
            continue


@job("poison:disk")
def disk(context: Context, payload: Any) -> None:
    """Try to write far into a file, which takes no room but is refused like one that does."""
    with Path(payload["path"]).open("wb") as file:
        os.pwrite(file.fileno(), b"x", 5 << 30)


@job("poison:line")
def long_line(context: Context, payload: Any) -> None:
    print("x" * (50 << 20))
    os.write(1, b"y" * (50 << 20))


@job("poison:gil")
def hold_the_interpreter(context: Context, payload: Any) -> None:
    """Sleep in C without letting anybody else run."""
    context.log("begun")
    time.sleep(0.1)
    ctypes.PyDLL(None).sleep(60)


@job("poison:gil-at-once")
def hold_the_interpreter_at_once(context: Context, payload: Any) -> None:
    """The same with nothing said before, so that a return looks like any success."""
    ctypes.PyDLL(None).sleep(60)


@job("poison:flood-with-gil")
def flood_with_gil(context: Context, payload: Any) -> None:
    """Write more than a pipe holds, from C, without letting anybody else run."""
    libc = ctypes.PyDLL(None)
    for number in range(3):
        text = str(number).encode() * (100 << 10)
        left = len(text)
        while left:
            left -= libc.write(1, text[-left:], left)


@job("poison:words")
def words(context: Context, payload: Any) -> None:
    """Speak in all ways there are."""
    print("printed")
    logging.getLogger("shop").warning("sold out: %s", "tea")
    os.write(1, b"raw\n")
    subprocess.run(["/bin/sh", "-c", "echo program; echo complaint >&2"], check=True)


@job("poison:silent")
def silent(context: Context, payload: Any) -> None:
    pass


@job("poison:throttled")
def throttled(context: Context, payload: Any) -> str:
    if context.fence <= payload["times"]:
        raise Throttled(payload.get("seconds"))
    return "at last"
