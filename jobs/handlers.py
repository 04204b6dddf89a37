"""Demo handlers: small jobs to try a new installation with."""

from __future__ import annotations

import time
from typing import Any

from jobs.registry import Context, JobCancelled, PermanentError, Throttled, job


@job("demo:echo")
def echo(context: Context, payload: Any) -> Any:
    """Return the payload."""
    context.log("echo, attempt", context.attempt)
    # Results are JSON.
    return payload.decode(errors="replace") if isinstance(payload, bytes) else payload


@job("demo:noop")
def noop(context: Context, payload: Any) -> None:
    """Do nothing; for measurements."""


@job("demo:sleep")
def sleep(context: Context, payload: Any) -> dict[str, float]:
    """Sleep ``seconds`` (default 1), and stop early when asked to."""
    wanted = _number(payload, "seconds", 1.0)
    begun = time.monotonic()
    while (left := begun + wanted - time.monotonic()) > 0:
        if context.cancelled:
            raise JobCancelled
        time.sleep(min(left, 0.05))
    return {"slept_seconds": round(time.monotonic() - begun, 3)}


@job("demo:fail")
def fail(context: Context, payload: Any) -> dict[str, int]:
    """Fail on the first ``times`` attempts (default 1), then succeed."""
    times = int(_number(payload, "times", 1))
    if context.attempt <= times:
        raise RuntimeError(f"attempt {context.attempt} fails, as asked")
    return {"succeeded_on_attempt": context.attempt}


@job("demo:progress")
def progress(context: Context, payload: Any) -> dict[str, int]:
    """Count to ``steps`` (default 10), one every ``seconds`` (default 0.2), and show how far it is."""
    steps = int(_number(payload, "steps", 10))
    pause = _number(payload, "seconds", 0.2)
    for step in range(1, steps + 1):
        time.sleep(pause)
        context.progress(100 * step / steps, f"step {step} of {steps}")
        print(f"step {step} of {steps}")
    return {"steps": steps}


# What clients of the forge API enqueue to try it.
NOOP_ECHO = "noop_echo"


@job(NOOP_ECHO)
def noop_echo(context: Context, payload: Any) -> Any:
    """Sleep ``sleep_ms`` (default 100) and return the payload; or ``fail``, or ask to be called again
    after ``throttle_ms``."""
    sleep(context, {"seconds": _number(payload, "sleep_ms", 100) / 1000})
    throttle_ms = _number(payload, "throttle_ms", 0)
    if throttle_ms > 0:
        raise Throttled(throttle_ms / 1000, "throttled, as asked")
    if isinstance(payload, dict) and payload.get("fail"):
        raise RuntimeError("it fails, as asked")
    return payload


def _number(payload: Any, name: str, default: float) -> float:
    value = payload.get(name, default) if isinstance(payload, dict) else default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PermanentError(f"{name} must be a number")
    return value
