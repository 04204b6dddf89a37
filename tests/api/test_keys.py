"""keys, roles and access-audit, which belong to no cluster"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connections
from django.test.utils import CaptureQueriesContext

from authn.keys import create_key, find_principal
from authn.models import AccessAuditEntry, ApiKey, GroupRole, RoleBinding, UserRole
from authn.users import principal_of
from clusters.routers import CONTROL
from tests.api.conftest import Api, check_problem, fields

pytestmark = pytest.mark.usefixtures("alpha")
NEW = {"name": "ci", "role": "operator", "clusters": ["alpha"]}


@pytest.fixture
def boss(make_key: Callable[..., str]) -> Api:
    """Administers all clusters, and may start shell jobs on alpha."""
    return Api(make_key("admin", "*"))


@pytest.fixture
def granted(make_key: Callable[..., str]) -> Api:
    return Api(make_key("admin", "alpha", grants=("shell",)))


def make(api: Api, **more: Any) -> dict[str, Any]:
    response = api.post("keys", {**NEW, **more})
    assert response.status_code == 201, response.content
    made: dict[str, Any] = response.json()
    return made


def names(api: Api, query: str = "", path: str = "keys") -> list[str]:
    response = api.get(f"{path}?{query}")
    assert response.status_code == 200, response.content
    return [item["name"] for item in response.json()["items"]]


# -- Keys ------------------------------------------------------------------------------------------


def test_a_key_is_made_and_its_text_is_said_once_and_to_no_cache(admin: Api) -> None:
    body = {**NEW, "owner": "anna", "addresses": ["10.0.0.1"], "expires_at": "2040-01-01T00:00:00Z"}
    response = admin.post("keys", body)
    assert response.status_code == 201 and response["Cache-Control"] == "no-store"
    made = response.json()
    text = made.pop("key")
    caller = find_principal(text)
    assert caller is not None and caller.roles == {"alpha": "operator"}
    assert response["Location"] == f"/jm-api/keys/{made['id']}"
    told = admin.get(response["Location"])
    assert {**told.json(), "last_used_at": None} == made
    assert (made["owner"], made["addresses"], made["state"]) == ("anna", ["10.0.0.1/32"], "valid")
    secret = text.rpartition("_")[2]
    for path in ("keys", f"keys/{made['id']}"):
        assert secret not in admin.get(path).content.decode()
    (trace,) = AccessAuditEntry.objects.filter(verb="keys.create", surface="native")
    assert trace.target_id == "ci" and secret not in str(trace.after)


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"owner": "a\tb"}, "owner"),
        ({"role": "king"}, "role"),
        ({"clusters": []}, "clusters"),
        ({"clusters": "alpha"}, "clusters"),
        ({"clusters": ["gamma"]}, "clusters"),
        ({"clusters": ["beta"]}, "clusters"),
        ({"granted_kinds": ["python"]}, "granted_kinds[0]"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"addresses": ["10.0.0.1/8"]}, "addresses"),
        ({"digest": "x"}, "digest"),
    ],
)
def test_what_makes_no_key_is_said_by_its_field(
    admin: Api, more: dict[str, Any], field: str
) -> None:
    count = ApiKey.objects.count()
    problem = check_problem(admin.post("keys", {**NEW, **more}), 400, "invalid")
    assert [error["field"] for error in problem["errors"]] == [field]
    assert ApiKey.objects.count() == count


def test_a_cluster_one_does_not_see_is_no_cluster(admin: Api) -> None:
    seen = {
        name: admin.post("keys", {**NEW, "clusters": [name]}).json()["errors"]
        for name in ("beta", "gamma")
    }
    assert str(seen["beta"]).replace("beta", "gamma") == str(seen["gamma"])


def test_names_are_used_once(admin: Api) -> None:
    make(admin)
    check_problem(admin.post("keys", NEW), 409, "duplicate_name")
    other = make(admin, name="other")
    check_problem(admin.patch(f"keys/{other['id']}", {"name": "ci"}), 409, "duplicate_name")


def test_nobody_hands_out_what_he_has_not(
    admin: Api, granted: Api, boss: Api, make_key: Callable[..., str]
) -> None:
    shell = {**NEW, "granted_kinds": ["shell"]}
    for api in (admin, boss):
        check_problem(api.post("keys", shell), 403, "kind_not_granted")
    for clusters in (["*"], ["alpha", "*"]):
        check_problem(admin.post("keys", {**NEW, "clusters": clusters}), 403, "permission_denied")
    half = Api(make_key("admin", "alpha"))
    RoleBinding.objects.create(
        api_key=ApiKey.objects.get(name="admin-4"), cluster_id="beta", role="operator"
    )
    both = {**NEW, "clusters": ["alpha", "beta"]}
    check_problem(half.post("keys", both), 403, "permission_denied")
    assert not ApiKey.objects.filter(name="ci").exists()
    assert make(granted, granted_kinds=["shell"])["roles"][0]["granted_kinds"] == ["shell"]


def test_a_lower_role_of_ones_own_is_not_got_round(make_key: Callable[..., str]) -> None:
    api = Api(make_key("admin", "*"))
    RoleBinding.objects.create(
        api_key=ApiKey.objects.get(name="admin-1"), cluster_id="alpha", role="viewer"
    )
    check_problem(api.post("keys", {**NEW, "clusters": ["*"]}), 403, "permission_denied")
    check_problem(api.post("keys", NEW), 403, "permission_denied")
    hidden, _ = create_key("of alpha", "viewer", ["alpha"])
    check_problem(api.get(f"keys/{hidden.public_id}"), 404, "not_found")


def test_a_superuser_gives_what_he_has_not(alpha: object) -> None:
    from base64 import b64encode

    get_user_model().objects.create_superuser("root", password="correct horse")
    basic = b64encode(b"root:correct horse").decode()
    response = Api(None).post(
        "keys", {**NEW, "granted_kinds": ["shell"]}, authorization=f"Basic {basic}"
    )
    assert response.status_code == 201, response.content


def test_a_key_with_more_than_one_has_is_neither_rotated_nor_changed_but_revoked(
    admin: Api, granted: Api
) -> None:
    """Whoever has its text has its rights, so a new text is a gift."""
    key = make(granted, granted_kinds=["shell"])
    path = f"keys/{key['id']}"
    check_problem(admin.post(f"{path}/rotate", {}), 403, "kind_not_granted")
    check_problem(admin.patch(path, {"expires_at": None}), 403, "kind_not_granted")
    assert find_principal(key["key"]) is not None
    assert admin.post(f"{path}/revoke", {"reason": "lost"}).json()["state"] == "revoked"
    assert find_principal(key["key"]) is None
    assert AccessAuditEntry.objects.get(verb="keys.revoke").reason == "lost"
    check_problem(admin.post(f"{path}/revoke", {}), 409, "invalid_transition")
    check_problem(granted.patch(path, {"owner": "x"}), 409, "invalid_transition")
    check_problem(granted.post(f"{path}/rotate", {}), 409, "invalid_transition")


def test_a_key_of_two_clusters_takes_an_admin_of_both(admin: Api, boss: Api) -> None:
    key = make(boss, clusters=["alpha", "beta"])
    path = f"keys/{key['id']}"
    # He is told of his own cluster only.
    assert [role["cluster"] for role in admin.get(path).json()["roles"]] == ["alpha"]
    for method, address, body in (
        ("PATCH", path, {"owner": "x"}),
        ("POST", f"{path}/rotate", {}),
        ("POST", f"{path}/revoke", {}),
    ):
        check_problem(admin(method, address, body), 403, "permission_denied")
    assert find_principal(key["key"]) is not None
    assert len(boss.get(path).json()["roles"]) == 2


def test_a_rotated_key_has_two_texts_for_a_while(admin: Api) -> None:
    key = make(admin)
    response = admin.post(f"keys/{key['id']}/rotate", {"grace_seconds": 3600})
    assert response.status_code == 200 and response["Cache-Control"] == "no-store"
    new = response.json()
    assert new["key"] != key["key"] and new["previous_until"] is not None
    assert find_principal(new["key"]) and find_principal(key["key"])
    last = admin.post(f"keys/{key['id']}/rotate", {"grace_seconds": 0}).json()
    assert find_principal(last["key"]) and find_principal(new["key"]) is None
    for grace in (-1, 90 * 86400 + 1, "1"):
        answer = admin.post(f"keys/{key['id']}/rotate", {"grace_seconds": grace})
        assert fields(answer) == ["grace_seconds"]


def test_what_is_changed_of_a_key_is_told_and_nothing_else(admin: Api) -> None:
    key = make(admin, owner="anna")
    path = f"keys/{key['id']}"
    body = {"name": "build", "owner": "anna", "expires_at": "2040-01-01T00:00:00Z"}
    changed = admin.patch(path, {**body, "addresses": ["192.0.2.0/24"]}).json()
    assert (changed["name"], changed["addresses"]) == ("build", ["192.0.2.0/24"])
    assert find_principal(key["key"], "192.0.2.9") and not find_principal(key["key"], "10.0.0.1")
    (trace,) = AccessAuditEntry.objects.filter(verb="keys.change")
    assert {*trace.after} == {"name", "expires_at", "addresses"} and trace.before["name"] == "ci"
    assert admin.patch(path, {"owner": "anna"}).status_code == 200
    assert AccessAuditEntry.objects.filter(verb="keys.change").count() == 1
    assert fields(admin.patch(path, {"expires_at": "2001-01-01T00:00:00Z"})) == ["expires_at"]
    assert admin.patch(path, {}).status_code == 400


def test_keys_are_listed_by_name_page_by_page(admin: Api, boss: Api) -> None:
    for name in ("a", "b", "c", "d"):
        make(admin, name=name)
    create_key("of beta", "viewer", ["beta"])
    create_key("of all", "viewer", ["*"])
    first = admin.get("keys?limit=3").json()
    second = admin.get(first["next"]).json()
    found = [item["name"] for page in (first, second) for item in page["items"]]
    assert found == ["a", "admin-1", "b", "c", "d"]
    assert admin.get(second["previous"]).json()["items"] == first["items"]
    assert {*names(boss)} == {*found, "admin-2", "of beta", "of all"}
    assert admin.get("keys/count").json() == {"count": 5, "is_exact": True}
    ApiKey.objects.filter(name="a").revoke()
    assert names(admin, "state=revoked") == ["a"]
    assert names(admin, "state=valid") == found[1:]
    assert names(boss, "cluster=beta") == ["admin-2", "of all", "of beta"]
    assert names(admin, "cluster=beta") == names(admin, "cluster=gamma") == []
    assert names(admin, "name=b") == ["b"]


def test_a_list_of_keys_is_two_questions(admin: Api) -> None:
    for number in range(5):
        make(admin, name=f"k{number}")
    with CaptureQueriesContext(connections[CONTROL]) as queries:
        names(admin)
    assert len([q for q in queries if '"authn_apikey"."owner"' in q["sql"]]) == 1
    # Who asks, when he did so last, the keys, and their roles.
    assert len(queries) <= 6


@pytest.mark.parametrize("path", ["keys", "keys/count", "roles", "roles/count"])
def test_only_admins_see_keys_and_roles(path: str, viewer: Api, api: Api, admin: Api) -> None:
    for caller in (viewer, api):
        check_problem(caller.get(path), 403, "permission_denied")
    assert admin.get(path).status_code == 200


# -- Roles -----------------------------------------------------------------------------------------


@pytest.fixture
def anna(db: None) -> Any:
    return get_user_model().objects.create_user("anna")


def give(api: Api, **more: Any) -> Any:
    body = {"sort": "user", "name": "anna", "cluster": "alpha", "role": "operator"}
    return api.post("roles", {**body, **more})


def test_a_role_is_given_replaced_and_taken(admin: Api, anna: Any) -> None:
    given = give(admin).json()
    assert principal_of(anna).role_on("alpha") == "operator"  # type: ignore[union-attr]
    assert admin.get(f"roles/{given['id']}").json() == given
    assert give(admin, role="viewer").json() == {**given, "role": "viewer"}
    assert admin.delete(f"roles/{given['id']}").status_code == 204
    assert principal_of(anna).role_on("alpha") is None  # type: ignore[union-attr]
    check_problem(admin.delete(f"roles/{given['id']}"), 404, "not_found")
    verbs = AccessAuditEntry.objects.filter(surface="native").order_by("at", "id")
    assert [*verbs.values_list("verb", flat=True)] == ["roles.give", "roles.give", "roles.take"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("more", "status", "code", "field"),
    [
        ({"name": "nobody"}, 400, "invalid", "name"),
        ({"name": "a\x00b"}, 400, "invalid", "name"),
        ({"sort": "robot"}, 400, "invalid", "sort"),
        ({"cluster": "beta"}, 400, "invalid", "cluster"),
        ({"cluster": "gamma"}, 400, "invalid", "cluster"),
        ({"cluster": "*"}, 403, "permission_denied", None),
        ({"granted_kinds": ["shell"]}, 403, "kind_not_granted", "granted_kinds"),
        ({"granted_kinds": ["python"]}, 400, "invalid", "granted_kinds[0]"),
        ({"sort": "key", "name": "of beta"}, 400, "invalid", "name"),
        ({"sort": "key", "name": "nobodys"}, 400, "invalid", "name"),
    ],
)
def test_what_is_not_ones_to_give_is_refused(
    admin: Api, anna: Any, more: Any, status: int, code: str, field: str | None
) -> None:
    create_key("of beta", "viewer", ["beta"])
    problem = check_problem(give(admin, **more), status, code)
    assert [error["field"] for error in problem["errors"]] == ([field] if field else [])
    assert not UserRole.objects.exists()
    assert RoleBinding.objects.filter(cluster_id="alpha").count() == 1


def test_a_grant_that_was_given_may_stay_and_be_taken(admin: Api, granted: Api, anna: Any) -> None:
    kinds = ["shell"]
    assert give(granted, granted_kinds=kinds).status_code == 200
    assert give(admin, role="viewer", granted_kinds=kinds).json()["granted_kinds"] == kinds
    assert give(admin).json()["granted_kinds"] == []
    check_problem(give(admin, granted_kinds=kinds), 403, "kind_not_granted")


def test_roles_are_listed_over_users_groups_and_keys(admin: Api, boss: Api, anna: Any) -> None:
    group = Group.objects.create(name="crew")
    for number in range(3):
        user = get_user_model().objects.create_user(f"u{number}")
        UserRole.objects.create(user=user, cluster_id="alpha", role="viewer")
    GroupRole.objects.create(group=group, cluster_id="alpha", role="operator")
    GroupRole.objects.create(group=group, cluster_id="beta", role="admin")
    UserRole.objects.create(user=anna, cluster_id="*", role="viewer")
    wanted = ["u0", "u1", "u2", "crew", "admin-1"]
    pages, address = [], "roles?limit=2"
    while address:
        pages.append(admin.get(address).json())
        address = pages[-1]["next"]
    assert [item["name"] for page in pages for item in page["items"]] == wanted
    back, address = [], pages[-1]["previous"]
    while address:
        back.append(admin.get(address).json())
        address = back[-1]["previous"]
    assert [item["name"] for page in back[::-1] for item in page["items"]] == wanted[:-1]
    assert admin.get("roles/count").json()["count"] == 5
    assert names(admin, "sort=group", "roles") == ["crew"]
    assert names(boss, "cluster=beta", "roles") == ["crew"]
    assert names(boss, "name=anna", "roles") == ["anna"]
    assert names(admin, "name=anna", "roles") == names(admin, "cluster=beta", "roles") == []
    assert names(admin, "role=admin", "roles") == ["admin-1"]


@pytest.mark.parametrize("word", ["user-1", "key-99999999", "robot-1", "user-x", "a%00b", "-"])
def test_what_is_no_role_is_not_found(admin: Api, word: str) -> None:
    check_problem(admin.get(f"roles/{word}"), 404, "not_found")
    check_problem(admin.get(f"keys/{word}"), 404, "not_found")


# -- What was done ---------------------------------------------------------------------------------


def test_deeds_on_keys_are_read_by_admins_of_all(boss: Api, admin: Api, api: Api) -> None:
    make(admin)
    items = boss.get("access-audit?verb=keys.create&surface=native").json()["items"]
    assert [(item["actor"], item["target_id"]) for item in items] == [("key:admin-2", "ci")]
    assert names_of(boss, "limit=1") == ["keys.create"]
    response = boss.get("access-audit/export?target_id=ci")
    text = b"".join(response).decode()  # type: ignore[arg-type]
    assert text.count("\n") == 2 and "keys.create" in text
    assert response["Content-Disposition"] == 'attachment; filename="access-audit.csv"'
    for path in ("access-audit", "access-audit/export"):
        for caller in (admin, api):
            check_problem(caller.get(path), 403, "permission_denied")
    assert fields(boss.get("access-audit?actor=a%00b")) == ["actor"]


def names_of(api: Api, query: str) -> list[str]:
    return [item["verb"] for item in api.get(f"access-audit?{query}").json()["items"]]
