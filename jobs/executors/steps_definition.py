"""The payload of a ``steps`` job: its definition. Pure.

    {"name": "nightly", "inputs": {"region": "eu"}, "output": "{{ tasks.report }}",
     "steps": [{"name": "fetch", "var": "raw", "kind": "python", "type": "fetch",
                "payload": {"region": "{{ inputs.region }}"}},
               {"name": "all", "each": {"list": "{{ tasks.raw }}", "concurrency": 2,
                                        "step": {"name": "one", "kind": "http", "payload": {…}}}}],
     "finally": [{"name": "tidy", "kind": "python", "type": "tidy"}]}

A step is a job of any kind, or one of ``parallel`` (steps at once), ``each`` (one step for each item of a
list) and ``subjob`` (a definition of its own, with its own inputs and results). A step without ``needs``
waits for the one before it; ``needs`` names those it waits for instead. ``{{ … }}`` is rendered when the
step's turn comes, see ``jobs.executors.steps``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jobs import expressions
from jobs.errors import InvalidJob
from jobs.redaction import REDACTED
from jobs.references import strings
from jobs.step_words import (
    DEFAULTS,
    GROUP,
    MAX_STEP_NAME_LENGTH,
    MAX_STEPS_NAME_LENGTH,
    MAX_VAR_LENGTH,
    STEPS,
)

MAX_STEPS = 1000
MAX_DEPTH = 10
MAX_ENTRIES, MAX_NAME = 200, 200
MAX_TEXT_BYTES = 64 << 10
MAX_CONCURRENCY = 99_999
MAX_ITEMS = 100_000

_DEFINITION = (
    *("name", "description", "steps", "finally", "inputs", "secrets", "output", "defaults"),
    *("webhooks", "create_queues", "dialect"),
)
_STEP = (
    *("name", "description", "needs", "if", "var", "continue_on_error", "tags", "kind", "type"),
    *("payload", "parallel", "each", "subjob"),
    *DEFAULTS,
)
_COMPOSITES = ("parallel", "each", "subjob")
_EACH = ("list", "var", "concurrency", "step")
_WEBHOOK = ("url", "headers", "event", "if", "format")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
WEBHOOK_EVENTS = ("job.StateChange", "job.Progress", "task.StateChange", "task.Progress")
_URL = re.compile(r"https?://[^\s@/?#]+([/?#][\x21-\x7e]*)?\Z", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
# Names that an item of `each` cannot take.
_TAKEN = frozenset({"inputs", "secrets", "tasks", "job"})
# Parts of payloads that are taken as they are: programs, and what would be another place or power.
AS_IT_IS: Mapping[str, frozenset[str]] = {
    "shell": frozenset({"script", "files", "timeout_seconds", "aliases"}),
    "container": frozenset(
        {
            *("run", "files", "entrypoint", "workdir", "mounts", "networks", "limits"),
            *("timeout_seconds", "registry", "gpus", "sidecars", "aliases"),
        }
    ),
}
# Kinds whose payload holds text only: a template is text there, whatever its value is.
TEXTUAL = frozenset({"shell", "container"})


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when this could never run."""
    _Checker().definition(payload, "payload", 0)


def kinds_in(payload: Any, depth: int = 0) -> Iterator[str]:
    """The kinds of all steps of a definition, at every depth; of what is none, as far as it is one."""
    # Deeper ones are refused by whoever checks it.
    if not isinstance(payload, dict) or depth > 2 * MAX_DEPTH:
        return
    for part in ("steps", "finally", "parallel"):
        steps = payload.get(part)
        for step in steps if isinstance(steps, list) else ():
            yield from _kinds_of(step, depth + 1)
    each = payload.get("each")
    if isinstance(each, dict):
        yield from _kinds_of(each.get("step"), depth + 1)
    yield from kinds_in(payload.get("subjob"), depth + 1)


def definitions_in(payload: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A definition and those of its sub-jobs; of what is none, as far as it is one."""
    if not isinstance(payload, dict) or depth > 2 * MAX_DEPTH:
        return
    if depth == 0 or "steps" in payload:
        yield payload
    for part in ("steps", "finally", "parallel"):
        steps = payload.get(part)
        for step in steps if isinstance(steps, list) else ():
            yield from _definitions_below(step, depth)
    each = payload.get("each")
    if isinstance(each, dict):
        yield from _definitions_below(each.get("step"), depth)


def _definitions_below(step: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if isinstance(step, dict):
        subjob = step.get("subjob")
        inner = subjob if isinstance(subjob, dict) else {**step, "steps": None}
        yield from (one for one in definitions_in(inner, depth + 1) if one is not inner or subjob)


def steps_in(definition: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every step of a sound definition, and its defaults, each with where it stands."""
    if definition.get("defaults") is not None:
        yield f"{path}.defaults", definition["defaults"]
    for part in ("steps", "finally", "parallel"):
        for index, step in enumerate(definition.get(part) or ()):
            yield from _step_and_below(step, f"{path}.{part}[{index}]")
    if definition.get("each") is not None:
        yield from _step_and_below(definition["each"]["step"], f"{path}.each.step")
    if definition.get("subjob") is not None:
        yield from steps_in(definition["subjob"], f"{path}.subjob")


def _step_and_below(step: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, step
    yield from steps_in(step, path)


def _kinds_of(step: Any, depth: int) -> Iterator[str]:
    if isinstance(step, dict):
        kind = step.get("kind")
        if isinstance(kind, str):
            yield kind
        yield from kinds_in(step, depth)


# -- What may be said ------------------------------------------------------------------------------


class _Checker:
    """Walks one definition and counts its steps."""

    def __init__(self) -> None:
        self.count = 0

    def definition(self, value: Any, path: str, depth: int, more: tuple[str, ...] = ()) -> None:
        _object(value, path, _DEFINITION + more)
        if depth > MAX_DEPTH:
            raise InvalidJob(f"nested more than {MAX_DEPTH} deep", field=path)
        _text(value, "name", path, MAX_STEPS_NAME_LENGTH)
        _text(value, "description", path, MAX_TEXT_BYTES)
        _mapping(value, "inputs", path, of_text=False)
        _mapping(value, "secrets", path)
        _template(value, "output", path)
        self._defaults(value.get("defaults"), f"{path}.defaults")
        # Clients of a dialect may say what never comes to anything, as they may at home.
        is_lenient = value.get("dialect") is not None
        self._webhooks(value.get("webhooks"), f"{path}.webhooks", is_lenient=is_lenient)
        if not is_lenient and REDACTED in strings(value.get("secrets")):
            raise InvalidJob(
                f"{REDACTED} stands for a value that is not stored here", field=f"{path}.secrets"
            )
        _boolean(value, "create_queues", path)
        if value.get("dialect") not in (None, "tork"):
            raise InvalidJob("there is no such dialect", field=f"{path}.dialect")
        self._steps(value.get("steps"), f"{path}.steps", depth, may_need=True)
        if value.get("finally") is not None:
            self._steps(value["finally"], f"{path}.finally", depth, may_need=True)

    def _steps(self, steps: Any, path: str, depth: int, *, may_need: bool) -> None:
        if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
            raise InvalidJob(f"a list of 1 to {MAX_STEPS} steps", field=path)
        names: list[str] = []
        for index, step in enumerate(steps):
            self._step(step, f"{path}[{index}]", depth)
            needs = step.get("needs")
            if needs is not None:
                _check_needs(needs, names, f"{path}[{index}].needs", may_need=may_need)
            names.append(step["name"])
        needed = {name for step in steps for name in step.get("needs") or ()}
        if twice := next((name for name in needed if names.count(name) > 1), None):
            raise InvalidJob(f"two steps are named {twice[:60]!r}, and one needs it", field=path)

    def _step(self, step: Any, path: str, depth: int) -> None:
        _object(step, path, _STEP)
        self.count += 1
        if self.count > MAX_STEPS:
            raise InvalidJob(f"more than {MAX_STEPS} steps in all", field=path)
        if depth >= MAX_DEPTH:
            raise InvalidJob(f"nested more than {MAX_DEPTH} deep", field=path)
        if not isinstance(step.get("name"), str) or not step["name"].strip():
            raise InvalidJob("a step has a name", field=f"{path}.name")
        _text(step, "name", path, MAX_STEP_NAME_LENGTH)
        _template(step, "name", path)
        _text(step, "description", path, MAX_TEXT_BYTES)
        _template(step, "if", path)
        _text(step, "var", path, MAX_VAR_LENGTH)
        _template(step, "var", path)
        _boolean(step, "continue_on_error", path)
        forms = [form for form in ("kind", *_COMPOSITES) if step.get(form) is not None]
        if len(forms) != 1:
            raise InvalidJob("give one of kind, parallel, each and subjob", field=path)
        if forms[0] != "kind":
            for key in ("type", "payload"):
                if key in step:
                    raise InvalidJob("only with a kind", field=f"{path}.{key}")
        _check_terms(step, path)
        if forms[0] == "kind":
            _check_work(step, path)
        elif forms[0] == "parallel":
            self._steps(step["parallel"], f"{path}.parallel", depth + 1, may_need=False)
        elif forms[0] == "each":
            self._each(step["each"], f"{path}.each", depth + 1)
        else:
            subjob = step["subjob"]
            self.definition(subjob, f"{path}.subjob", depth + 1, ("detached",))
            _boolean(subjob, "detached", f"{path}.subjob")
            for part in ("inputs", "secrets"):
                _check_templates(subjob.get(part), f"{path}.subjob.{part}")

    def _each(self, each: Any, path: str, depth: int) -> None:
        _object(each, path, _EACH)
        listed = each.get("list")
        if isinstance(listed, str):
            _expression(listed, f"{path}.list")
        elif not isinstance(listed, list) or len(listed) > MAX_ITEMS:
            raise InvalidJob("a list, or an expression that gives one", field=f"{path}.list")
        var = each.get("var")
        if var is not None and (
            not isinstance(var, str) or not _IDENTIFIER.match(var) or var in _TAKEN
        ):
            raise InvalidJob("a name of letters, digits and _", field=f"{path}.var")
        _text(each, "var", path, MAX_VAR_LENGTH)
        concurrency = each.get("concurrency", 0)
        if not _is_whole(concurrency) or not 0 <= concurrency <= MAX_CONCURRENCY:
            raise InvalidJob(f"from 0 to {MAX_CONCURRENCY}", field=f"{path}.concurrency")
        self._step(each.get("step"), f"{path}.step", depth)
        if "needs" in each["step"]:
            raise InvalidJob("has no others beside it", field=f"{path}.step.needs")

    def _defaults(self, defaults: Any, path: str) -> None:
        if defaults is None:
            return
        _object(defaults, path, DEFAULTS)
        _check_terms(defaults, path)

    def _webhooks(self, webhooks: Any, path: str, *, is_lenient: bool) -> None:
        if webhooks is None:
            return
        if not isinstance(webhooks, list) or len(webhooks) > 20:
            raise InvalidJob("a list of at most 20 webhooks", field=path)
        for index, webhook in enumerate(webhooks):
            at = f"{path}[{index}]"
            _object(webhook, at, _WEBHOOK)
            if not isinstance(webhook.get("url"), str) or not webhook["url"]:
                raise InvalidJob("a webhook has a url", field=f"{at}.url")
            _text(webhook, "url", at, 2048)
            _mapping(webhook, "headers", at)
            _text(webhook, "event", at, 64)
            if not is_lenient:
                _check_delivery(webhook, at)
            if webhook.get("format") not in (None, "native", "tork"):
                raise InvalidJob("native or tork", field=f"{at}.format")
            if isinstance(webhook.get("if"), str):
                _expression(webhook["if"], f"{at}.if")
            _text(webhook, "if", at, MAX_TEXT_BYTES)
            _check_templates(webhook.get("headers"), f"{at}.headers")


def _check_delivery(webhook: Mapping[str, Any], at: str) -> None:
    """What could never be sent, or would never be told."""
    if not _URL.match(webhook["url"]):
        raise InvalidJob(
            "a url begins with http:// or https:// and has no spaces and no user part",
            field=f"{at}.url",
        )
    if webhook.get("event") not in (None, *WEBHOOK_EVENTS):
        raise InvalidJob(f"one of {', '.join(WEBHOOK_EVENTS)}", field=f"{at}.event")
    for name, value in (webhook.get("headers") or {}).items():
        is_sound = _HEADER.match(name) and name.lower() not in _OWN_HEADERS and value.isprintable()
        if not is_sound:
            raise InvalidJob("not a header that can be sent", field=f"{at}.headers.{name[:40]}")


def _check_needs(needs: Any, before: list[str], path: str, *, may_need: bool) -> None:
    if not may_need:
        raise InvalidJob("parallel steps do not wait for each other", field=path)
    if not isinstance(needs, list) or not all(isinstance(name, str) for name in needs):
        raise InvalidJob("a list of names of steps", field=path)
    for name in needs:
        if name not in before:
            raise InvalidJob(f"no step before it is named {name[:60]!r}", field=path)
    if len(set(needs)) != len(needs):
        raise InvalidJob("names a step twice", field=path)


def _check_terms(step: Mapping[str, Any], path: str) -> None:
    """The shapes of these; whether they are allowed ``jobs.engine.step_terms`` says."""
    for key in ("priority", "max_attempts"):
        if step.get(key) is not None and not _is_whole(step[key]):
            raise InvalidJob("a whole number", field=f"{path}.{key}")
    for key in ("timeout_seconds", "retry_base_seconds", "retry_cap_seconds"):
        value = step.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InvalidJob("a number of seconds", field=f"{path}.{key}")
    _text(step, "retry_curve", path, 200)
    _text(step, "type", path, 200)
    _text(step, "kind", path, 40)
    queue = step.get("queue")
    if queue is not None:
        _text(step, "queue", path, MAX_TEXT_BYTES)
        _template(step, "queue", path)
    _check_tags(step.get("tags"), f"{path}.tags")


def _check_tags(tags: Any, path: str) -> None:
    if tags is None:
        return
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidJob("a list of strings", field=path)


def _check_work(step: Mapping[str, Any], path: str) -> None:
    """The payload, as far as it does not depend on what comes out of expressions."""
    from jobs.executors import get_kind

    try:
        kind = get_kind(step["kind"])
    except InvalidJob as error:
        raise InvalidJob(str(error), field=f"{path}.kind") from None
    payload = step.get("payload")
    if kind.name in (STEPS, GROUP):
        raise InvalidJob("use subjob for steps within steps", field=f"{path}.kind")
    _check_templates(payload, f"{path}.payload", AS_IT_IS.get(kind.name, frozenset()))
    try:
        kind.validate(payload)
    except InvalidJob as error:
        if not _is_templated(payload, error.field or ""):
            raise InvalidJob(str(error), field=f"{path}.{error.field}") from None


def _is_templated(payload: Any, field: str) -> bool:
    """Whether the value of this field will only be known later."""
    value = payload
    for part in re.split(r"[.\[\]]+", field)[1:]:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
    return any("{{" in text for text in strings(value))


def _check_templates(value: Any, path: str, as_it_is: frozenset[str] = frozenset()) -> None:
    if isinstance(value, str):
        _parse(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in as_it_is:
                # The names below `env` are the program's.
                inner = frozenset() if key == "env" else as_it_is
                _check_templates(item, f"{path}.{str(key)[:40]}", inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_templates(item, f"{path}[{index}]", as_it_is)


def _parse(text: str, path: str) -> None:
    if "{{" not in text:
        return
    try:
        expressions.Template.parse(text)
    except expressions.ExpressionError as error:
        raise InvalidJob(str(error), field=path) from None


def _expression(text: str, path: str) -> None:
    try:
        if "{{" in text:
            expressions.Template.parse(text)
        else:
            expressions.compile(text)
    except expressions.ExpressionError as error:
        raise InvalidJob(str(error), field=path) from None


def _object(value: Any, path: str, keys: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise InvalidJob("an object", field=path)
    for key in value:
        if key not in keys:
            raise InvalidJob(f"unknown; there are {', '.join(keys)}", field=f"{path}.{key[:40]}")


def _text(value: Mapping[str, Any], key: str, path: str, most: int) -> None:
    text = value.get(key)
    if text is not None and (not isinstance(text, str) or len(text) > most or "\0" in text):
        raise InvalidJob(f"a string of at most {most} characters", field=f"{path}.{key}")


def _template(value: Mapping[str, Any], key: str, path: str) -> None:
    _text(value, key, path, MAX_TEXT_BYTES)
    if value.get(key) is not None:
        _parse(value[key], f"{path}.{key}")


def _boolean(value: Mapping[str, Any], key: str, path: str) -> None:
    if value.get(key) is not None and not isinstance(value[key], bool):
        raise InvalidJob("true or false", field=f"{path}.{key}")


def _mapping(value: Mapping[str, Any], key: str, path: str, *, of_text: bool = True) -> None:
    entries = value.get(key)
    if entries is None:
        return
    if not isinstance(entries, dict) or len(entries) > MAX_ENTRIES:
        raise InvalidJob(f"an object of at most {MAX_ENTRIES} entries", field=f"{path}.{key}")
    for name, entry in entries.items():
        at = f"{path}.{key}.{name[:40]}"
        if not 1 <= len(name) <= MAX_NAME:
            raise InvalidJob(f"a name of 1 to {MAX_NAME} characters", field=at)
        if of_text:
            _text(entries, name, f"{path}.{key}", MAX_TEXT_BYTES)
            if entry is None:
                raise InvalidJob("a string", field=at)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
