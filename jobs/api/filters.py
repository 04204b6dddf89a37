"""The search words as parameters of a query string, or as the filter in a body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from clusters.api.fields import (
    Choice,
    Flag,
    Id,
    Text,
    Texts,
    Time,
    parse_time,
    parse_uuid,
    read_query,
    refuse,
)
from clusters.api.paging import PageQuery
from clusters.models import Node
from jobs.executors import KINDS
from jobs.filter_text import MAX_LINE, LineError, pairs_of
from jobs.filters import COUNT_LIMIT, MAX_METADATA, SEARCHED, parse_metadata
from jobs.job_search import compares, parse_argument
from jobs.states import Reason, State, Trigger


class KeyAndValue(Text):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            parse_metadata(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error), "invalid") from None
        return text


class Since(Text):
    """A moment, or how long ago it was."""

    def to_internal_value(self, data: Any) -> datetime:  # type: ignore[override]
        text = super().to_internal_value(data)
        if (moment := parse_time(text)) is not None:
            return moment
        match = _AGO.match(text)
        if match is None:
            message = "Must be a length of time such as 30m, 2h or 7d, or a time with its offset."
            raise serializers.ValidationError(message, "invalid")
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})


class Comparison(Text):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            compares(text, 0)
        except ValueError as error:
            raise serializers.ValidationError(str(error), "invalid") from None
        return text


class Argument(Text):
    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            parse_argument(text)
        except ValueError as error:
            raise serializers.ValidationError(str(error), "invalid") from None
        return text


_AGO = re.compile(r"([0-9]{1,4})(s|m|h|d|w)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
MAX_ARGUMENTS = 5


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
    attempt = Comparison(
        max_length=12, required=False, help_text="Attempts so far: `3`, `>3`, `>=3`, `<3`, `<=3`."
    )
    error = Text(max_length=200, required=False, help_text="Holds this text, in any case.")
    args = Texts(
        child=Argument(max_length=400),
        required=False,
        max_length=MAX_ARGUMENTS,
        help_text="`user.id:123`: the names that lead to a value of the payload, and the value; "
        "repeated, all of them. Secrets are compared as they are shown.",
    )
    since = Since(
        required=False,
        help_text="Made within this time, such as `30m`, `2h` or `7d`; or this moment or later.",
    )
    created_after = Time(required=False, help_text="This moment or later.")
    created_before = Time(required=False, help_text="Earlier than this moment.")
    finished_after = Time(required=False, help_text="This moment or later.")
    finished_before = Time(required=False, help_text="Earlier than this moment.")


class JobLine(JobFilter):
    q = Text(
        max_length=MAX_LINE,
        required=False,
        help_text='The same words as one line: `state:failed queue:mail error:"timed out" '
        "args.user.id:123`; `node` may be the name of a host there.",
    )


class JobListQuery(PageQuery, JobLine):
    count = Choice(
        choices=("exact", "estimate"),
        required=False,
        help_text=(
            f"Add `count` and `is_exact`: counted, up to {COUNT_LIMIT}, or as the planner guesses."
        ),
    )


def spelled_out(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The checked words, and with them those of the line in ``q``."""
    words = dict(asked)
    line = words.pop("q", None)
    if line is None:
        return words
    read = read_line(line)
    for word in sorted(read.keys() & words.keys()):
        refuse(word, "Stands in the line and beside it.", "repeated")
    return words | read


def read_line(line: str) -> dict[str, Any]:
    """The checked words of a line; what is wrong is said by the name of its word."""
    try:
        return read_pairs(pairs_of(line))
    except LineError as error:
        refuse(error.word, error.message)


def read_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The checked words of pairs that somebody wrote."""
    query = QueryDict(mutable=True)
    for word, value in pairs:
        query.appendlist(word, _node_id(value) if word == "node" else value)
    return read_query(JobFilter, query)


def check_countable(asked: Mapping[str, Any]) -> None:
    """Refuse to count what is found by looking at one job after the other."""
    if searched := SEARCHED & asked.keys():
        refuse(min(searched), "What this finds cannot be counted; turn the pages of the list.")


def _node_id(text: str) -> str:
    """A node by its id, or by its host, or by that and its process where there are several."""
    if parse_uuid(text) is not None:
        return text
    host, colon, pid = text.rpartition(":")
    nodes = Node.objects.all().alive()
    if colon and pid.isascii() and pid.isdigit():
        nodes = nodes.filter(host=host, pid=int(pid[:9]))
    else:
        nodes = nodes.filter(host=text)
    found = [*nodes.order_by("pid").values_list("pk", "host", "pid")[:3]]
    if not found:
        refuse("node", "There is no live node of this name.")
    if len(found) > 1:
        names = " or ".join(f"{host}:{pid}" for _, host, pid in found)
        refuse("node", f"There are several; say which: {names}.")
    return str(found[0][0])
