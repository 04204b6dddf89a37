"""Which database answers: the bound cluster's, or none."""

from __future__ import annotations

import threading

import pytest
from django.db import router

from authn.models import ApiKey
from clusters.binding import bound_cluster_id, cluster_bound, current_cluster, get_cluster
from clusters.errors import ClusterNotBound, UnknownCluster
from jobs.models import Job, Queue
from tests.factories import make_job


def test_a_cluster_model_without_a_bound_cluster_is_refused(db):
    with pytest.raises(ClusterNotBound):
        Job.objects.count()
    with pytest.raises(ClusterNotBound):
        Queue.objects.create(name="nowhere")
    with pytest.raises(ClusterNotBound):
        current_cluster()


def test_the_control_database_needs_no_cluster(db):
    assert ApiKey.objects.count() == 0
    assert router.db_for_write(ApiKey) == "default"


def test_the_control_database_stays_the_same_while_a_cluster_is_bound(alpha):
    assert router.db_for_read(ApiKey) == "default"
    assert router.db_for_read(Job) == "cluster-alpha"


def test_rows_of_one_cluster_are_invisible_in_the_other(db):
    with cluster_bound("alpha"):
        job = make_job()
    with cluster_bound("beta"):
        assert not Job.objects.filter(pk=job.pk).exists()
        assert Job.objects.count() == 0
    with cluster_bound("alpha"):
        assert Job.objects.get() == job


def test_a_loaded_row_stays_with_the_database_it_came_from(db):
    with cluster_bound("alpha"):
        job = make_job()
    with cluster_bound("beta"):
        job.cancel()
        job.refresh_from_db()
    assert job._state.db == "cluster-alpha"
    assert job.state == "cancelled"


def test_an_update_while_another_cluster_is_bound_touches_only_the_other(db):
    with cluster_bound("alpha"):
        job = make_job()
    with cluster_bound("beta"):
        assert Job.objects.filter(pk=job.pk).cancel() == 0
    with cluster_bound("alpha"):
        assert Job.objects.get().state == "ready"


def test_the_inner_binding_wins_and_the_outer_comes_back(db):
    with cluster_bound("alpha"):
        with cluster_bound("beta"):
            assert bound_cluster_id() == "beta"
        assert bound_cluster_id() == "alpha"
    assert bound_cluster_id() is None


def test_the_binding_ends_also_when_the_block_fails():
    with pytest.raises(ZeroDivisionError), cluster_bound("alpha"):
        raise ZeroDivisionError
    assert bound_cluster_id() is None


def test_an_unknown_cluster_cannot_be_bound():
    with pytest.raises(UnknownCluster), cluster_bound("gamma"):
        pass
    with pytest.raises(UnknownCluster):
        get_cluster("default")
    assert bound_cluster_id() is None


def test_a_thread_starts_without_a_binding(alpha):
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(bound_cluster_id()))
    thread.start()
    thread.join()
    assert seen == [None]


def test_migrations_know_which_apps_belong_where():
    assert router.allow_migrate("cluster-alpha", "jobs")
    assert router.allow_migrate("cluster-beta", "clusters")
    assert not router.allow_migrate("cluster-alpha", "authn")
    assert router.allow_migrate("default", "authn")
    assert not router.allow_migrate("default", "jobs")


def test_rows_of_two_clusters_are_not_related(db):
    with cluster_bound("alpha"):
        one = make_job()
    with cluster_bound("beta"):
        other = make_job()
    assert not router.allow_relation(one, other)
    assert router.allow_relation(one, one)
