"""The arguments of commands about jobs: which ones, and what a new one is given."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connections

from clusters.management.base import UsageError, duration
from jobs.engine.clock import database_now
from jobs.executors import KINDS
from jobs.filters import filtered
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.states import State, Trigger

MAX_LISTED = 10_000
# The words of the search that are options of their own.
WORDS = ("state", "queue", "type", "kind", "tag", "schedule", "workflow_run", "trigger")


def job_id(text: str) -> UUID:
    return read_id(text, "job")


def schedule_id(text: str) -> UUID:
    return read_id(text, "schedule")


def run_id(text: str) -> UUID:
    return read_id(text, "run")


def read_id(text: str, of: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text[:60]!r} is no {of} id") from None


def metadata(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"{text[:60]!r} is not KEY=VALUE")
    try:
        typed = json.loads(value)
    except (ValueError, RecursionError):
        return key, value
    return key, typed if isinstance(typed, (str, int, float)) else value


def count(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LISTED:
        return int(text)
    raise ArgumentTypeError(f"{text[:20]!r} is no number from 1 to {MAX_LISTED}")


def add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--state", action="append", choices=State.values, metavar="STATE")
    parser.add_argument("--queue")
    parser.add_argument("--type")
    parser.add_argument("--kind", choices=sorted(KINDS))
    parser.add_argument("--tag")
    parser.add_argument("--schedule", type=schedule_id, metavar="ID", help="runs of this schedule")
    parser.add_argument("--workflow-run", type=run_id, metavar="ID", help="jobs of this run")
    parser.add_argument("--trigger", choices=Trigger.values, help="what made them run")
    parser.add_argument("--since", type=duration, metavar="2h", help="created within")


def add_payload(parser: ArgumentParser) -> None:
    payload = parser.add_mutually_exclusive_group()
    payload.add_argument("--payload", metavar="JSON", help="a JSON value; - reads stdin")
    payload.add_argument("--payload-file", type=Path, metavar="PATH", help="a file of JSON")
    payload.add_argument("--bytes-file", type=Path, metavar="PATH", help="a file of raw bytes")


def is_filtered(asked: Namespace) -> bool:
    return any(getattr(asked, word) is not None for word in (*WORDS, "since"))


def matching(asked: Namespace, ids: list[UUID] | None = None) -> JobQuerySet:
    """The jobs that all given words of the filter are true of."""
    jobs: JobQuerySet = Job.objects.all()
    if ids:
        jobs = jobs.filter(pk__in=ids)
    return filtered(jobs, words(asked))


def words(asked: Namespace) -> dict[str, Any]:
    """The words of the filter that were given."""
    given = {name: getattr(asked, name) for name in WORDS}
    if asked.since is not None:
        now = database_now(connections[Job.objects.all().db])
        given["created_after"] = now - timedelta(seconds=asked.since)
    return {name: word for name, word in given.items() if word is not None}


def read_payload(asked: Namespace) -> Any:
    if asked.payload_file:
        text = read_file(asked.payload_file, "payload-file").decode(errors="replace")
    elif asked.payload == "-":
        text = sys.stdin.read()
    elif asked.payload is None:
        return None
    else:
        text = asked.payload
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the payload is not JSON: {error}", field="payload") from None


def read_file(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--{option}: {error}", field=option) from None
