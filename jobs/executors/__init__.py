"""The kinds of work, one module each.

A kind says in which pool of a node its jobs run and checks a payload when a job is enqueued. It runs
one attempt and returns an ``Outcome``; it writes no state, knows no database and decides nothing about
retries. To add a kind: write the module, name it in ``KINDS``, add its tests.

Kinds of the pool ``conductor`` have no executor: such a job makes others and awaits them, which every
node does, see ``jobs.engine.conductor``. Of the other pools, ``process`` jobs run one at a time in a
child each, where ``run(work, payload)`` looks at the token in ``work`` and raises ``JobCancelled`` to
stop; kind ``python`` runs handlers there instead. ``io`` jobs share one asyncio child, where
``run(assignment, output)`` is a coroutine that is cancelled to stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from jobs.errors import InvalidJob

PROCESS, IO = "process", "io"
# Jobs that nodes run without a child: they start and await others.
CONDUCTOR = "conductor"
# The kind whose jobs are handlers, known to nodes by their type.
PYTHON = "python"

# The largest result the cluster keeps, for kinds that can cut theirs to fit.
RESULT_BYTES: ContextVar[int] = ContextVar("result_bytes", default=64 << 10)


class Assignment(NamedTuple):
    """One attempt as a child sees it. ``seq`` numbers the jobs a child was given."""

    seq: int
    id: str
    fence: int
    kind: str
    type: str
    queue: str
    attempt: int
    max_attempts: int
    timeout_seconds: float
    grace_seconds: float
    payload: Any

    @property
    def environment(self) -> dict[str, str]:
        """What a called program or system may use to refuse a stale or second call."""
        return {
            "JOB_ID": self.id,
            "JOB_FENCE": str(self.fence),
            "JOB_ATTEMPT": str(self.attempt),
            "IDEMPOTENCY_KEY": self.id,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as the executor saw it.

    ``result`` is a JSON value kept with the job. ``is_permanent`` means that another attempt cannot
    help; ``effect_unknown`` that the work may or may not have happened; ``is_throttled`` that the work
    was refused for now, which spends no attempt.
    """

    ok: bool
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    is_permanent: bool = False
    retry_after_seconds: float | None = None
    effect_unknown: bool = False
    is_throttled: bool = False
    # Not the work: what it was asked for can never run.
    is_bad_definition: bool = False


class Output(Protocol):
    """Where an attempt's output goes; bounded and cleaned before it is sent anywhere."""

    def write(self, stream: str, text: str, level: str | None = None) -> None:
        """Add text to ``stdout``, ``stderr`` or ``log``."""

    def progress(self, percent: float) -> None:
        """Show how far the work is, from 0 to 100."""


class Work(Protocol):
    """What a job of a process child is told, and what it may say while it runs."""

    id: str
    fence: int

    @property
    def cancelled(self) -> bool:
        """True once somebody wants this run to stop."""

    @property
    def max_result_bytes(self) -> int:
        """The largest result that the cluster keeps."""

    def log(self, *parts: object, level: str = "info") -> None:
        """Add a line to the job's log."""

    def progress(self, percent: float, note: str = "") -> None:
        """Show how far the work is."""


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    pool: str
    # Raises InvalidJob, naming the field, when no node could ever run this payload.
    validate: Callable[[Any], None]
    # Runs programs or reaches places that a role alone does not entitle to.
    needs_grant: bool = False
    # Made by other jobs only.
    is_internal: bool = False

    @property
    def executor(self) -> Any:
        """The module that runs this kind; imported late, where it runs."""
        return import_module(f"jobs.executors.{self.name}")


def _http(payload: Any) -> None:
    from jobs.executors.http_request import validate

    validate(payload)


def _files(payload: Any) -> None:
    from jobs.executors.files_request import validate

    validate(payload)


def _shell(payload: Any) -> None:
    from jobs.executors.shell_command import validate

    validate(payload)


def _container(payload: Any) -> None:
    from jobs.executors.container_request import validate

    validate(payload)


def _procedure(payload: Any) -> None:
    from jobs.executors.procedure_call import validate

    validate(payload)


def _webhook(payload: Any) -> None:
    from jobs.executors.webhook import validate

    validate(payload)


def _steps(payload: Any) -> None:
    from jobs.executors.steps_definition import validate

    validate(payload)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(PYTHON, PROCESS, lambda payload: None),
        # Its roots say what may be touched, so it needs no grant.
        Kind("files", PROCESS, _files),
        Kind("http", IO, _http),
        Kind("shell", IO, _shell, needs_grant=True),
        Kind("container", IO, _container, needs_grant=True),
        # What may be called, and where, the configuration lists; without it everything is refused.
        Kind("procedure", IO, _procedure),
        # What the webhooks of a job are told; made by the engine, and done by every node.
        Kind("webhook", IO, _webhook, is_internal=True),
        Kind("steps", CONDUCTOR, _steps),
        # A composite step: several steps at once, or one for each item of a list.
        Kind("group", CONDUCTOR, lambda payload: None, is_internal=True),
    )
}


# What people may enqueue, and what nodes are told to run.
PUBLIC_KINDS = tuple(sorted(name for name, kind in KINDS.items() if not kind.is_internal))
STORED_KINDS = tuple(sorted(KINDS))
GRANTED_KINDS = tuple(sorted(name for name, kind in KINDS.items() if kind.needs_grant))
NODE_KINDS = tuple(sorted(name for name, kind in KINDS.items() if kind.pool != CONDUCTOR))
CONDUCTED = tuple(sorted(name for name, kind in KINDS.items() if kind.pool == CONDUCTOR))


def kinds_started(kind: str, payload: Any) -> list[str]:
    """The kinds of all jobs that a job starts: its own, and those of its steps; sealed ones too."""
    if KINDS.get(kind) is None or KINDS[kind].pool != CONDUCTOR:
        return [kind]
    from jobs.executors.steps_definition import kinds_in
    from jobs.sealing import Sealed, SealError, opened

    try:
        # One that is taken over for a new job has been opened, or could not be.
        found = payload if isinstance(payload, Sealed) else opened(payload)
        if found.problem is not None:
            raise found.problem
        definition = found.payload
    except SealError:
        # What nobody can read may be anything.
        return sorted(KINDS)
    return [kind, *sorted({*kinds_in(definition)})]


def get_kind(name: str) -> Kind:
    try:
        return KINDS[name]
    except KeyError:
        known = ", ".join(PUBLIC_KINDS)
        raise InvalidJob(f"unknown kind {name[:40]!r}; known are {known}", field="kind") from None
