"""Gauges: what is in the queues, which nodes live, what is due; and how many queries that takes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from clusters.models import NodeStatus
from jobs.engine.upkeep import duties
from jobs.models import Queue, Schedule, Tally, UpkeepDuty
from jobs.prometheus import depths as depths_module
from jobs.prometheus import figures
from jobs.prometheus.text import labelled
from jobs.states import State
from tests.factories import make_job, make_node, make_queue
from tests.jobs.prometheus.scraped import Scraped, fold, scrape
from tests.jobs.schedule_cases import make_schedule

USING = "cluster-alpha"
MAIL = {"cluster": "alpha", "queue": "mail"}

pytestmark = pytest.mark.usefixtures("alpha")


def depths_of(told: Scraped, **labels: str) -> dict[str, float]:
    found = told.all("queue_depth", **labels)
    return {dict(rest)["state"]: value for rest, value in found.items()}


def ago(**spans: float) -> object:
    return timezone.now() - timedelta(**spans)


# -- Queues ----------------------------------------------------------------------------------------


def test_a_queue_tells_what_is_in_it():
    node = make_node()
    for state, number in (
        (State.READY, 3),
        (State.SCHEDULED, 2),
        (State.BLOCKED, 1),
        (State.RUNNING, 4),
        (State.WAITING, 1),
        (State.SUCCEEDED, 5),
        (State.FAILED, 1),
    ):
        for _ in range(number):
            make_job(state, queue="mail", node=node)
    expected = {"ready": 3, "scheduled": 2, "blocked": 1, "running": 4, "waiting": 1}
    told = scrape()
    assert depths_of(told, **MAIL) == expected
    assert depths_of(told, cluster="alpha", queue="default") == dict.fromkeys(expected, 0)


def test_the_oldest_ready_job_tells_its_age():
    make_job(queue="mail", run_at=ago(seconds=10))
    make_job(queue="mail", run_at=ago(seconds=600), priority=9)
    told = scrape()
    age = told("queue_oldest_ready_age_seconds", **MAIL)
    assert age is not None
    assert 599 < age < 660
    assert told("queue_oldest_ready_age_seconds", cluster="alpha", queue="default") == 0


def test_a_paused_queue_says_so():
    make_queue("mail", is_paused=True)
    told = scrape()
    assert told("queue_paused", **MAIL) == 1
    assert told("queue_paused", cluster="alpha", queue="default") == 0


def test_a_long_queue_is_counted_no_further_than_costs_little(monkeypatch):
    monkeypatch.setattr(depths_module, "FIRST_LOOK", 3)
    monkeypatch.setattr(depths_module, "LOOK_BUDGET", 20)
    make_queue("short")
    for _ in range(25):
        make_job(queue="mail")
    for _ in range(3):
        make_job(queue="short")
    told = scrape()
    assert depths_of(told, **MAIL)["ready"] == 20
    assert depths_of(told, cluster="alpha", queue="short")["ready"] == 3
    for _ in range(15):
        make_job(State.SCHEDULED, queue="short")
    # Two deep ones share what there is.
    told = scrape()
    assert depths_of(told, **MAIL)["ready"] == 10
    assert depths_of(told, cluster="alpha", queue="short")["scheduled"] == 10


def make_queues(number: int, **columns: object) -> None:
    Queue.objects.bulk_create([Queue(name=f"q{n:03}", **columns) for n in range(number)])


def queues_named(told: Scraped, name: str = "queue_paused") -> set[str]:
    return {dict(rest)["queue"] for rest in told.all(name, cluster="alpha")}


def test_at_most_200_queues_have_names_and_the_rest_is_one():
    make_queues(210)
    Queue.objects.filter(name__gte="q195").update(created_at=timezone.now() + timedelta(hours=1))
    for name in ("q000", "q208", "q209"):
        make_job(queue=name, run_at=ago(seconds=100))
        Tally.objects.create(minute=timezone.now(), queue=name, type="a", event="enqueued", count=5)
    told = scrape()
    names = queues_named(told)
    assert len(names) == 201
    assert {"default", "q000", "q194", "other"} <= names
    assert not names & {"q208", "q209"}
    rest = {"cluster": "alpha", "queue": "other"}
    assert depths_of(told, **rest)["ready"] == 2
    assert told("jobs_enqueued_total", **rest) == 10
    assert told("jobs_enqueued_total", cluster="alpha", queue="q000") == 5
    age = told("queue_oldest_ready_age_seconds", **rest)
    assert age is not None and age > 99
    fold()
    assert scrape()("jobs_enqueued_total", **rest) == 10


def test_a_new_queue_takes_nobodys_name():
    make_queues(210)
    Queue.objects.filter(name__gte="q195").update(created_at=timezone.now() + timedelta(hours=1))
    before = queues_named(scrape())
    Queue.objects.create(name="a-new-one", created_at=timezone.now() + timedelta(hours=2))
    assert queues_named(scrape()) == before


def test_the_rest_is_paused_where_all_of_it_is():
    make_queues(205)
    Queue.objects.filter(name__gte="q195").update(created_at=timezone.now() + timedelta(hours=1))
    late = Queue.objects.filter(name__gte="q199")
    late.pause(by="test")
    make_job(queue="q204", run_at=ago(seconds=500))
    rest = {"cluster": "alpha", "queue": "other"}
    assert scrape()("queue_paused", **rest) == 1
    Queue.objects.filter(name="q203").resume()
    make_job(queue="q203", run_at=ago(seconds=50))
    told = scrape()
    assert told("queue_paused", **rest) == 0
    # A paused one is nobody's trouble.
    age = told("queue_oldest_ready_age_seconds", **rest)
    assert age is not None and 49 < age < 400


# -- Nodes -----------------------------------------------------------------------------------------


def test_nodes_are_counted_by_status_and_the_silent_are_dead():
    make_node()
    make_node(NodeStatus.DRAINING)
    make_node(NodeStatus.CLOSED)
    make_node(NodeStatus.DEAD)
    make_node(lease_until=ago(seconds=1), host="silent")
    told = scrape()
    counts = {dict(k)["status"]: v for k, v in told.all("nodes", cluster="alpha").items()}
    assert counts == {"live": 1, "draining": 1, "closed": 1, "dead": 2}
    assert len(told.all("node_last_heartbeat_timestamp_seconds")) == 2
    assert "silent" not in told.text


def test_without_any_node_there_are_none_of_each_status():
    assert scrape()("nodes", cluster="alpha", status="live") == 0


def test_a_live_node_tells_of_itself():
    places = {"concurrency": 4, "io_concurrency": 20, "running_jobs": 7, "running_io_jobs": 6}
    node = make_node(host="w3", pid=7, clock_skew_seconds=-0.25, **places)
    told = scrape()
    labels = {"cluster": "alpha", "node": "w3:7"}
    assert told("node_slots", pool="process", state="busy", **labels) == 1
    assert told("node_slots", pool="process", state="free", **labels) == 3
    assert told("node_slots", pool="io", state="busy", **labels) == 6
    assert told("node_slots", pool="io", state="free", **labels) == 14
    assert told("node_clock_skew_seconds", **labels) == -0.25
    heard = told("node_last_heartbeat_timestamp_seconds", **labels)
    node.refresh_from_db()
    assert heard == pytest.approx(node.heartbeat_at.timestamp(), abs=0.001)


def test_of_two_nodes_with_one_name_the_later_is_told_of():
    make_node(host="pod", pid=1, heartbeat_at=ago(seconds=20), running_jobs=3)
    make_node(host="pod", pid=1, heartbeat_at=timezone.now(), running_jobs=2)
    told = scrape()
    assert told("nodes", cluster="alpha", status="live") == 2
    assert told("node_slots", cluster="alpha", node="pod:1", pool="process", state="busy") == 2


def test_a_node_with_more_in_hand_than_slots_has_none_free():
    make_node(host="w3", pid=7, concurrency=2, running_jobs=5)
    assert scrape()("node_slots", cluster="alpha", node="w3:7", pool="process", state="free") == 0


def test_the_job_that_runs_longest_tells_its_age():
    assert scrape()("oldest_running_age_seconds", cluster="alpha") == 0
    make_job(State.RUNNING, started_at=ago(seconds=30))
    make_job(State.RUNNING, queue="mail", started_at=ago(seconds=300))
    age = scrape()("oldest_running_age_seconds", cluster="alpha")
    assert age is not None
    assert 299 < age < 400


def test_no_more_nodes_are_told_of_than_can_be_looked_at(monkeypatch):
    monkeypatch.setattr(figures, "MAX_NODES", 2)
    for number in range(4):
        make_node(host=f"w{number}", pid=1, heartbeat_at=ago(seconds=10 - number))
    told = scrape()
    heard = told.all("node_last_heartbeat_timestamp_seconds", cluster="alpha")
    assert {dict(rest)["node"] for rest in heard} == {"w2:1", "w3:1"}
    assert told("nodes", cluster="alpha", status="live") == 4


# -- Schedules and upkeep --------------------------------------------------------------------------


def test_schedules_tell_when_they_run_next_the_soonest_first(monkeypatch):
    monkeypatch.setattr(figures, "MAX_SCHEDULES", 2)
    for number in range(3):
        schedule = make_schedule(name=f"nightly {number}")
        due = timezone.now() + timedelta(hours=number + 1)
        Schedule.objects.filter(pk=schedule.pk).update(next_due_at=due, next_run_at=due)
    told = scrape().all("schedule_next_fire_timestamp_seconds", cluster="alpha")
    assert {dict(rest)["schedule"] for rest in told} == {"nightly 0", "nightly 1"}
    first = Schedule.objects.get(name="nightly 0").next_run_at
    assert min(told.values()) == pytest.approx(first.timestamp(), abs=0.001)


def test_upkeep_tells_when_it_was_done_and_whether_it_fails():
    done = ago(seconds=60)
    UpkeepDuty.objects.create(name="prune", last_finished_at=done)
    UpkeepDuty.objects.create(
        name="fold_tallies", last_finished_at=done, last_error="OperationalError: secret text"
    )
    UpkeepDuty.objects.create(name="of_an_older_version", last_finished_at=done)
    told = scrape()
    last = told.all("upkeep_last_run_timestamp_seconds", cluster="alpha")
    assert {dict(rest)["task"] for rest in last} == {"prune", "fold_tallies"}
    assert told("upkeep_failing", cluster="alpha", task="prune") == 0
    assert told("upkeep_failing", cluster="alpha", task="fold_tallies") == 1
    assert "secret text" not in told.text
    assert {"prune", "fold_tallies"} <= {duty.name for duty in duties()}


# -- The text --------------------------------------------------------------------------------------

NASTY = 'a "quoted" back\\slash\nand a {brace}, ü'


def test_values_of_labels_are_escaped_as_the_library_does():
    registry = CollectorRegistry()
    Gauge("g", "text", ["name"], registry=registry).labels(NASTY).set(1)
    line = generate_latest(registry).decode().splitlines()[-1]
    assert line == f"g{{{labelled(name=NASTY)}}} 1.0"


def test_a_name_that_looks_like_the_format_stays_one_label():
    schedule = make_schedule(name="plain")
    due = timezone.now() + timedelta(hours=1)
    Schedule.objects.filter(pk=schedule.pk).update(name=NASTY, next_due_at=due, next_run_at=due)
    told = scrape().all("schedule_next_fire_timestamp_seconds", cluster="alpha")
    assert [dict(rest)["schedule"] for rest in told] == [NASTY]


def test_every_metric_has_its_type_and_help_once():
    make_job(queue="mail")
    told = scrape("alpha", "beta")
    for family in told.families:
        assert family.name.startswith("yardmaster_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram", "summary")
        assert (
            told.text.count(f"# TYPE {family.name} ")
            + told.text.count(f"# TYPE {family.name}_total ")
            == 1
        )


def test_no_label_tells_a_job_an_argument_or_an_error():
    job = make_job(State.FAILED, queue="mail", payload={"token": "hush"}, error="ValueError: hush")
    told = scrape()
    assert "hush" not in told.text
    assert str(job.pk) not in told.text


# -- What it costs ---------------------------------------------------------------------------------


def statements() -> list[str]:
    with CaptureQueriesContext(connections[USING]) as captured:
        scrape()
    return [query["sql"] for query in captured.captured_queries]


def test_a_scrape_asks_as_often_for_many_as_for_few():
    make_job(queue="mail")
    few = statements()
    make_queues(30)
    for number in range(30):
        make_job(State.SCHEDULED, queue=f"q{number:03}")
        make_job(State.RUNNING, queue=f"q{number:03}")
        make_node()
        schedule = make_schedule(name=f"s{number}")
        due = timezone.now() + timedelta(hours=1)
        Schedule.objects.filter(pk=schedule.pk).update(next_due_at=due, next_run_at=due)
    many = statements()
    assert len(many) == len(few)
    assert len([sql for sql in many if sql.startswith(("SELECT", "WITH"))]) <= 12


def test_the_rows_of_jobs_are_left_alone(is_postgresql):
    """All that waits is counted from the indexes; a table with other columns would do."""
    for number in range(300):
        make_job(State.READY if number % 2 else State.SCHEDULED, queue=f"q{number % 3}")
    looks = [sql for sql in statements() if "FROM queue AS q" in sql]
    assert looks
    with connections[USING].cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("ANALYZE job")
        for sql in looks:
            cursor.execute(f"EXPLAIN {'' if is_postgresql else 'QUERY PLAN '}{sql}")
            plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
            assert "job_ready" in plan
            assert "job_unready" in plan
            assert "Seq Scan on job" not in plan
            assert "SCAN job" not in plan.replace("SCAN job USING COVERING", "")
