"""{cluster}/settings"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from clusters.acting import Acting, acting_as
from clusters.binding import cluster_bound
from clusters.errors import NotAllowed, UnsoundSettings
from clusters.models import AuditEntry, ClusterSetting, SettingChange, current_policy
from clusters.policy import FIELDS
from jobs.api.settings import ChangeItem, SettingItem
from tests.api.conftest import Api, check_problem, fields
from tests.clusters.test_policy import explicit

PATH = "alpha/settings"


def items(api: Api) -> dict[str, dict[str, Any]]:
    response = api.get(PATH)
    assert response.status_code == 200, response.content
    return {item["name"]: item for item in response.json()["items"]}


def change(api: Api, values: dict[str, Any], reason: str = "", **headers: Any) -> Any:
    return api.patch(PATH, {"values": values, "reason": reason}, **headers)


def test_every_setting_says_what_holds_and_where_it_comes_from(alpha: object, viewer: Api) -> None:
    ClusterSetting.objects.all().persist({"max_crashes": 4, "default_max_attempts": 9}, by="me")
    with explicit(default_max_attempts=2):
        found = items(viewer)
    assert list(found) == list(FIELDS)
    assert list(found["max_crashes"]) == list(SettingItem().fields)
    told = ("value", "origin", "default", "persisted", "local", "changed_by")
    assert [found["max_crashes"][word] for word in told] == [4, "persisted", 3, 4, None, "me"]
    attempts = found["default_max_attempts"]
    assert [attempts[word] for word in told] == [2, "local", 3, 9, 2, "me"]
    lease = found["lease_seconds"]
    assert [lease[word] for word in told] == [30, "default", 30, None, None, None]
    assert found["mode"]["choices"] == ["active", "passive", "archived"]
    assert (found["mode"]["may_be_local"], lease["may_be_local"]) == (False, True)


def test_a_change_is_persisted_holds_at_once_and_leaves_its_trace(
    alpha: object, admin: Api
) -> None:
    response = change(admin, {"max_crashes": 7, "lease_seconds": 60}, "too many false alarms")
    assert response.status_code == 200, response.content
    assert {i["name"]: i["value"] for i in response.json()["items"]}["max_crashes"] == 7
    assert current_policy().lease_seconds == 60
    trace = AuditEntry.objects.get()
    assert (trace.verb, trace.target_id) == ("settings.change", "alpha")
    assert trace.before == {"max_crashes": None, "lease_seconds": None}
    assert trace.after == {"max_crashes": 7, "lease_seconds": 60}
    assert trace.reason == "too many false alarms"


def test_a_change_that_the_configuration_overrides_says_so(alpha: object, admin: Api) -> None:
    with explicit(max_crashes=2, lease_seconds=60):
        response = change(admin, {"max_crashes": 7, "default_max_attempts": 5})
        found = {item["name"]: item for item in response.json()["items"]}
        assert response.json()["overridden"] == ["max_crashes"]
        told = ("value", "origin", "persisted", "local", "is_overridden")
        assert [found["max_crashes"][word] for word in told] == [2, "local", 7, 2, True]
        assert found["lease_seconds"]["is_overridden"]
        assert not found["default_max_attempts"]["is_overridden"]
        # Nobody sees a difference where both say the same.
        assert change(admin, {"max_crashes": 2}).json()["overridden"] == []
        assert change(admin, {"max_crashes": None}).json()["overridden"] == ["max_crashes"]
    assert "overridden" not in admin.get(PATH).json()


def test_null_takes_a_setting_back_to_its_default(alpha: object, admin: Api) -> None:
    change(admin, {"max_crashes": 7})
    assert change(admin, {"max_crashes": None}).status_code == 200
    assert items(admin)["max_crashes"]["origin"] == "default"
    assert not ClusterSetting.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"nonsense": 1}, "values.nonsense"),
        ({"nonsense": None}, "values.nonsense"),
        ({"restored": None}, "values.restored"),
        ({"max_crashes": 0}, "values.max_crashes"),
        ({"max_crashes": "5"}, "values.max_crashes"),
        ({"max_crashes": True}, "values.max_crashes"),
        ({"max_crashes": 10**400}, "values.max_crashes"),
        ({"lease_seconds": 2}, "values.lease_seconds"),
        ({"retry_cap_seconds": 1}, "values.retry_cap_seconds"),
        ({"mode": "asleep"}, "values.mode"),
        ({"mode": ["active"]}, "values.mode"),
        ({"archive_to": "no/such"}, "values.archive_to"),
        ({"archive_to": 5}, "values.archive_to"),
        ({}, "values"),
        ([], "values"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_stored(
    values: Any, field: str, alpha: object, admin: Api
) -> None:
    given = {**values, "max_attempts": 5} if values and "nonsense" in values else values
    assert field in fields(change(admin, given))
    assert not ClusterSetting.objects.exists()
    assert not SettingChange.objects.exists()
    assert not AuditEntry.objects.exists()


def test_one_wrong_setting_keeps_the_others_from_being_written(alpha: object, admin: Api) -> None:
    assert fields(change(admin, {"max_crashes": 5, "lease_seconds": -1})) == [
        "values.lease_seconds"
    ]
    assert not ClusterSetting.objects.exists()


def test_two_settings_that_only_fit_together_are_changed_together(
    alpha: object, admin: Api
) -> None:
    assert change(admin, {"heartbeat_seconds": 60}).status_code == 400
    assert change(admin, {"heartbeat_seconds": 60, "lease_seconds": 300}).status_code == 200
    assert fields(change(admin, {"lease_seconds": None})) == ["values.lease_seconds"]


def test_a_change_of_what_somebody_else_has_changed_is_412(alpha: object, admin: Api) -> None:
    read = admin.get(PATH)["ETag"]
    written = change(admin, {"max_crashes": 5}, If_Match=read)
    assert written.status_code == 200
    check_problem(change(admin, {"max_crashes": 6}, If_Match=read), 412, "precondition_failed")
    assert current_policy().max_crashes == 5
    assert change(admin, {"max_crashes": 6}, If_Match=written["ETag"]).status_code == 200


def test_what_was_changed_is_listed_newest_first_and_by_name(alpha: object, admin: Api) -> None:
    change(admin, {"max_crashes": 5}, "one")
    change(admin, {"max_crashes": 6, "lease_seconds": 40}, "two")
    change(admin, {"max_crashes": 6}, "the same again is no change")
    change(admin, {"max_crashes": None}, "three")
    page = admin.get(f"{PATH}/changes").json()["items"]
    assert list(page[0]) == list(ChangeItem().fields)
    told = [(c["name"], c["before"], c["after"], c["reason"]) for c in page if c["name"][0] == "m"]
    assert told == [
        ("max_crashes", 6, None, "three"),
        ("max_crashes", 5, 6, "two"),
        ("max_crashes", None, 5, "one"),
    ]
    assert len(admin.get(f"{PATH}/changes?name=lease_seconds").json()["items"]) == 1
    assert admin.get(f"{PATH}/changes/count?name=max_crashes").json()["count"] == 3
    assert fields(admin.get(f"{PATH}/changes?name=restored")) == ["name"]
    first = admin.get(f"{PATH}/changes?limit=3").json()
    rest = admin.get(first["next"]).json()["items"]
    assert [c["id"] for c in first["items"] + rest] == [c["id"] for c in page]


def test_a_process_that_persists_its_own_settings_is_in_the_history_too(alpha: object) -> None:
    ClusterSetting.objects.all().persist({"max_crashes": 5}, by="node:here")
    ClusterSetting.objects.all().persist({"max_crashes": 5}, by="node:there")
    assert [*SettingChange.objects.values_list("by", "before", "after")] == [("node:here", None, 5)]


def test_settings_of_one_cluster_are_not_those_of_another(
    db: None, make_key: Callable[..., str]
) -> None:
    both = Api(make_key("admin", "alpha", "beta"))
    change(both, {"max_crashes": 5})
    assert both.get("beta/settings/changes/count").json()["count"] == 0
    assert "persisted" not in {i["origin"] for i in both.get("beta/settings").json()["items"]}


def test_reading_takes_one_query(alpha: object, viewer: Api) -> None:
    ClusterSetting.objects.all().persist({"max_crashes": 5, "lease_seconds": 99.0}, by="test")
    viewer.get(PATH)
    with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
        viewer.get(PATH)
    assert len(queries) == 1


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_never_leave_settings_that_do_not_fit_together(
    make_key: Callable[..., str],
) -> None:
    admin = Api(make_key("admin"))
    change(admin, {"lease_seconds": 100, "heartbeat_seconds": 1})
    barrier = threading.Barrier(2)

    def go(values: dict[str, Any]) -> None:
        barrier.wait()
        change(admin, values)
        connections.close_all()

    for _ in range(5):
        # Each alone fits; both together would not.
        both = ({"lease_seconds": 8}, {"heartbeat_seconds": 20})
        threads = [threading.Thread(target=go, args=(values,)) for values in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with cluster_bound("alpha"):
            now = ClusterSetting.objects.all().persisted()
            assert now["lease_seconds"] >= 4 * now["heartbeat_seconds"]
            ClusterSetting.objects.all().change(
                {"lease_seconds": 100, "heartbeat_seconds": 1}, by="test"
            )


# -- Where it is archived to -----------------------------------------------------------------------


def archived(cluster_id: str, **more: Any) -> None:
    with cluster_bound(cluster_id):
        ClusterSetting.objects.all().change({"mode": "archived", **more}, by="test")


def test_only_an_archived_cluster_that_one_administers_takes_what_expires(
    alpha: object, make_key: Callable[..., str]
) -> None:
    both, one = Api(make_key("admin", "alpha", "beta")), Api(make_key("admin", "alpha"))
    assert b"is not archived" in change(both, {"archive_to": "beta"}).content
    archived("beta")
    for target, words in (("alpha", b"come back"), ("gamma", b"is no cluster"), ("beta", None)):
        response = change(both, {"archive_to": target})
        assert response.status_code == (200 if words is None else 400)
        assert words is None or words in response.content
    change(both, {"archive_to": None})
    # What one may not write to, and what is not there, look alike.
    seen = {t: change(one, {"archive_to": t}).json()["errors"][0] for t in ("beta", "gamma")}
    assert seen["beta"]["message"].replace("beta", "gamma") == seen["gamma"]["message"]
    assert items(one)["archive_to"]["value"] == ""


def test_archives_go_in_no_circle(alpha: object, make_key: Callable[..., str]) -> None:
    archived("alpha")
    archived("beta", archive_to="alpha")
    ClusterSetting.objects.all().change({"mode": None}, by="test")
    both = Api(make_key("admin", "alpha", "beta"))
    assert b"come back" in change(both, {"archive_to": "beta"}).content


def test_the_rule_of_archives_is_the_domains(alpha: object) -> None:
    settings_of_alpha = ClusterSetting.objects.all()
    with pytest.raises(UnsoundSettings, match="is not archived"):
        settings_of_alpha.change({"archive_to": "beta"}, by="test")
    archived("beta")
    somebody = Acting("key:x", may=lambda verb, cluster_id: cluster_id == "alpha")
    with acting_as(somebody), pytest.raises(UnsoundSettings, match="is no cluster"):
        settings_of_alpha.change({"archive_to": "beta"}, by="key:x")
    with acting_as(Acting("key:x", may=lambda *_: False)), pytest.raises(NotAllowed):
        # Nothing is told to those who may not change it anyway.
        settings_of_alpha.change({"archive_to": "gamma"}, by="key:x")
    assert settings_of_alpha.persisted() == {}
    settings_of_alpha.change({"archive_to": "beta"}, by="test")
    assert settings_of_alpha.persisted() == {"archive_to": "beta"}
