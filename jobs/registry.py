"""Register handlers: the functions that jobs of kind ``python`` run.

    from jobs.registry import job

    @job("report:build")
    def build_report(context, payload):
        context.log("building for", payload["month"])
        return {"pages": 12}

    @job("report:daily").every("0 7 * * 1-5", tz="Europe/Berlin", payload={"month": "now"})
    def daily_report(context, payload): ...

A handler is a plain or an async function of two arguments. What it returns, a JSON value, is kept with
the job. ``every`` declares a schedule beside it, see ``jobs.declarations``. Worker nodes find handlers
in the modules named by ``YARDMASTER_HANDLERS`` and in ``handlers.py`` of every installed app. Delivery
is at least once: write handlers so that a second run does no harm.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from traceback import extract_tb
from typing import Any, Protocol, Unpack

from jobs.declarations import Declaration, Terms, declare

# The only kind of work whose types are names of handlers.
KIND = "python"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,199}\Z")


class Context(Protocol):
    """What a handler is told of its job, and what it may say while it runs."""

    id: str
    type: str
    queue: str
    attempt: int
    max_attempts: int
    fence: int

    @property
    def cancelled(self) -> bool:
        """True once somebody wants this run to stop; look at it between the steps of long work."""

    def log(self, *parts: object, level: str = "info") -> None:
        """Add a line to the job's log."""

    def progress(self, percent: float, note: str = "") -> None:
        """Show how far the work is: 0 to 100, and a short note."""


Handler = Callable[[Any, Any], Any]


class HandlersUnusable(Exception):
    """A module with handlers cannot be imported."""


class PermanentError(Exception):
    """Raise this when another attempt cannot help."""


class Throttled(Exception):
    """Raise this when what the job needs asks to be left alone for a while.

    The job is tried again after that time, and no attempt is spent: up to a hundred times, after which
    it counts as a failure like any other.
    """

    def __init__(self, retry_after_seconds: float | None = None, text: str = "throttled") -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class JobCancelled(BaseException):
    """The work was stopped on request.

    Raise it where ``context.cancelled`` is seen. A handler that does not look is interrupted by it;
    let it pass, after cleaning up.
    """


@dataclass(frozen=True, slots=True)
class Registration:
    name: str
    handler: Handler
    is_async: bool


_registry: dict[str, Registration] = {}
_declared: dict[str, list[Declaration]] = {}


class Registering:
    """Registers the function that it decorates, with the schedules that were declared on the way."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._declarations: list[Declaration] = []

    def every(self, when: str | float | timedelta, **terms: Unpack[Terms]) -> Registering:
        """Declare a schedule that runs the function: a cron expression, or an interval as seconds or
        timedelta. Several may follow each other; all but one need a ``name``."""
        declaration = declare(self._name, when, terms)
        if any(one.key == declaration.key for one in self._declarations):
            raise ValueError(
                f"{declaration.name!r} is declared twice: give each schedule of {self._name!r} a name"
            )
        self._declarations.append(declaration)
        return self

    def __call__(self, handler: Handler) -> Handler:
        name = self._name
        where = f"{handler.__module__}.{handler.__qualname__}"
        known = _registry.get(name)
        if known is not None and known.handler is not handler:
            other = f"{known.handler.__module__}.{known.handler.__qualname__}"
            if other != where:
                raise ValueError(f"job type {name!r} is registered twice: {other} and {where}")
        try:
            inspect.signature(handler).bind(None, None)
        except TypeError:
            raise TypeError(f"{where} must accept two arguments: context and payload") from None
        taken = {one.key: type_ for type_, group in _declared.items() for one in group}
        for one in self._declarations:
            if taken.get(one.key, name) != name:
                raise ValueError(
                    f"schedule {one.name!r} is declared twice, for {taken[one.key]!r} and {name!r}"
                )
        _registry[name] = Registration(name, handler, inspect.iscoroutinefunction(handler))
        _declared[name] = self._declarations
        return handler


def job(name: str) -> Registering:
    """Register the decorated function as the handler of jobs whose type is ``name``."""
    if not isinstance(name, str) or not NAME.match(name):
        raise ValueError(
            f"{name!r} is no job type: 1 to 200 letters, digits and _ . : / -, "
            "the first a letter or digit"
        )
    return Registering(name)


def declarations() -> list[Declaration]:
    """The schedules declared beside handlers, by name."""
    found = [one for group in _declared.values() for one in group]
    return sorted(found, key=lambda one: one.key)


def find(name: str) -> Registration | None:
    return _registry.get(name)


def types() -> list[str]:
    """The registered job types, sorted."""
    return sorted(_registry)


def discover(modules: list[str]) -> None:
    """Import ``handlers.py`` of every installed app, and the named modules."""
    from django.utils.module_loading import autodiscover_modules

    autodiscover_modules("handlers")
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            raise HandlersUnusable(f"YARDMASTER_HANDLERS: {_where(module, error)}") from error


def _where(module: str, error: Exception) -> str:
    """One line: which module, what is wrong, and where in the handlers' own code."""
    frames = [f for f in extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    place = ""
    if len(frames) > 2:  # our own import and that of importlib come first
        own = next((f for f in reversed(frames) if f.filename != __file__), frames[-1])
        place = f" ({own.filename}, line {own.lineno})"
    return f"cannot import {module}: {type(error).__name__}: {error}{place}"
