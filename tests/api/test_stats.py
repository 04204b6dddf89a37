"""{cluster}/stats and {cluster}/timeline"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.api.stats import StatsAnswer, StatsItem, TimelineAnswer, TimelinePoint
from jobs.engine.rollup import fold_tallies
from jobs.models import Rollup, Tally
from jobs.models.rollup import HOUR, Event
from tests.api.conftest import Api, fields

CORPUS = Path(__file__).parent.parent / "corpora" / "bad_spans.txt"
BAD_SPANS = [
    tuple(line.rsplit(" ", 1))
    for line in CORPUS.read_text().splitlines()
    if line and not line.startswith("#")
]


def make_tally(event: str = Event.ENQUEUED, *, at: datetime | None = None, **columns: Any) -> Tally:
    minute = (at or timezone.now()).replace(second=0, microsecond=0)
    defaults = {"minute": minute, "queue": "mail", "type": "send", "count": 1}
    return Tally.objects.create(event=event, **{**defaults, **columns})


def rfc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_stats_tell_counts_rates_and_times(alpha: object, viewer: Api) -> None:
    make_tally(Event.ENQUEUED, count=9)
    make_tally(Event.STARTED, bucket=0, count=8)
    make_tally(Event.SUCCEEDED, bucket=40, count=6)
    make_tally(Event.FAILED, bucket=40, count=2)
    fold_tallies("cluster-alpha", ClusterPolicy())
    make_tally(Event.ENQUEUED, count=1)
    body = viewer.get("alpha/stats").json()
    assert list(body) == list(StatsAnswer().fields)
    (item,) = body["items"]
    assert list(item) == [name for name in StatsItem().fields if name not in ("queue", "type")]
    assert (item["enqueued"], item["started"], item["succeeded"]) == (10, 8, 6)
    assert item["failure_rate"] == 0.25
    # 24 hours, rounded to minutes.
    assert item["finished_per_second"] == pytest.approx(8 / 86400, rel=0.01)
    assert 0.0008 < item["wait_seconds"]["p50"] <= 0.001
    assert 0.86 < item["run_seconds"]["p99"] <= 1.024
    assert item["run_seconds"]["mean"] == pytest.approx(0.94, rel=0.02)
    assert body["as_of"].endswith("Z")
    assert parsed(body["from"]).second == 0
    assert timedelta(hours=24) <= parsed(body["to"]) - parsed(body["from"])


def test_where_nothing_happened_there_are_zeros_and_no_times(alpha: object, viewer: Api) -> None:
    (item,) = viewer.get("alpha/stats?queue=mail").json()["items"]
    assert (item["enqueued"], item["failure_rate"], item["finished_per_second"]) == (0, None, 0)
    assert item["wait_seconds"] == {"p50": None, "p90": None, "p99": None, "mean": None}


def test_groups_have_names(alpha: object, viewer: Api) -> None:
    make_tally(queue="mail", type="send", count=2)
    make_tally(queue="web", type="send")
    by_queue = viewer.get("alpha/stats?group_by=queue").json()["items"]
    assert [(item["queue"], item["enqueued"]) for item in by_queue] == [("mail", 2), ("web", 1)]
    by_type = viewer.get("alpha/stats?group_by=type&queue=mail").json()["items"]
    assert [(item["type"], item["enqueued"]) for item in by_type] == [("send", 2)]
    (alone,) = viewer.get("alpha/stats?group_by=none&type=send").json()["items"]
    assert (alone["enqueued"], "queue" in alone, "type" in alone) == (3, False, False)


def test_from_and_to_choose(alpha: object, viewer: Api) -> None:
    now = timezone.now()
    make_tally(at=now - timedelta(hours=3))
    make_tally(at=now)
    span = f"from={rfc(now - timedelta(hours=4))}&to={rfc(now - timedelta(hours=2))}"
    assert viewer.get(f"alpha/stats?{span}").json()["items"][0]["enqueued"] == 1
    assert viewer.get("alpha/stats").json()["items"][0]["enqueued"] == 2


def test_the_other_cluster_has_its_own_figures(alpha: object, viewer: Api) -> None:
    with cluster_bound("beta"):
        make_tally(count=5)
    assert viewer.get("alpha/stats").json()["items"][0]["enqueued"] == 0


def test_a_timeline_has_a_point_for_every_step(alpha: object, viewer: Api) -> None:
    now = timezone.now()
    make_tally(Event.STARTED, at=now - timedelta(hours=2), bucket=0)
    make_tally(Event.SUCCEEDED, at=now - timedelta(hours=2), bucket=40)
    body = viewer.get(f"alpha/timeline?step=3600&from={rfc(now - timedelta(hours=5))}").json()
    assert list(body) == list(TimelineAnswer().fields)
    assert body["step_seconds"] == 3600
    assert 6 <= len(body["points"]) <= 7
    assert [parsed(point["at"]) for point in body["points"]] == [
        parsed(body["from"]) + timedelta(hours=index) for index in range(len(body["points"]))
    ]
    hit = [point for point in body["points"] if point["started"]]
    assert len(hit) == 1
    assert set(hit[0]) == set(TimelinePoint().fields)
    assert hit[0]["wait_p50_seconds"] <= 0.001
    assert 0.8 < hit[0]["run_p99_seconds"] <= 1.024
    gap = next(point for point in body["points"] if not point["started"])
    assert (gap["enqueued"], gap["run_p99_seconds"]) == (0, None)


def test_a_timeline_of_a_queue_and_a_type(alpha: object, viewer: Api) -> None:
    make_tally(queue="mail", type="send", count=2)
    make_tally(queue="mail", type="read", count=3)
    make_tally(queue="web", type="send", count=4)
    for asked, expected in (("queue=mail", 5), ("type=send", 6), ("queue=mail&type=send", 2)):
        points = viewer.get(f"alpha/timeline?{asked}").json()["points"]
        assert sum(point["enqueued"] for point in points) == expected


def test_a_long_timeline_reads_days(alpha: object, viewer: Api) -> None:
    then = timezone.now() - timedelta(days=300)
    make_tally(at=then)
    fold_tallies("cluster-alpha", ClusterPolicy())
    Rollup.objects.filter(resolution_seconds__in=(60, HOUR)).delete()
    body = viewer.get(f"alpha/timeline?from={rfc(then - timedelta(days=1))}").json()
    assert body["step_seconds"] == 86400
    assert sum(point["enqueued"] for point in body["points"]) == 1


@pytest.mark.once
@pytest.mark.parametrize("path", ["stats", "timeline"])
@pytest.mark.parametrize(("query", "field"), BAD_SPANS)
def test_a_bad_span_is_400_and_names_its_parameter(
    query: str, field: str, path: str, alpha: object, viewer: Api
) -> None:
    assert field in fields(viewer.get(f"alpha/{path}?{query}"))


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stats?group_by=state", "group_by"),
        ("stats?group_by=", "group_by"),
        ("stats?group_by=Queue", "group_by"),
        ("stats?step=60", "step"),
        ("timeline?group_by=queue", "group_by"),
        ("timeline?step=61", "step"),
        ("timeline?step=0", "step"),
        ("timeline?step=-60", "step"),
        ("timeline?step=60.0", "step"),
        ("timeline?step=%2060", "step"),
        ("timeline?step=3600&step=60", "step"),
        ("stats?queue=" + "q" * 101, "queue"),
        ("timeline?type=" + "t" * 201, "type"),
    ],
)
def test_a_bad_parameter_is_400_and_named(
    query: str, field: str, alpha: object, viewer: Api
) -> None:
    assert fields(viewer.get(f"alpha/{query}")) == [field]


@pytest.mark.parametrize(
    ("step", "first", "last", "code"),
    [
        ("60", 26, 0, "too_many_points"),
        ("60", 60, 59, "too_fine"),
        ("3600", 2200, 2190, "too_fine"),
    ],
)
def test_a_step_that_does_not_fit_the_span_is_400(
    step: str, first: int, last: int, code: str, alpha: object, viewer: Api
) -> None:
    now = timezone.now()
    span = f"from={rfc(now - timedelta(hours=first))}&to={rfc(now - timedelta(hours=last))}"
    response = viewer.get(f"alpha/timeline?step={step}&{span}")
    assert fields(response) == ["step"]
    assert response.json()["errors"][0]["code"] == code


def test_from_and_to_may_be_now(alpha: object, viewer: Api) -> None:
    soon = rfc(timezone.now() + timedelta(hours=1))
    assert viewer.get(f"alpha/stats?to={soon}").status_code == 200
    assert fields(viewer.get(f"alpha/stats?from={soon}")) == ["from"]
