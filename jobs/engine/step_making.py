"""Steps to be made: the definition of one, and what is known when its turn has come, become a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.engine.new_job import NewJob, StepOf
from jobs.engine.step_parent import Made, Parent
from jobs.executors.steps import Rendered, names_read, render, render_all
from jobs.expressions import ExpressionError
from jobs.step_words import AUDIENCE, DEFAULTS, GROUP, STEPS


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


def make(
    parent: Parent, step: Mapping[str, Any], key: str, index: int, bindings: Mapping[str, Any]
) -> Made:
    """A step of a parent, with its expressions worked out; raises ``ExpressionError``."""
    try:
        names = names_of(parent, bindings, step)
        rendered = render(step, names)
    except ExpressionError as error:
        raise ExpressionError(f"step {step['name']!r}: {error}") from None
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
