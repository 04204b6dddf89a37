"""What a request may start: kinds that need a grant, and words that are not for everybody."""

from __future__ import annotations

from typing import Any

from authn.permissions import check_kinds
from authn.principal import Principal
from jobs.errors import InvalidJob, JobError
from jobs.executors.steps_definition import definitions_in
from jobs.step_words import STEPS

# What only dialects say of definitions of steps.
_OF_DIALECTS = ("create_queues", "dialect")


def refuse_words_of_dialects(kind: str | None, payload: Any) -> None:
    """These give more than a caller of our own API has: queues that are made on their first use."""
    if kind != STEPS:
        return
    for definition in definitions_in(payload):
        for key in _OF_DIALECTS:
            if key in definition:
                raise InvalidJob("only dialects say so", field=f"payload.{key}")


def check_grant(principal: Principal, cluster_id: str, *kinds: str | None) -> None:
    """Refuse what would start jobs of a kind that the caller may not start."""
    try:
        check_kinds(principal, cluster_id, [kind for kind in kinds if kind is not None])
    except JobError as error:
        error.index = None
        raise
