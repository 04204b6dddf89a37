"""What comes next for a job made of steps: which steps to make, whether to stop them, how it ends.

``advance`` looks at a parent as it was read under its locks and writes down what to do; it changes no
row. Of its state between two looks the parent keeps in ``StepsRun.state``:

    phase       `finally` once the ordinary steps are over; they run whatever happened
    refused     final steps that cannot be made
    failed      the first failure: {"error", "type", "is_cancelled", "is_late"}
    size, next  of ``each``: how long its list is, and how many of it have been made

The list itself is ``StepsRun.items``, written once, and sealed where there are secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs import expressions
from jobs.engine.step_making import make, names_of
from jobs.engine.step_parent import Child, Ending, Parent
from jobs.sealing import SealError, opened, seal
from jobs.states import Outcome, State
from jobs.step_words import STEPS

# Items of one list that are made by one look; the next look follows at once.
ITEMS_AT_ONCE = 500


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
    for key in parent.state.get("refused", ()):
        by_key[key] = Child(key, State.SKIPPED, key, False, None)
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
        if not all(one in by_key and by_key[one].is_over for one in needed):
            continue
        if parent.is_out_of_time:
            parent.again_seconds = 0.0
            return
        try:
            made = make(parent, step, key, index, {})
        except expressions.ExpressionError as error:
            if not prefix:
                raise
            parent.fail(str(error), type(error).__name__)
            parent.refuse([key])
            by_key[key] = Child(key, State.SKIPPED, step["name"], False, None)
            continue
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
        if parent.is_out_of_time:
            parent.again_seconds = 0.0
            return
        if str(index) not in there:
            make(parent, step, str(index), index, {})
    if steps:
        parent.progress = round(100 * (len(steps) - parent.open_steps) / len(steps), 2)
    if not parent.open_steps:
        _end(parent)


def _advance_each(parent: Parent) -> None:
    each = parent.definition["each"]
    if "failed" in parent.state:
        _end_or_stop(parent)
        return
    if parent.run.items is None:
        items = each["list"]
        if isinstance(items, str):
            items = expressions.evaluate_list(items, names_of(parent, {}, {"list": items}))
        parent.run.items = seal(items, ()) if parent.is_sealed else items
        parent.has_new_items = True
        parent.state["size"] = len(items)
    else:
        items = opened(parent.run.items).payload
    at = parent.state.get("next") or 0
    most = each.get("concurrency") or len(items)
    until = at + ITEMS_AT_ONCE
    while at < min(len(items), until) and parent.open_steps < most and not parent.is_out_of_time:
        item = {"index": str(at), "value": items[at]}
        make(parent, each["step"], str(at), at, {each.get("var") or "item": item})
        at += 1
    parent.state["next"] = at
    if at < len(items):
        if parent.open_steps < most:
            parent.again_seconds = 0.0
        else:
            # Some at a time where many run: each look reads the whole list.
            parent.run.wake_at = most - max(most // 10, 1)
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
