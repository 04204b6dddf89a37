"""Definitions that were sent: read, checked, and made into what is enqueued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.views.base import people
from jobs.dialects.tork.wire.definition import to_native
from jobs.dialects.tork.wire.from_json import read_json
from jobs.dialects.tork.wire.from_yaml import read_yaml
from jobs.dialects.tork.wire.keeping import audience_of, notes_of
from jobs.dialects.tork.wire.rules import check
from jobs.dialects.tork.wire.structs import JOB, SCHEDULED_JOB, Struct
from jobs.dialects.tork.wire.times import parse_duration
from jobs.engine.new_job import MAX_TIMEOUT_SECONDS, NewJob
from jobs.engine.started_kinds import check_kinds
from jobs.executors import kinds_started
from jobs.models.queue import DEFAULT_QUEUE
from jobs.step_words import STEPS

JSON, YAML = "application/json", "text/yaml"
JOB_TYPES = (JSON, YAML, "application/x-yaml")
SCHEDULE_TYPES = (JSON, YAML)


class Submitted(NamedTuple):
    """A definition that may be enqueued."""

    document: dict[str, Any]
    native: dict[str, Any]
    # How long the caller waits for the end; None: he does not.
    wait_seconds: float | None = None
    cron: str | None = None

    @property
    def notes(self) -> dict[str, Any]:
        return notes_of(self.document, audience_of(self.document))

    def new_job(self) -> NewJob:
        return NewJob(
            kind=STEPS,
            payload=self.native,
            queue=DEFAULT_QUEUE,
            tags=self.document.get("tags") or (),
            notes=self.notes,
            # It fails with its task, which has been tried as often as it may be.
            max_attempts=1,
            timeout_seconds=MAX_TIMEOUT_SECONDS,
        )


def read_job(raw: bytes, content_type: str, using: str) -> Submitted:
    if not content_type:
        refuse("missing content type")
    document = _read(raw, content_type, JOB_TYPES, JOB)
    wait = document.pop("wait", None)
    seconds = None if wait is None else _wait_seconds(wait)
    return _checked(document, JOB, using)._replace(wait_seconds=seconds)


def read_scheduled(raw: bytes, content_type: str, using: str) -> Submitted:
    document = _read(raw, content_type, SCHEDULE_TYPES, SCHEDULED_JOB)
    submitted = _checked(document, SCHEDULED_JOB, using)
    cron = submitted.document.pop("schedule")["cron"]
    return submitted._replace(cron=cron)


def _read(raw: bytes, content_type: str, known: Sequence[str], struct: Struct) -> dict[str, Any]:
    # As it is written: the original takes no parameters.
    if content_type not in known:
        refuse(f"unknown content type: {content_type[:200]}")
    return read_json(raw, struct) if content_type == JSON else read_yaml(raw, struct)


def _wait_seconds(wait: Mapping[str, Any]) -> float:
    text = wait.get("timeout") or ""
    seconds = parse_duration(text)
    if seconds is None:
        refuse(f'time: invalid duration "{text[:100]}"')
    return seconds


def _checked(document: dict[str, Any], struct: Struct, using: str) -> Submitted:
    check(document, people(), struct)
    native = to_native(document)
    check_kinds(using, kinds_started(STEPS, native))
    return Submitted(document, native)
