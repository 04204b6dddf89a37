"""Kind ``steps``: what becomes of a step when its turn comes. Pure.

The node runs these jobs itself, see ``jobs.engine.conductor``; what a definition may say is
``steps_definition``.

A definition hands named secrets on by its ``secrets``: ``{"token": "secret:api_token"}``. What comes
out of inputs and results is data, and must not become a reference to a secret, however it looks. So
expressions get a word instead of each reference that nobody can guess, and a text that holds a reference
before these words are taken back is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from jobs import expressions
from jobs.executors.steps_definition import AS_IT_IS, TEXTUAL
from jobs.references import is_reference, name_of, names_in, strings, written
from jobs.step_words import MAX_STEP_NAME_LENGTH, MAX_VAR_LENGTH


@dataclass(frozen=True, slots=True)
class Rendered:
    """A step with its expressions replaced by their values."""

    name: str
    var: str | None
    queue: str | None
    is_skipped: bool
    payload: Any


# What the expressions of one step may cost together: some tenths of a second.
STEP_OPERATIONS = 500_000


@dataclass(frozen=True, slots=True)
class _Disguise:
    """References to secrets as expressions see them: words that stand for them."""

    names: Mapping[str, Any]
    words: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Mapping[str, Any]) -> _Disguise:
        secrets = names.get("secrets")
        if not isinstance(secrets, Mapping) or not any(map(is_reference, secrets.values())):
            return cls(names)
        words = {}
        seen = dict(secrets)
        for name, value in secrets.items():
            if is_reference(value):
                seen[name] = f"yardmaster-secret-{token_hex(16)}"
                words[seen[name]] = written(name_of(value))
        return cls({**names, "secrets": seen}, words)

    def off(self, value: Any) -> Any:
        """What an expression came to, with the references that are meant and no others."""
        if found := sorted(names_in(value)):
            raise expressions.ExpressionError(
                f"what it comes to looks like a reference to the secret {found[0]!r}; name it under "
                "`secrets` of the definition"
            )
        return self._revealed(value) if self.words else value

    def _revealed(self, value: Any) -> Any:
        if isinstance(value, str):
            for word, reference in self.words.items():
                value = value.replace(word, reference)
            return value
        if isinstance(value, dict):
            return {key: self._revealed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._revealed(item) for item in value]
        return value


class _Purse:
    """Bounds what several expressions cost in all."""

    def __init__(self, disguise: _Disguise) -> None:
        self.disguise = disguise
        self._until = expressions.spent() + STEP_OPERATIONS

    def template(self, text: str) -> expressions.Template:
        """A text to be rendered, if there is something left."""
        if expressions.spent() > self._until:
            raise expressions.ExpressionError(
                f"the expressions of one step cost more than {STEP_OPERATIONS} operations"
            )
        return expressions.Template.parse(text)


def render(step: Mapping[str, Any], names: Mapping[str, Any]) -> Rendered:
    """Raises ``ExpressionError``. Of a composite step the payload is left to its own turn."""
    disguise = _Disguise.of(names)
    names = disguise.names
    condition = step.get("if")
    is_skipped = condition is not None and expressions.is_false(_rendered(condition, names))
    kind = step.get("kind")
    payload = None
    if kind is not None and not is_skipped:
        as_it_is = AS_IT_IS.get(kind, frozenset())
        payload = _value(step.get("payload"), names, as_it_is, kind in TEXTUAL, _Purse(disguise))

    def said(text: str) -> str:
        return str(disguise.off(_rendered(text, names))) if "{{" in text else text

    return Rendered(
        name=said(step["name"])[:MAX_STEP_NAME_LENGTH],
        var=said(step["var"])[:MAX_VAR_LENGTH] if step.get("var") else None,
        queue=said(step["queue"]) if step.get("queue") else None,
        is_skipped=is_skipped,
        payload=payload,
    )


def render_all(value: Any, names: Mapping[str, Any]) -> Any:
    """Every text in a value, rendered as text."""
    disguise = _Disguise.of(names)
    return _value(value, disguise.names, frozenset(), True, _Purse(disguise))


def names_read(step: Mapping[str, Any]) -> frozenset[str]:
    """What the expressions of a step read; with it nobody fetches results that none asks for."""
    found: set[str] = set()
    for text in _rendered_texts(step):
        if "{{" in text:
            found |= expressions.Template.parse(text).names
    if isinstance(step.get("list"), str):
        found |= expressions.unbraced(step["list"]).names
    return frozenset(found)


def _rendered_texts(step: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a step that are rendered when its turn comes; others may hold anything."""
    yield from strings([step.get(key) for key in ("name", "var", "queue", "if", "output")])
    subjob = step.get("subjob")
    if subjob is not None:
        yield from strings([subjob.get(key) for key in ("inputs", "secrets", "name")])
    yield from _payload_texts(
        step.get("payload"), AS_IT_IS.get(step.get("kind") or "", frozenset())
    )


def _payload_texts(value: Any, as_it_is: frozenset[str]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in as_it_is:
                yield from _payload_texts(item, frozenset() if key == "env" else as_it_is)
    elif isinstance(value, list):
        for item in value:
            yield from _payload_texts(item, as_it_is)


def value_of(kind: str, result: Any) -> Any:
    """What ``var`` keeps of a step's result: of programs what they wrote to their output file."""
    if kind in TEXTUAL:
        return result.get("output", "") if isinstance(result, dict) else ""
    return result


def _rendered(text: str, names: Mapping[str, Any]) -> str:
    return expressions.Template.parse(text).render(names) if "{{" in text else text


def _value(
    value: Any,
    names: Mapping[str, Any],
    as_it_is: frozenset[str],
    is_textual: bool,
    purse: _Purse,
) -> Any:
    if isinstance(value, str):
        if "{{" not in value:
            return value
        template = purse.template(value)
        found = template.render(names) if is_textual else template.value(names)
        return purse.disguise.off(found)
    if isinstance(value, dict):
        return {
            key: item
            if key in as_it_is
            else _value(item, names, frozenset() if key == "env" else as_it_is, is_textual, purse)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_value(item, names, as_it_is, is_textual, purse) for item in value]
    return value
