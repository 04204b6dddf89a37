"""The keys that payloads with secrets are encrypted with."""

from __future__ import annotations

import re
from pathlib import Path

from config.env import Environment

VARIABLE = "YARDMASTER_SECRETS_KEY"
MIN_LENGTH = 32
# Of random text of that length more are different.
_MIN_DIFFERENT = 10
# Words of examples, which somebody may have copied.
_EXAMPLES = re.compile(r"change-?_?me|example|default|insecure|placeholder|your-?_?key", re.I)


def read_secrets_keys(env: Environment, kept: Path) -> list[str]:
    """The keys, the one that encrypts first; without any, work with secrets is refused.

    Several stand behind each other, between commas or on lines of their own. What is wrong with them is
    added to the problems of the environment.
    """
    text = env.text(VARIABLE)
    text = text or kept_text(kept)
    keys = [key for key in re.split(r"[,\s]+", text) if key]
    for number, key in enumerate(keys, 1):
        if problem := _problem(key):
            env.problems.append(f"{VARIABLE}: key {number} {problem}")
    if len({*keys}) != len(keys):
        env.problems.append(f"{VARIABLE}: names a key twice")
    return keys


def kept_text(path: Path) -> str:
    """What `manage.py up` keeps there."""
    return path.read_text().strip() if path.exists() else ""


def _problem(key: str) -> str | None:
    if len(key) < MIN_LENGTH:
        return f"needs at least {MIN_LENGTH} characters"
    if _EXAMPLES.search(key):
        return "is one out of an example"
    if len({*key}) < _MIN_DIFFERENT:
        return "is not random"
    return None
