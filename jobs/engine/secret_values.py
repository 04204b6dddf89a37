"""Named secrets on their way to the work: fetched sealed by the node, opened by the child that runs it.

The node knows which names a payload says; what it fetches and sends is what is stored. Only the child
puts values into the payload, and from then on they are taken out of all that the work says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.engine.claim import Claimed
from jobs.models import Secret
from jobs.references import names_in_json, resolved
from jobs.sealing import NAMES, SEAL, SealError, opened, opened_secret

# Names to what is stored of them; those that are not there are left out.
SealedValues = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WithSecrets:
    """A payload whose secrets are still sealed."""

    payload: Any
    sealed: SealedValues


def names_wanted(payload: str | None) -> set[str]:
    """The secrets that a stored payload names."""
    if payload is not None and SEAL in payload and NAMES in payload:
        stored = json.loads(payload)
        if isinstance(stored, dict) and SEAL in stored:
            return {name for name in stored.get(NAMES, ()) if isinstance(name, str)}
    return names_in_json(payload)


def fetch(using: str, jobs: Iterable[Claimed]) -> dict[str, SealedValues]:
    """What is stored of the secrets that jobs name, by the id of each that names any."""
    wanted = {job.id: names for job in jobs if (names := names_wanted(job.payload))}
    if not wanted:
        return {}
    stored = Secret.objects.using(using).all().sealed_values(set().union(*wanted.values()))
    return {
        job_id: {name: stored[name] for name in names if name in stored}
        for job_id, names in wanted.items()
    }


def filled_in(kind: str, payload: Any) -> tuple[Any, tuple[str, ...]]:
    """A payload as its work gets it, and what must not be seen of it.

    Raises ``MissingSecret``, and ``SealError`` where what is stored cannot be opened.
    """
    if not isinstance(payload, WithSecrets):
        kept = opened(payload)
        return kept.payload, kept.masks
    kept = opened(payload.payload)
    values = {name: opened_secret(name, text) for name, text in payload.sealed.items()}
    return resolved(kind, kept.payload, values), (*kept.masks, *sorted(values.values()))


def masks_of(payload: str | None, sealed: SealedValues) -> tuple[str, ...]:
    """What must not be seen of a job, for a node that reads its output in its child's place."""
    masks: list[str] = []
    try:
        masks += opened(json.loads(payload or "null")).masks
        masks += [opened_secret(name, text) for name, text in sorted(sealed.items())]
    except SealError:
        # Its child could not open it either.
        return ()
    return tuple(masks)
