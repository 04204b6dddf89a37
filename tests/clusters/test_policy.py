"""Which value of a setting wins, and which values are refused."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.test import override_settings

from clusters.binding import cluster_bound, current_cluster
from clusters.errors import UnsoundSettings
from clusters.models import ClusterSetting, current_policy, forget_policies
from clusters.policy import (
    DEFAULTS,
    FIELDS,
    defaults_of,
    effective,
    explicit_problems,
    value_problem,
)
from tests.processes import manage, worker_environment


@contextmanager
def explicit(**values):
    """The bound cluster as a process sees it whose configuration sets these values."""
    from django.conf import settings

    changed = replace(current_cluster(), explicit_settings=values)
    with override_settings(CLUSTERS={**settings.CLUSTERS, changed.id: changed}):
        forget_policies()
        yield
    forget_policies()


def test_without_any_setting_the_defaults_hold(alpha):
    assert current_policy() == DEFAULTS


def test_a_persisted_value_beats_the_default(alpha):
    ClusterSetting.objects.all().persist({"default_max_attempts": 9}, by="test")
    assert current_policy().default_max_attempts == 9


def test_an_explicit_value_beats_the_persisted_one(alpha):
    ClusterSetting.objects.all().persist({"default_max_attempts": 9, "max_crashes": 5}, by="test")
    with explicit(default_max_attempts=2):
        assert current_policy().default_max_attempts == 2
        assert current_policy().max_crashes == 5
    assert current_policy().default_max_attempts == 9


def test_persisting_writes_only_what_is_given(alpha):
    ClusterSetting.objects.all().persist({"default_max_attempts": 9}, by="one")
    ClusterSetting.objects.all().persist({"max_crashes": 4}, by="two")
    ClusterSetting.objects.all().persist({}, by="three")
    rows = dict(ClusterSetting.objects.values_list("name", "updated_by"))
    assert rows == {"default_max_attempts": "one", "max_crashes": "two"}


def test_persisting_the_same_value_again_leaves_the_row_alone(alpha):
    ClusterSetting.objects.all().persist({"max_crashes": 4}, by="one")
    before = ClusterSetting.objects.get()
    ClusterSetting.objects.all().persist({"max_crashes": 4}, by="two")
    after = ClusterSetting.objects.get()
    assert (after.updated_at, after.updated_by) == (before.updated_at, "one")


def test_a_process_that_sets_nothing_changes_nothing(transactional_db):
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist({"default_max_attempts": 9}, by="somebody")
    done = manage("clusters", "show", "alpha", env=worker_environment())
    assert done.returncode == 0, done.stderr
    with cluster_bound("alpha"):
        rows = [*ClusterSetting.objects.values_list("name", "value", "updated_by")]
    assert rows == [("default_max_attempts", 9, "somebody")]


def test_settings_of_one_cluster_do_not_reach_the_other(db):
    with cluster_bound("alpha"):
        ClusterSetting.objects.all().persist({"max_crashes": 4}, by="test")
    with cluster_bound("beta"):
        assert current_policy() == DEFAULTS


def test_a_policy_is_read_once_in_a_while_and_not_at_each_question(
    alpha, django_assert_num_queries
):
    with django_assert_num_queries(1, using="cluster-alpha"):
        current_policy()
        current_policy()
    forget_policies()
    with django_assert_num_queries(1, using="cluster-alpha"):
        current_policy()


def test_names_of_older_and_newer_versions_are_ignored_when_read(alpha):
    ClusterSetting.objects.create(name="from_the_future", value=1, updated_by="test")
    assert current_policy() == DEFAULTS


@pytest.mark.parametrize("name", FIELDS)
def test_each_default_is_within_its_own_limits(name):
    assert value_problem(name, getattr(DEFAULTS, name)) is None
    assert value_problem(name, defaults_of("archived")[name]) is None
    assert FIELDS[name].metadata["about"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"nonsense": 1}, "unknown setting 'nonsense'"),
        ({"default_max_attempts": "3"}, "must be a whole number"),
        ({"default_max_attempts": 2.5}, "must be a whole number"),
        ({"default_max_attempts": True}, "must be a whole number"),
        ({"default_max_attempts": 101}, "between 1 and 100"),
        ({"default_timeout_seconds": 0}, "between 0.1"),
        ({"heartbeat_seconds": 8, "lease_seconds": 31}, "lease_seconds (31) must be at least 4"),
        ({"lease_seconds": 10}, "lease_seconds (10) must be at least 4"),
        ({"retry_cap_seconds": 2}, "retry_cap_seconds must not be below"),
        ({"mode": "passive"}, "mode is the same for all processes"),
        ({"archive_to": "Not an id"}, "archive_to must be the id of a cluster"),
        ({"archive_to": None}, "archive_to must be the id of a cluster"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wrong(values, expected):
    problems = explicit_problems(values)
    assert len(problems) == 1
    assert expected in problems[0]


def test_all_wrong_settings_are_named_at_once():
    assert len(explicit_problems({"nonsense": 1, "max_crashes": 0, "lease_seconds": -1})) == 3


@pytest.mark.parametrize("value", [5, 2.5])
def test_seconds_may_be_a_whole_number_or_a_fraction(value):
    assert explicit_problems({"retry_base_seconds": value}) == []
    assert effective({"retry_base_seconds": value}).retry_base_seconds == value


def test_settings_that_do_not_fit_the_persisted_ones_are_refused_as_a_whole(alpha):
    settings = ClusterSetting.objects.all()
    settings.persist({"lease_seconds": 4.0, "heartbeat_seconds": 1.0}, by="one")
    with pytest.raises(UnsoundSettings, match="lease_seconds"):
        settings.persist({"heartbeat_seconds": 2.0, "max_crashes": 9}, by="other")
    assert dict(settings.values_list("name", "value")) == {
        "lease_seconds": 4.0,
        "heartbeat_seconds": 1.0,
    }
