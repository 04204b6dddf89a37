"""What comes next for a job made of steps: which steps to make, whether to stop them, how it ends.

``advance`` looks at a parent as it was read under its locks and writes down what to do; it changes no
row. Of its state between two looks the parent keeps in ``StepsRun.state``:

    phase       `finally` once the ordinary steps are over; they run whatever happened
    failed      the first failure: {"error", "type", "is_cancelled", "is_late"}
    items, next of ``each``: the list, sealed where there are secrets, and how many of it have been made
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from jobs import expressions
from jobs.engine.new_job import NewJob, StepOf
from jobs.executors.steps import Rendered, names_read, render, render_all
from jobs.models import Job, Step, StepsRun
from jobs.redaction import redaction_of
from jobs.sealing import Sealed, SealError, opened, seal
from jobs.states import FINAL, Outcome, State
from jobs.step_words import AUDIENCE, DEFAULTS, GROUP, STEPS

# Items of one list that are made by one look; the next look follows at once.
ITEMS_AT_ONCE = 500
# Before a step is offered again to a queue that was full.
FULL_QUEUE_SECONDS = 2.0
MAX_TOLD = 1000


@dataclass(slots=True)
class Child:
    """A step of a parent, as far as its parent needs to know it."""

    key: str
    state: str
    name: str
    is_tolerated: bool
    error: str | None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def has_failed(self) -> bool:
        if self.state == State.CANCELLED:
            return True
        return self.state == State.FAILED and not self.is_tolerated


@dataclass(slots=True)
class Ending:
    """How a parent ends."""

    outcome: Outcome
    result: Any = None
    error: str | None = None
    error_type: str | None = None


@dataclass(slots=True)
class Made:
    """A step to be made. One that is skipped has no other work than to say so."""

    job: NewJob
    is_skipped: bool = False
    # When it has been made.
    job_id: UUID | None = None


@dataclass(slots=True)
class Parent:
    """A job made of steps, held by this transaction."""

    job: Job
    run: StepsRun
    definition: Mapping[str, Any]
    # Where it is a step itself.
    step: Step | None
    root: Job
    root_definition: Mapping[str, Any]
    # Secret values, which are in no row that it writes; and whether there is anything to seal.
    masks: tuple[str, ...] = ()
    is_sealed: bool = False
    # Why its definition cannot be read.
    problem: str | None = None
    children: list[Child] = field(default_factory=list)
    # Of `each`: one that failed, where some did.
    failed_child: Child | None = None
    is_late: bool = False
    # The results of earlier steps, read when somebody asks.
    results: Callable[[], Mapping[str, Any]] = dict
    # -- What is to be done
    made: list[Made] = field(default_factory=list)
    detached: list[NewJob] = field(default_factory=list)
    must_stop: bool = False
    # Before it is woken by a step; None: it is for them to wake it.
    again_seconds: float | None = None
    ending: Ending | None = None
    progress: float | None = None
    # What of its state planning changes, as it was.
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.run.state
        return state

    @property
    def open_steps(self) -> int:
        """Steps that have not ended when this look is written."""
        return self.run.open_steps + sum(not one.is_skipped for one in self.made)

    def fail(self, error: str, type_name: str, *, cancelled: bool = False) -> None:
        told = self.shown(error)[:MAX_TOLD]
        self.state.setdefault(
            "failed", {"error": told, "type": type_name, "is_cancelled": cancelled}
        )

    def shown(self, value: Any) -> Any:
        """The same without secrets."""
        redaction = redaction_of(self.masks) if self.masks else None
        return value if redaction is None else redaction.value(value)

    def kept(self, payload: Any) -> Any:
        """A payload that its steps are given: secrets may have come into it anywhere."""
        return Sealed(payload, self.masks) if self.is_sealed else payload

    def undo(self) -> None:
        """Nothing of what was planned can be written."""
        self.made, self.detached, self.ending = [], [], None
        self.run.state = {**self.run.state, **self.before}

    def look_again(self) -> None:
        """It has failed just now: what runs is stopped at the next look, or nothing does and it ends."""
        self.again_seconds = 0.0

    def waits_for_room(self, why: str) -> None:
        """A queue is full."""
        self.state["waits"] = self.shown(why)[:MAX_TOLD]
        self.again_seconds = FULL_QUEUE_SECONDS


def advance(parent: Parent) -> None:
    """Decide what to do now."""
    parent.run.wake_at = 0
    parent.before = {key: parent.state.get(key) for key in ("phase", "next")}
    parent.state.pop("waits", None)
    _note_failures(parent)
    if parent.problem is not None:
        parent.fail(parent.problem, "SealError")
        _end_or_stop(parent)
        return
    try:
        if parent.job.kind == STEPS:
            _advance_steps(parent)
        elif "each" in parent.definition:
            _advance_each(parent)
        else:
            _advance_parallel(parent)
    except (expressions.ExpressionError, SealError) as error:
        parent.undo()
        parent.fail(str(error), type(error).__name__)
        parent.look_again()


def _note_failures(parent: Parent) -> None:
    if parent.job.cancel_requested_at is not None:
        parent.fail("cancelled", "Cancelled", cancelled=True)
    failed = next((child for child in parent.children if child.has_failed), parent.failed_child)
    if failed is not None:
        error = failed.error or f"ended as {failed.state}"
        is_cancelled = failed.state == State.CANCELLED
        parent.fail(f"step {failed.name!r}: {error}", "StepFailed", cancelled=is_cancelled)
    if parent.is_late and "failed" not in parent.state:
        parent.fail("not finished in time", "Timeout")
        parent.state["failed"]["is_late"] = True


# -- steps -----------------------------------------------------------------------------------------


def _advance_steps(parent: Parent) -> None:
    steps = parent.definition["steps"]
    by_key = {child.key: child for child in parent.children}
    if parent.state.get("phase") != "finally":
        if "failed" in parent.state:
            if any(not child.is_over for child in parent.children):
                parent.must_stop = True
                return
        else:
            _make_ready(parent, steps, by_key, "")
            _show_progress(parent, steps, by_key)
            if _are_missing(steps, by_key, "") or parent.open_steps:
                _sleep(parent, _are_missing(steps, by_key, ""))
                return
        parent.state["phase"] = "finally"
    last = parent.definition.get("finally") or ()
    _make_ready(parent, last, by_key, "f")
    if parent.open_steps:
        _sleep(parent, _are_missing(last, by_key, "f"))
        return
    _end(parent)


def _make_ready(
    parent: Parent, steps: Sequence[Mapping[str, Any]], by_key: dict[str, Child], prefix: str
) -> None:
    """Make the steps whose needs are over; a skipped one is over at once."""
    keys = {step["name"]: f"{prefix}{index}" for index, step in enumerate(steps)}
    for index, step in enumerate(steps):
        key = f"{prefix}{index}"
        if key in by_key:
            continue
        needs = step.get("needs")
        before = [f"{prefix}{index - 1}"] if index else []
        needed = before if needs is None else [keys[name] for name in needs]
        if all(one in by_key and by_key[one].is_over for one in needed):
            made = _make(parent, step, key, index, {})
            state = State.SKIPPED if made.is_skipped else State.READY
            by_key[key] = Child(key, state, step["name"], False, None)


def _are_missing(
    steps: Sequence[Mapping[str, Any]], by_key: Mapping[str, Child], prefix: str
) -> bool:
    return any(f"{prefix}{index}" not in by_key for index in range(len(steps)))


def _sleep(parent: Parent, is_more: bool) -> None:
    """Until the next step ends where others wait for it, else until all have."""
    parent.run.wake_at = max(parent.open_steps - 1, 0) if is_more else 0


def _show_progress(
    parent: Parent, steps: Sequence[Mapping[str, Any]], by_key: Mapping[str, Child]
) -> None:
    done = sum(child.is_over for key, child in by_key.items() if not key.startswith("f"))
    parent.progress = round(100 * done / len(steps), 2)


# -- group -----------------------------------------------------------------------------------------


def _advance_parallel(parent: Parent) -> None:
    steps = parent.definition["parallel"]
    if "failed" in parent.state:
        _end_or_stop(parent)
        return
    there = {child.key for child in parent.children}
    for index, step in enumerate(steps):
        if str(index) not in there:
            _make(parent, step, str(index), index, {})
    if steps:
        parent.progress = round(100 * (len(steps) - parent.open_steps) / len(steps), 2)
    if not parent.open_steps:
        _end(parent)


def _advance_each(parent: Parent) -> None:
    each = parent.definition["each"]
    if "failed" in parent.state:
        _end_or_stop(parent)
        return
    items = parent.state.get("items")
    if items is None:
        listed = each["list"]
        if isinstance(listed, str):
            listed = expressions.evaluate_list(listed, names_of(parent, {}, each))
        items = listed
        parent.state["items"] = seal(items, ()) if parent.is_sealed else items
        parent.state["size"] = len(items)
    else:
        items = opened(items).payload
    at = parent.state.get("next") or 0
    most = each.get("concurrency") or len(items)
    until = at + ITEMS_AT_ONCE
    while at < min(len(items), until) and parent.open_steps < most:
        item = {"index": str(at), "value": items[at]}
        _make(parent, each["step"], str(at), at, {each.get("var") or "item": item})
        at += 1
    parent.state["next"] = at
    if at < len(items):
        if parent.open_steps < most:
            parent.again_seconds = 0.0
        else:
            parent.run.wake_at = most - 1
    elif not parent.open_steps:
        _end(parent)
    if items:
        parent.progress = round(100 * (at - parent.open_steps) / len(items), 2)


def _end_or_stop(parent: Parent) -> None:
    if parent.run.open_steps:
        parent.must_stop = True
    else:
        _end(parent)


def _end(parent: Parent) -> None:
    failed = parent.state.get("failed")
    if failed is None:
        output = parent.definition.get("output")
        result = (
            _output(parent, output) if output is not None and parent.job.kind == STEPS else None
        )
        parent.ending = Ending(Outcome.SUCCEEDED, result)
        return
    outcome = Outcome.CANCELLED if failed["is_cancelled"] else Outcome.FAILED
    if failed.get("is_late"):
        outcome = Outcome.TIMEOUT
    parent.ending = Ending(outcome, error=failed["error"], error_type=failed["type"])


def _output(parent: Parent, text: str) -> Any:
    names = names_of(parent, {}, {"output": text})
    template = expressions.Template.parse(text)
    # A dialect's results are text, as its clients know them.
    is_text = bool(parent.definition.get("dialect"))
    return parent.shown(template.render(names) if is_text else template.value(names))


# -- Steps to be made ------------------------------------------------------------------------------


def names_of(
    parent: Parent, bindings: Mapping[str, Any], reader: Mapping[str, Any]
) -> dict[str, Any]:
    """What the expressions of ``reader`` may name."""
    root = parent.root_definition
    is_wanted = "tasks" in names_read(reader)
    return {
        **parent.definition.get("bindings", {}),
        **bindings,
        "inputs": root.get("inputs") or {},
        "secrets": root.get("secrets") or {},
        "tasks": parent.results() if is_wanted else {},
        "job": {"id": parent.root.pk.hex, "name": root.get("name") or ""},
    }


def _make(
    parent: Parent, step: Mapping[str, Any], key: str, index: int, bindings: Mapping[str, Any]
) -> Made:
    names = names_of(parent, bindings, step)
    rendered = render(step, names)
    if parent.masks:
        rendered = replace(
            rendered,
            **{name: parent.shown(getattr(rendered, name)) for name in ("name", "var", "queue")},
        )
    own, is_top = parent.step, parent.job.kind == STEPS
    part_of = StepOf(
        parent_id=parent.job.pk,
        root_id=parent.root.pk,
        key=key,
        name=rendered.name,
        position=_place(parent, key, index) if is_top or own is None else own.position,
        index=index,
        var=rendered.var,
        is_tolerated=bool(step.get("continue_on_error")),
        definition=parent.shown(_said(step, bindings)),
    )
    new = NewJob(step=part_of, tags=step.get("tags") or (), **_terms(parent, step, rendered))
    if rendered.is_skipped:
        new.kind, new.type, new.payload = GROUP, GROUP, {"parallel": []}
        new.max_attempts = None
    else:
        _fill_in(parent, new, step, rendered, names, bindings)
    made = Made(new, rendered.is_skipped)
    parent.made.append(made)
    return made


def _place(parent: Parent, key: str, index: int) -> int:
    return index + 1 + (len(parent.definition["steps"]) if key.startswith("f") else 0)


def _said(step: Mapping[str, Any], bindings: Mapping[str, Any]) -> dict[str, Any]:
    """What the definition says of a step beside its work."""
    said = {
        key: value
        for key, value in step.items()
        if key not in ("payload", "parallel", "each", "subjob", "tags", "var", "name")
    }
    for form in ("parallel", "each", "subjob"):
        if form in step:
            said["form"] = form
    for name, item in bindings.items():
        said["item"] = {"name": name, "index": item["index"]}
    return said


def _terms(parent: Parent, step: Mapping[str, Any], rendered: Rendered) -> dict[str, Any]:
    defaults = _defaults(parent)
    terms = {}
    is_work = step.get("kind") is not None
    for key in DEFAULTS:
        # The defaults are of pieces of work; what is made of them has only what it says itself.
        fallback = defaults.get(key) if is_work or key in ("queue", "priority") else None
        value = step.get(key) if step.get(key) is not None else fallback
        if value is not None:
            terms[key] = value
    terms["queue"] = rendered.queue or terms.get("queue") or parent.job.queue
    terms.setdefault("priority", parent.job.priority)
    return terms


def _defaults(parent: Parent) -> Mapping[str, Any]:
    return parent.root_definition.get("defaults") or {}


def _fill_in(
    parent: Parent,
    new: NewJob,
    step: Mapping[str, Any],
    rendered: Rendered,
    names: Mapping[str, Any],
    bindings: Mapping[str, Any],
) -> None:
    """The work of a step."""
    if step.get("kind") is not None:
        new.kind, new.type = step["kind"], step.get("type") or ""
        new.payload = parent.kept(rendered.payload)
        return
    if step.get("subjob") is not None:
        _fill_in_subjob(parent, new, step["subjob"], names)
        return
    scope = {**parent.definition.get("bindings", {}), **bindings}
    form = "each" if step.get("each") is not None else "parallel"
    new.kind = new.type = GROUP
    new.payload = parent.kept({"name": rendered.name, form: step[form], "bindings": scope})


def _fill_in_subjob(
    parent: Parent, new: NewJob, subjob: Mapping[str, Any], names: Mapping[str, Any]
) -> None:
    definition = {key: value for key, value in subjob.items() if key != "detached"}
    for key in ("name", "inputs", "secrets"):
        if key in definition:
            definition[key] = render_all(definition[key], names)
    for key in ("create_queues", "dialect"):
        if key in parent.root_definition:
            definition.setdefault(key, parent.root_definition[key])
    new.kind, new.type, new.payload = STEPS, STEPS, parent.kept(definition)
    new.notes = _audience(parent)
    if subjob.get("detached"):
        parent.detached.append(
            NewJob(
                kind=STEPS,
                queue=new.queue,
                priority=new.priority,
                payload=new.payload,
                max_attempts=new.max_attempts,
                timeout_seconds=new.timeout_seconds,
                notes=_audience(parent),
            )
        )
        # It is done when the other one has been enqueued.
        new.kind, new.type, new.payload = GROUP, GROUP, {"parallel": []}
        new.notes = None


def _audience(parent: Parent) -> Mapping[str, Any] | None:
    """Lists show a sub-job to whom they show the job that it is of."""
    notes = parent.root.dialect_notes or {}
    return {AUDIENCE: notes[AUDIENCE]} if AUDIENCE in notes else None
