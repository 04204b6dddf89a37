"""Read settings from the environment, and say all that is wrong with them at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


class Environment:
    """Typed access to environment variables.

    A bad value never raises: it is added to ``problems`` and the default stands in, so that one
    start shows every mistake. A variable ``NAME`` may be given as ``NAME_FILE``, the path of a file
    that holds the value; that is how secrets stay out of process lists.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables = os.environ if variables is None else variables
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        path = self.variables.get(f"{name}_FILE")
        value = self.variables.get(name)
        if path and value:
            self.problems.append(f"{name} and {name}_FILE are both set; keep one")
        if not path:
            return default if value is None else value
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{name}_FILE: cannot read {path!r}: {error}")
            return default

    def boolean(self, name: str, default: bool) -> bool:
        value = self.text(name, str(default)).strip().lower()
        if value in TRUE or value in FALSE:
            return value in TRUE
        self.problems.append(f"{name}: expected yes or no, got {value!r}")
        return default

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        text = self.text(name, str(default)).strip()
        try:
            value = int(text)
        except ValueError:
            self.problems.append(f"{name}: expected a whole number, got {text[:40]!r}")
            return default
        if not minimum <= value <= maximum:
            self.problems.append(f"{name}: {value} is not between {minimum} and {maximum}")
            return default
        return value

    def words(self, name: str, default: str = "") -> list[str]:
        """A comma-separated list; empty parts are dropped."""
        return [word.strip() for word in self.text(name, default).split(",") if word.strip()]

    def pairs(self, name: str, default: str = "") -> dict[str, str]:
        """A comma-separated list of `key=value`, each key once."""
        found: dict[str, str] = {}
        for word in self.words(name, default):
            key, separator, value = (part.strip() for part in word.partition("="))
            if not (key and separator and value) or key in found:
                self.problems.append(f"{name}: expected key=value, each key once, at {word[:40]!r}")
            found[key] = value
        return found

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).strip()
        if value in choices:
            return value
        self.problems.append(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        return default
