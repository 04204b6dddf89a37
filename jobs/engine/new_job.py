"""A job as asked for, and what may be asked: the rules that need no database.

Most jobs of one call are asked for alike, so what they share is checked once (``Terms``) and each job
only for what is its own (``CheckedJob``).
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

import uuid_utils

from clusters.policy import ClusterPolicy
from jobs.engine.backoff import is_curve
from jobs.errors import InvalidJob, JobError, PayloadTooLarge, UnknownQueue
from jobs.executors import CONDUCTED, CONDUCTOR, Kind, get_kind
from jobs.models import Needs, OnParentFailure
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.models.queue import QUEUE_NAME
from jobs.references import check_places, names_in_json
from jobs.registry import NAME
from jobs.sealing import Sealed, is_sealed, seal, seal_notes, secrets_in
from jobs.states import OnLost
from jobs.step_words import STEPS

MAX_TAGS, MAX_TAG_LENGTH = 20, 60
MAX_METADATA, MAX_METADATA_LENGTH = 20, 256
METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,60}\Z")
MAX_UNIQUE_KEY_LENGTH = 200
MAX_PARENTS = 100
MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_ATTEMPTS = 100
MAX_RETRY_BASE_SECONDS = 86400
MAX_RETRY_CAP_SECONDS = 7 * 86400
FARTHEST = timedelta(days=366 * 10)
_FARTHEST_SECONDS = FARTHEST.total_seconds()

_QUEUE_NAME = re.compile(QUEUE_NAME.regex)
_ON_LOST = frozenset(OnLost.values)
_NEEDS = frozenset(Needs.values)
_ON_PARENT_FAILURE = frozenset(OnParentFailure.values)
# Made once: json.dumps makes one at each call that is not of the plainest kind.
to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Origin(NamedTuple):
    """What made a job: a schedule, and for which instant; no surface lets a caller set it.

    With ``waits_for`` the job is blocked until the schedule lets it go. Of the jobs it depends on each
    has a rule of its own in ``rules``, and those without one the job's.
    """

    schedule_id: uuid.UUID
    trigger: str
    due_at: datetime | None = None
    workflow_run_id: uuid.UUID | None = None
    waits_for: str | None = None
    rules: Mapping[uuid.UUID, str] = {}


@dataclass(frozen=True, slots=True)
class StepOf:
    """Makes a new job a step of another; only a node, while it runs that one, says so. See ``Step``."""

    parent_id: uuid.UUID
    root_id: uuid.UUID
    key: str
    name: str
    position: int
    index: int
    var: str | None = None
    is_tolerated: bool = False
    definition: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class NewJob:
    """A job as asked for. None means: as the queue says, else the cluster's settings.

    ``type`` is the registered handler's name for kind ``python``; for other kinds it is a label and
    may be left out. ``payload`` is any JSON value, ``payload_bytes`` raw bytes instead of it.
    ``delay_seconds`` counts from the database's now, ``expires_in_seconds`` and ``deadline_seconds``
    from when the job is due; ``run_at``, ``expires_at`` and ``deadline_at`` instead of them must be
    aware. Not started by ``expires_at``, or not finished by ``deadline_at``, a job fails. Of all jobs
    that have not ended only one has a ``unique_key``. ``id`` makes the enqueue repeatable: the same id
    with the same content is the same job.
    """

    type: str = ""
    payload: Any = None
    payload_bytes: bytes | None = None
    kind: str = "python"
    queue: str = "default"
    priority: int | None = None
    run_at: datetime | None = None
    delay_seconds: float | None = None
    expires_at: datetime | None = None
    expires_in_seconds: float | None = None
    deadline_at: datetime | None = None
    deadline_seconds: float | None = None
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    progress_timeout_seconds: float | None = None
    retry_base_seconds: float | None = None
    retry_cap_seconds: float | None = None
    retry_curve: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str | float | bool] | None = None
    unique_key: str | None = None
    depends_on: Sequence[uuid.UUID] = ()
    needs: str = Needs.ALL.value
    on_dependency_failure: str = OnParentFailure.FAIL.value
    on_lost: str = OnLost.RETRY.value
    id: uuid.UUID | None = None
    # The job this one is requeued from; no surface lets a caller set it.
    copy_of: uuid.UUID | None = None
    origin: Origin | None = None
    step: StepOf | None = None
    # Of a kind that is made by others only, and not a step.
    is_of_engine: bool = False
    # What a dialect has promised of its jobs, which callers of our own API cannot ask for. ``notes`` are
    # kept with the job, to be said again word for word. Attempts are no more than the queue's default.
    # A job may be late already, and expires. With ``lost_parents``, which may be empty, a job fails where
    # one that it depends on is not there, and those named here are known not to be.
    notes: Mapping[str, Any] | None = None
    is_limited_by_queue: bool = False
    may_be_late: bool = False
    lost_parents: Sequence[str] | None = None

    @property
    def names_a_moment(self) -> bool:
        """Whether the clock must be known before it can be checked."""
        return bool(self.run_at or self.expires_at or self.deadline_at)

    @property
    def may_be_internal(self) -> bool:
        """Whether it may be of a kind that people cannot ask for."""
        return self.step is not None or self.copy_of is not None or self.is_of_engine

    @property
    def is_conducted(self) -> bool:
        """Whether the node runs it by making other jobs."""
        return self.kind in CONDUCTED

    @property
    def may_exist(self) -> bool:
        """Whether a job that is there already may be the answer."""
        return self.id is not None or self.unique_key is not None


@dataclass(slots=True, eq=False)
class Terms:
    """What jobs that were asked for alike have in common, checked. None: as the queue says, else the
    cluster's settings. Times are told from each other: due so long after now, the rest after that."""

    kind: Kind
    type: str
    queue: str
    priority: int | None
    timeout_seconds: float | None
    max_attempts: int | None
    progress_timeout_seconds: float | None
    retry_base_seconds: float | None
    retry_cap_seconds: float | None
    retry_curve: str | None
    on_lost: str
    due_after: timedelta
    expires_after: timedelta | None
    deadline_after: timedelta | None
    # Why it cannot be accepted any more, though it could have been when it was asked for first.
    too_late: InvalidJob | None = None
    # ``max_attempts`` is an upper limit, and the queue's default another.
    is_limited_by_queue: bool = False


@dataclass(slots=True, eq=False)
class CheckedJob:
    """A job that may be inserted. ``payload`` is JSON text, and None where there is none."""

    index: int
    new: NewJob
    id: str
    terms: Terms
    payload: str | None
    tags: Sequence[str]
    metadata: Mapping[str, str | float | bool]


_NO_METADATA: Mapping[str, str | float | bool] = {}
_alike = attrgetter(
    *("type", "kind", "queue", "priority", "run_at", "delay_seconds", "expires_at"),
    *("expires_in_seconds", "deadline_at", "deadline_seconds", "max_attempts", "timeout_seconds"),
    *("progress_timeout_seconds", "retry_base_seconds", "retry_cap_seconds", "on_lost"),
    *("needs", "on_dependency_failure", "retry_curve", "is_limited_by_queue", "may_be_late"),
    "may_be_internal",
)


def check(
    news: Iterable[NewJob], policy: ClusterPolicy, now: datetime | None
) -> Iterator[CheckedJob]:
    """Check these jobs one after the other; raises at the first that cannot be accepted.

    ``now`` may be None where no job names a moment.
    """
    known: dict[Any, Terms] = {}
    largest = policy.max_payload_bytes
    for index, new in enumerate(news):
        try:
            key = _alike(new)
            terms = known.get(key)
            if terms is None:
                terms = known[key] = terms_of(new, now)
            if terms.too_late is not None and new.id is None:
                raise terms.too_late
            kept: Sealed | None = None
            if isinstance(new.payload, Sealed):
                kept = new.payload
                if kept.problem is not None:
                    raise kept.problem
                new = replace(new, payload=kept.payload)
            if is_sealed(new.payload):
                raise InvalidJob("nobody can give a sealed payload", field="payload.$sealed")
            payload = _payload(new, largest)
            terms.kind.validate(new.payload)
            if names_in_json(payload):
                check_places(terms.kind.name, new.payload)
            if terms.kind.name == STEPS and new.step is None:
                from jobs.engine.step_terms import check_step_terms

                check_step_terms(new.payload)
            tags: Sequence[str] = check_tags(new.tags) if new.tags else ()
            metadata = _metadata(new.metadata) if new.metadata else _NO_METADATA
            if new.unique_key is not None:
                _check_unique_key(new.unique_key)
            if new.depends_on or new.lost_parents:
                _check_parents(new)
            found = secrets_in(terms.kind.name, new.payload)
            if found is not None or kept is not None:
                masks = [*(kept.masks if kept else ()), *(found or ())]
                sealed = seal(new.payload, masks)
                notes = seal_notes(new.notes, masks)
                new, payload = replace(new, payload=sealed, notes=notes), to_json(sealed)
        except JobError as error:
            error.index = index
            raise
        # The text of a UUID costs a tenth of the object.
        job_id = str(uuid_utils.uuid7()) if new.id is None else str(new.id)
        yield CheckedJob(index, new, job_id, terms, payload, tags, metadata)


def check_ids(news: Sequence[NewJob]) -> None:
    """Refuse an id that is given twice in one call."""
    seen: set[uuid.UUID] = set()
    for index, new in enumerate(news):
        if new.id is None:
            continue
        if new.id in seen:
            twice = InvalidJob("two jobs in one call have the same id", field="id")
            twice.index = index
            raise twice
        seen.add(new.id)


def terms_of(new: NewJob, now: datetime | None) -> Terms:
    """The terms of one job, checked; ``now`` may be None where it names no moment."""
    kind = get_kind(new.kind)
    if kind.is_internal and not new.may_be_internal:
        raise InvalidJob(f"jobs of kind {kind.name!r} are made by others only", field="kind")
    type_name = new.type or (kind.name if kind.name != "python" else "")
    if not NAME.match(type_name):
        raise InvalidJob(
            "a type has 1 to 200 letters, digits and _ . : / - and begins with a letter or digit",
            field="type",
        )
    if not _QUEUE_NAME.match(new.queue):
        raise unknown_queue(new.queue)
    if new.max_attempts is not None and not 1 <= new.max_attempts <= MAX_ATTEMPTS:
        raise InvalidJob(f"max_attempts must be between 1 and {MAX_ATTEMPTS}", field="max_attempts")
    if new.priority is not None and not HIGHEST_PRIORITY <= new.priority <= LOWEST_PRIORITY:
        raise InvalidJob(
            f"priority must be between {HIGHEST_PRIORITY} and {LOWEST_PRIORITY}", field="priority"
        )
    _check_one_of(new, "on_lost", _ON_LOST)
    _check_one_of(new, "needs", _NEEDS)
    _check_one_of(new, "on_dependency_failure", _ON_PARENT_FAILURE)
    base = _seconds(new, "retry_base_seconds", MAX_RETRY_BASE_SECONDS, may_be_zero=True)
    cap = _seconds(new, "retry_cap_seconds", MAX_RETRY_CAP_SECONDS, may_be_zero=True)
    if base is not None and cap is not None and cap < base:
        raise InvalidJob(
            "retry_cap_seconds must not be below retry_base_seconds", field="retry_cap_seconds"
        )
    if new.retry_curve is not None and not is_curve(new.retry_curve):
        raise InvalidJob(
            "retry_curve must be fixed, linear, exponential, a list of up to 20 waits in seconds, or a "
            "ramp such as ramp:60,10.8,50,0.9",
            field="retry_curve",
        )
    is_conducted = kind.pool == CONDUCTOR
    due_after = _moment(new, "run_at", "delay_seconds", now, timedelta())
    # A time long past would put the job before everything else; it is simply due.
    due_after = max(due_after or timedelta(), timedelta())
    terms = Terms(
        kind=kind,
        type=type_name,
        queue=new.queue,
        priority=new.priority,
        timeout_seconds=_timeout(new, kind),
        max_attempts=1 if new.max_attempts is None and is_conducted else new.max_attempts,
        progress_timeout_seconds=_seconds(new, "progress_timeout_seconds", MAX_TIMEOUT_SECONDS),
        retry_base_seconds=base,
        retry_cap_seconds=cap,
        retry_curve=new.retry_curve,
        on_lost=new.on_lost,
        due_after=due_after,
        expires_after=_moment(new, "expires_at", "expires_in_seconds", now, due_after),
        deadline_after=_moment(new, "deadline_at", "deadline_seconds", now, due_after),
        is_limited_by_queue=new.is_limited_by_queue,
    )
    if new.may_be_late and terms.expires_after is not None:
        return terms
    for name, after in (
        ("expires_at", terms.expires_after),
        ("deadline_at", terms.deadline_after),
    ):
        if after is not None and after <= timedelta():
            terms.too_late = InvalidJob(f"{name} must be later than the job is due", field=name)
    return terms


def unknown_queue(name: str) -> UnknownQueue:
    return UnknownQueue(f"there is no queue {name[:100]!r}", field="queue")


def _check_one_of(new: NewJob, field: str, allowed: frozenset[str]) -> None:
    if getattr(new, field) not in allowed:
        raise InvalidJob(f"{field} must be one of {', '.join(sorted(allowed))}", field=field)


def _seconds(new: NewJob, field: str, most: float, *, may_be_zero: bool = False) -> float | None:
    value = getattr(new, field)
    if value is None:
        return None
    if may_be_zero:
        if not 0 <= value <= most:
            raise InvalidJob(f"{field} must be between 0 and {most:.0f}", field=field)
    elif not 0 < value <= most:
        raise InvalidJob(f"{field} must be above 0 and at most {most:.0f}", field=field)
    return float(value)


def _timeout(new: NewJob, kind: Kind) -> float | None:
    seconds = _seconds(new, "timeout_seconds", MAX_TIMEOUT_SECONDS)
    # What queue and cluster say is meant for one piece of work, and steps have theirs.
    return MAX_TIMEOUT_SECONDS if seconds is None and kind.pool == CONDUCTOR else seconds


def _moment(
    new: NewJob, at: str, seconds: str, now: datetime | None, since: timedelta
) -> timedelta | None:
    """How long after ``since`` the moment is that was asked for in one of two ways."""
    moment: datetime | None = getattr(new, at)
    wait = _seconds(new, seconds, _FARTHEST_SECONDS, may_be_zero=seconds == "delay_seconds")
    if moment is None:
        return None if wait is None else timedelta(seconds=wait)
    if wait is not None:
        raise InvalidJob(f"give {at} or {seconds}, not both", field=seconds)
    if moment.tzinfo is None:
        raise InvalidJob(f"{at} needs a time zone, such as a trailing Z", field=at)
    assert now is not None
    after = moment.astimezone(UTC) - now
    if after > FARTHEST:
        raise InvalidJob(f"{at} is more than ten years ahead", field=at)
    return after - since


def _payload(new: NewJob, largest: int) -> str | None:
    if new.payload_bytes is not None:
        if new.payload is not None:
            raise InvalidJob("give a JSON payload or bytes, not both", field="payload_bytes")
        if len(new.payload_bytes) > largest:
            raise _too_large(len(new.payload_bytes), largest)
        return None
    if new.payload is None:
        return None
    try:
        text = to_json(new.payload)
        # Encoding refuses what no database takes: half of a surrogate pair.
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"payload is not JSON: {error}", field="payload") from error
    if size > largest:
        raise _too_large(size, largest)
    if "\\u0000" in text and _holds_nul(new.payload):
        raise InvalidJob("payload holds a NUL character", field="payload")
    return text


def _too_large(size: int, largest: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"payload has {size} bytes, the cluster allows {largest}", field="payload"
    )


def _holds_nul(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return False


def check_tags(tags: Iterable[str]) -> list[str]:
    """The tags, each once, or ``InvalidJob``."""
    unique = list(dict.fromkeys(tags))
    if len(unique) > MAX_TAGS:
        raise InvalidJob(f"at most {MAX_TAGS} tags", field="tags")
    for tag in unique:
        if not 1 <= len(tag) <= MAX_TAG_LENGTH or not tag.isprintable():
            raise InvalidJob(f"a tag has 1 to {MAX_TAG_LENGTH} printable characters", field="tags")
    return unique


def _metadata(
    metadata: Mapping[str, str | float | bool],
) -> Mapping[str, str | float | bool]:
    if len(metadata) > MAX_METADATA:
        raise InvalidJob(f"at most {MAX_METADATA} keys of metadata", field="metadata")
    for key, value in metadata.items():
        if not isinstance(key, str) or not METADATA_KEY.match(key):
            raise InvalidJob(
                "a key of metadata has 1 to 60 letters, digits and _ . -", field="metadata"
            )
        if not _may_be_metadata(value):
            raise InvalidJob(
                f"must be a string of at most {MAX_METADATA_LENGTH} characters, a number or a boolean",
                field=f"metadata.{key}",
            )
    return metadata


def _may_be_metadata(value: Any) -> bool:
    if isinstance(value, str):
        if len(value) > MAX_METADATA_LENGTH or "\0" in value:
            return False
        return value.isascii() or value.encode(errors="replace").decode() == value
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _check_unique_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_UNIQUE_KEY_LENGTH or not key.isprintable():
        raise InvalidJob(
            f"a unique key has 1 to {MAX_UNIQUE_KEY_LENGTH} printable characters",
            field="unique_key",
        )


def _check_parents(new: NewJob) -> None:
    if len(new.depends_on) + len(new.lost_parents or ()) > MAX_PARENTS:
        raise InvalidJob(f"a job may depend on at most {MAX_PARENTS} others", field="depends_on")
    if len(set(new.depends_on)) != len(new.depends_on):
        raise InvalidJob("the same job is named twice", field="depends_on")
    if new.id is not None and new.id in new.depends_on:
        raise InvalidJob("a job cannot depend on itself", field="depends_on")
