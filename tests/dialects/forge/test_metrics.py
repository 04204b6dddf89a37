"""The gauges, as Prometheus reads them; and what the database is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from jobs.histogram import bucket_of
from jobs.models import Job, Queue, Tally
from tests.dialects.forge.conftest import Caller
from tests.factories import make_job, make_node, make_queue

ALIAS = "cluster-alpha"
GAUGES = {
    "queue_pending_jobs": 2,
    "queue_scheduled_jobs": 1,
    "queue_in_flight_jobs": 1,
    "queue_done_jobs": 3,
    "queue_failed_jobs": 1,
    "queue_dead_jobs": 2,
    "queue_max_workers": 3,
    "queue_paused": 0,
    "queue_throttled": 0,
}


def scraped(caller: Caller) -> dict[tuple[str, str], float]:
    response = caller.get("metrics")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(response.content.decode()):
        if family.name.startswith("yardmaster_"):
            continue
        # Nothing but a summary has quantiles; promtool refuses gauges that do.
        assert family.type == ("summary" if family.name.endswith("_seconds") else "gauge") or (
            family.name == "queue_oldest_pending_age_seconds"
        )
        assert family.documentation
        for sample in family.samples:
            labels = sample.labels
            found[sample.name, labels["queue"] + labels.get("quantile", "")] = sample.value
    return found


def test_the_gauges_of_the_manual(viewer: Caller) -> None:
    make_queue("gh", max_concurrency=3)
    node = make_node()
    states = ["ready", "ready", "scheduled", "running", "failed", "cancelled", *["succeeded"] * 3]
    for state in states:
        make_job(state, queue="gh", node=node)
    make_job("scheduled", queue="gh", attempts=1)
    Job.objects.filter(state="ready").update(run_at=timezone.now() - timedelta(seconds=90))
    found = scraped(viewer)
    assert {name: found[name, "gh"] for name in GAUGES} == GAUGES
    assert 90 <= found["queue_oldest_pending_age_seconds", "gh"] <= 120
    assert found["queue_oldest_pending_age_seconds", "default"] == 0
    text = viewer.get("metrics").content.decode()
    for name in (*GAUGES, "queue_oldest_pending_age_seconds"):
        assert f"# TYPE {name} gauge\n" in text
        assert f"# HELP {name} " in text
    assert 'queue_pending_jobs{queue="gh"} 2.0\n' in text


def test_pauses_and_used_up_rates_are_ones(viewer: Caller) -> None:
    now = timezone.now().timestamp()
    make_queue("a", is_paused=True)
    make_queue("b", rate_limit=1, rate_period_seconds=60.0, rate_grants=[[now, 1]])
    found = scraped(viewer)
    assert [found["queue_paused", name] for name in ("a", "b")] == [1, 0]
    assert [found["queue_throttled", name] for name in ("a", "b")] == [0, 1]


def test_latencies_are_beside_the_gauges(viewer: Caller) -> None:
    minute = timezone.now().replace(second=0, microsecond=0)
    for event, seconds in (("started", 1.0), ("succeeded", 0.1)):
        Tally.objects.create(
            minute=minute,
            queue="default",
            type="t",
            event=event,
            bucket=bucket_of(seconds),
            count=9,
        )
    found = scraped(viewer)
    assert 0.08 <= found["queue_processing_seconds", "default0.5"] <= 0.12
    assert 0.9 <= found["queue_total_seconds", "default0.99"] <= 1.4


def test_what_all_clusters_tell_of_themselves_follows_for_this_one(viewer: Caller) -> None:
    make_job(queue="gh")
    text = viewer.get("metrics").content.decode()
    assert 'yardmaster_cluster_up{cluster="alpha"} 1\n' in text
    assert 'yardmaster_queue_depth{cluster="alpha",queue="gh",state="ready"} 1\n' in text
    assert 'yardmaster_http_request_seconds_count{surface="forge"}' in text
    assert text.index("queue_pending_jobs") < text.index("yardmaster_")


def test_labels_are_escaped(viewer: Caller) -> None:
    # No queue can be called so; the rows of another program could be.
    Queue.objects.create(name='a"b\\c\nd')
    assert 'queue_paused{queue="a\\"b\\\\c\\nd"} 0.0\n' in viewer.get("metrics").content.decode()


def test_a_scrape_asks_as_often_for_many_queues_as_for_one(viewer: Caller) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connections[ALIAS]) as captured:
            scraped(viewer)
        return len(captured)

    queries()
    before = queries()
    for _ in range(30):
        make_queue()
    assert queries() == before <= 27


def test_what_the_database_is(viewer: Caller, is_postgresql: bool) -> None:
    found = viewer.read("storage/info")
    assert set(found) == {"backend", "fields"}
    assert all(isinstance(pair, list) and len(pair) == 2 for pair in found["fields"])
    assert all(isinstance(text, str) and text for pair in found["fields"] for text in pair)
    fields = dict(found["fields"])
    if is_postgresql:
        assert found["backend"] == "postgres"
        with connections[ALIAS].cursor() as cursor:
            cursor.execute("SHOW server_version")
            assert fields["server_version"] == cursor.fetchone()[0]
        assert int(fields["max_connections"]) > 0
        assert int(fields["database_size_bytes"]) > 1_000_000
    else:
        assert found["backend"] == "sqlite"
        assert fields["sqlite_version"].startswith("3.")
        assert fields["synchronous"] in ("full", "off")  # tests may do without
        assert (fields["busy_timeout_secs"], fields["write_pool_max"]) == ("10", "1")


@pytest.mark.parametrize("path", ["metrics", "storage/info"])
def test_these_tell_nothing_of_other_clusters(path: str, viewer: Caller) -> None:
    assert b"beta" not in viewer.get(path).content
