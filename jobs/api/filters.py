"""The search words as parameters of a query string, or as the filter in a body."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from clusters.api.fields import Choice, Flag, Id, Text, Texts, Time
from clusters.api.paging import PageQuery
from jobs.executors import KINDS
from jobs.filters import COUNT_LIMIT, MAX_METADATA, parse_metadata
from jobs.states import Reason, State, Trigger


class KeyAndValue(Text):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            parse_metadata(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error), "invalid") from None
        return text


class JobFilter(serializers.Serializer[Any]):
    state = Texts(
        child=Choice(choices=State.values),
        required=False,
        max_length=len(State.values),
        help_text="One state or, repeated, several.",
    )
    queue = Text(max_length=100, required=False)
    type = Text(max_length=200, required=False)
    kind = Choice(choices=sorted(KINDS), required=False)
    tag = Text(max_length=60, required=False, help_text="Jobs that carry this tag.")
    metadata = Texts(
        child=KeyAndValue(max_length=400),
        required=False,
        max_length=MAX_METADATA,
        help_text="`key:value`; repeated, all of them. The value is a string, number or boolean of "
        "JSON, and anything else a string as it stands.",
    )
    reason = Choice(choices=Reason.values, required=False, help_text="Why it failed.")
    is_held = Flag(required=False, help_text="Failed, and kept for a person to decide.")
    failure = Text(max_length=16, required=False, help_text="Fingerprint of a group of failures.")
    copy_of = Id(required=False, help_text="Jobs that were requeued from this one.")
    schedule = Id(required=False, help_text="Runs of this schedule.")
    trigger = Choice(choices=Trigger.values, required=False, help_text="What made them run.")
    workflow_run = Id(required=False, help_text="Jobs of this run of a workflow.")
    unique_key = Text(max_length=200, required=False)
    node = Id(required=False, help_text="Running jobs that this node holds.")
    created_after = Time(required=False, help_text="This moment or later.")
    created_before = Time(required=False, help_text="Earlier than this moment.")
    finished_after = Time(required=False, help_text="This moment or later.")
    finished_before = Time(required=False, help_text="Earlier than this moment.")


class JobListQuery(PageQuery, JobFilter):
    count = Choice(
        choices=("exact", "estimate"),
        required=False,
        help_text=(
            f"Add `count` and `is_exact`: counted, up to {COUNT_LIMIT}, or as the planner guesses."
        ),
    )
