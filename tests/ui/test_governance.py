"""Governance: who did what, who may do what, what is set; and each of its buttons."""

from __future__ import annotations

import csv
import io
import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction
from django.http import QueryDict
from django.utils import timezone

from authn.keys import create_key, find_principal
from authn.models import AccessAuditEntry, ApiKey, UserRole
from clusters.binding import cluster_bound
from clusters.models import AuditEntry, ClusterSetting, SettingChange, settings_version
from jobs.models import Secret
from jobs.sealing import opened_secret
from tests.clusters.test_policy import explicit
from tests.factories import make_job
from tests.ui.nasty_rows import nasty_texts
from tests.ui.test_xss import Skeleton

LEAKED = "hush-hush-and-nobody-tells"


def told(cluster: str = "alpha", **columns) -> AuditEntry:
    defaults = {"actor": "user:anna", "verb": "queues.pause", "target_type": "queue"}
    with cluster_bound(cluster):
        return AuditEntry.objects.create(**{**defaults, "target_id": "mail", **columns})


def content(response) -> str:
    assert response.status_code == 200, response.content[:2000]
    html = response.content.decode()
    return html[html.index('id="content"') :] if 'id="content"' in html else html


# -- The audit -------------------------------------------------------------------------------------

COLUMNS = {
    "actor": "key:ci",
    "verb": "jobs.cancel",
    "target_type": "job",
    "target_id": "11111111",
    "surface": "native",
    "address": "192.0.2.9",
    "credential": "api_key",
    "request_id": "r-77",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_each_column_of_the_audit_filters(operator, column):
    told(reason="the other one")
    told(reason="this one", **{column: COLUMNS[column]})
    page = content(operator.get("/admin/alpha/governance/", {column: COLUMNS[column]}))
    assert "this one" in page
    assert "the other one" not in page
    assert f'name="{column}" value="{COLUMNS[column]}"' in page


def test_the_audit_is_searched_by_reason_and_by_time(operator):
    told(reason="The Disks are full")
    told(reason="something else")
    page = content(operator.get("/admin/alpha/governance/?reason=disks"))
    assert "The Disks are full" in page
    assert "something else" not in page
    ahead = f"{timezone.now().year + 1}-01-01T00:00:00Z"
    assert "Nothing of that sort" in content(
        operator.get(f"/admin/alpha/governance/?since={ahead}")
    )
    assert "something else" in content(operator.get(f"/admin/alpha/governance/?until={ahead}"))
    for wrong in ("since=yesterday", "cursor=x", "nothing=1", "actor=%00"):
        response = operator.get(f"/admin/alpha/governance/?{wrong}")
        assert response.status_code == 400, wrong
        assert wrong.partition("=")[0] in response.content.decode()


def test_the_audit_turns_by_keyset_and_costs_the_same_however_long_it_is(operator, queries):
    with queries() as few:
        operator.get("/admin/alpha/governance/")
    for number in range(60):
        told(target_id=f"queue-{number}")
    with queries() as many:
        first = content(operator.get("/admin/alpha/governance/"))
    assert len(many) == len(few) <= 15
    assert not [sql for sql in many if "OFFSET" in sql or "COUNT(" in sql.upper()]
    assert "queue-59" in first
    assert "queue-9<" not in first
    link = re.search(r'href="([^"]*cursor=[^"]*)"', first)[1].replace("&amp;", "&")
    assert "queue-9<" in content(operator.get(link))


def test_a_row_shows_the_difference_and_leads_to_its_thing(operator):
    with cluster_bound("alpha"):
        job = make_job()
    told(target_type="job", target_id=str(job.pk), before={"priority": 0}, after={"priority": -5})
    page = content(operator.get("/admin/alpha/governance/"))
    assert f'href="/admin/alpha/jobs/{job.pk}/"' in page
    assert "<del>0</del>" in page
    assert "<ins>-5</ins>" in page


def test_a_bulk_row_reopens_its_filter(operator):
    words = {"state": ["failed", "cancelled"], "queue": ["mail"], "is_held": True}
    told(verb="bulk_operations.request", target_type="bulk_operation", target_id="x", filter=words)
    page = content(operator.get("/admin/alpha/governance/"))
    link = re.search(r'href="(/admin/alpha/jobs/\?[^"]*)">its filter', page)[1].replace(
        "&amp;", "&"
    )
    asked = QueryDict(link.partition("?")[2])
    assert dict(asked.lists()) == {
        "state": ["failed", "cancelled"],
        "queue": ["mail"],
        "is_held": ["true"],
    }
    assert operator.get(link).status_code == 200


def test_the_csv_has_what_the_filter_chooses_and_no_formula(operator):
    told(reason='=HYPERLINK("x")', actor="user:@evil")
    told(reason="left out", verb="queues.resume")
    response = operator.get("/admin/alpha/governance/audit.csv?verb=queues.pause")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="audit-alpha.csv"'
    text = b"".join(response.streaming_content).decode()
    heading, *rows = csv.reader(io.StringIO(text))
    assert {"at", "actor", "verb", "reason", "before"} <= {*heading}
    assert [row[heading.index("reason")] for row in rows] == ['\'=HYPERLINK("x")']
    assert operator.get("/admin/alpha/governance/audit.csv?since=yesterday").status_code == 404


def test_each_cluster_s_audit_is_read_alone(operator):
    told(cluster="beta", reason="only in beta")
    assert "only in beta" not in content(operator.get("/admin/alpha/governance/"))
    answer = operator.get("/admin/alpha/governance/audit.csv")
    assert b"only in beta" not in b"".join(answer.streaming_content)
    assert "only in beta" in content(operator.get("/admin/beta/governance/"))


def test_a_viewer_is_led_to_what_he_may_see(viewer):
    told(reason="not for viewers")
    response = viewer.get("/admin/alpha/governance/")
    assert response["Location"] == "/admin/alpha/governance/settings/"
    page = content(viewer.get("/admin/alpha/governance/settings/"))
    assert "max_crashes" in page
    assert "Change…" not in page
    assert "Secrets" not in page
    for path in ("audit.csv", "secrets/", "secrets/new/", "settings/max_crashes/"):
        assert viewer.get(f"/admin/alpha/governance/{path}").status_code == 403, path


# -- Settings --------------------------------------------------------------------------------------


def setting(value: str, **more) -> dict[str, str]:
    return {"value": value, "reason": "we try it", "version": str(settings_version({})), **more}


def test_a_change_that_the_configuration_overrides_says_so(admin):
    with cluster_bound("alpha"), explicit(max_crashes=9):
        path = "/admin/alpha/governance/settings/max_crashes/"
        page = admin.post(path, setting("5"), follow=True).content.decode()
    assert "max_crashes is changed." in page and "wins here: 9" in page


def test_a_setting_is_changed_with_the_old_value_beside_the_new_one(admin):
    path = "/admin/alpha/governance/settings/max_crashes/"
    page = content(admin.get(path))
    assert '<dt>Now</dt><dd class="ui-strong">3</dd>' in page
    assert admin.post(path, setting("5"))["Location"] == "/admin/alpha/governance/settings/"
    with cluster_bound("alpha"):
        assert ClusterSetting.objects.get(name="max_crashes").value == 5
        [change] = SettingChange.objects.all()
        assert (change.before, change.after, change.reason) == (None, 5, "we try it")
        [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.reason) == ("settings.change", "we try it")
    assert (entry.before, entry.after) == ({"max_crashes": None}, {"max_crashes": 5})
    page = content(admin.get("/admin/alpha/governance/settings/"))
    assert "persisted" in page
    assert "we try it" in page
    # And back to the default.
    again = {**setting(""), "version": str(settings_version({"max_crashes": 5}))}
    assert admin.post(path, again).status_code == 302
    with cluster_bound("alpha"):
        assert not ClusterSetting.objects.exists()


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("max_crashes", setting("0")),
        ("max_crashes", setting("many")),
        ("max_crashes", setting("2.5")),
        ("max_crashes", setting("5", reason="")),
        ("max_crashes", setting("5", version="1")),
        ("max_crashes", setting("5", version="x")),
        ("lease_seconds", setting("6")),
        ("mode", setting("asleep")),
        ("archive_to", setting("nowhere")),
    ],
)
def test_a_setting_that_is_not_sound_is_refused_and_nothing_is_stored(admin, name, form):
    response = admin.post(f"/admin/alpha/governance/settings/{name}/", form)
    assert response.status_code == 400
    assert b"errorlist" in response.content or b"ui-errors" in response.content
    with cluster_bound("alpha"):
        assert not ClusterSetting.objects.exists()
        assert not AuditEntry.objects.exists()


def test_there_is_no_other_setting(admin):
    assert admin.get("/admin/alpha/governance/settings/colour/").status_code == 404


# -- Secrets ---------------------------------------------------------------------------------------


def secret_value(name: str) -> str:
    with cluster_bound("alpha"):
        return opened_secret(name, Secret.objects.get(name=name).sealed)


def test_a_secret_goes_in_and_never_comes_out(admin):
    base = "/admin/alpha/governance/secrets/"
    form = {"name": "token", "value": LEAKED, "description": "of the bank"}
    assert admin.post(f"{base}new/", form).status_code == 302
    assert secret_value("token") == LEAKED
    page = content(admin.get(base))
    assert "secret:token" in page
    assert "of the bank" in page
    assert admin.post(f"{base}named/token/", {"value": f"{LEAKED}-2"}).status_code == 302
    assert secret_value("token") == f"{LEAKED}-2"
    seen = [admin.get(f"{base}{path}").content for path in ("", "named/token/", "new/")]
    # Not even back to who typed it, where something else is wrong.
    wrong = admin.post(f"{base}new/", {**form, "name": "no good name"})
    assert wrong.status_code == 400
    assert not [html for html in [*seen, wrong.content] if LEAKED.encode() in html]
    with cluster_bound("alpha"):
        assert LEAKED not in str([*AuditEntry.objects.values_list("before", "after", "filter")])
    gone = admin.post(f"{base}named/token/delete/", {"reason": "not needed"})
    assert gone.status_code == 302
    with cluster_bound("alpha"):
        assert not Secret.objects.exists()
        told_of = [*AuditEntry.objects.order_by("at").values_list("verb", "target_id", "reason")]
    assert told_of == [
        *[("secrets.write", "token", "")] * 2,
        ("secrets.write", "token", "not needed"),
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"name": "token", "value": "abc"},
        {"name": "", "value": LEAKED},
        {"name": "-x", "value": LEAKED},
        {"name": "taken", "value": LEAKED},
        {"name": "token", "value": "x" * 70_000},
    ],
)
def test_a_secret_that_cannot_be_kept_is_refused(admin, form):
    with cluster_bound("alpha"):
        Secret.objects.all().create_secret("taken", LEAKED, by="test")
    response = admin.post("/admin/alpha/governance/secrets/new/", form)
    assert response.status_code == 400
    with cluster_bound("alpha"):
        assert [secret.name for secret in Secret.objects.all()] == ["taken"]


# -- Roles -----------------------------------------------------------------------------------------


def granted(name: str) -> dict[str, str]:
    rows = UserRole.objects.filter(user__username=name)
    return dict(rows.values_list("cluster_id", "role"))


def test_the_matrix_tells_who_may_do_what_and_costs_the_same(superuser, queries):
    users = get_user_model().objects
    anna = users.create_user("anna", is_staff=True)
    UserRole.objects.create(user=anna, cluster_id="*", role="viewer")
    UserRole.objects.create(user=anna, cluster_id="alpha", role="operator", granted_kinds=["shell"])
    with queries() as few:
        page = content(superuser.get("/admin/governance/"))
    assert "anna" in page
    assert "viewer, as on all" in page
    assert "shell" in page
    assert "superuser: admin everywhere" in page
    for number in range(30):
        user = users.create_user(f"user-{number}")
        UserRole.objects.create(user=user, cluster_id="beta", role="admin")
    with queries() as many:
        content(superuser.get("/admin/governance/"))
    assert len(many) == len(few) <= 15
    page = content(superuser.get("/admin/governance/?sort=user&name=user-1"))
    assert "user-11" in page
    assert "anna" not in page
    assert superuser.get("/admin/governance/?sort=dog").status_code == 400


def test_a_role_is_given_changed_and_taken_with_a_reason(superuser):
    get_user_model().objects.create_user("anna", is_staff=True)
    form = {"sort": "user", "name": "anna", "cluster": "alpha", "role": "operator"}
    form |= {"granted_kinds": ["shell"], "reason": "she is on call"}
    response = superuser.post("/admin/governance/roles/give/", form)
    assert response.status_code == 302, response.content[:3000]
    assert granted("anna") == {"alpha": "operator"}
    page = content(superuser.get("/admin/governance/roles/give/?sort=user&name=anna&cluster=alpha"))
    link = re.search(r'href="(/admin/governance/roles/[^"]*/take/)"', page)[1]
    assert 'value="operator" selected' in page
    assert superuser.get(link).status_code == 200
    assert superuser.post(link, {"reason": ""}).status_code == 400
    assert superuser.post(link, {"reason": "her week is over"}).status_code == 302
    assert granted("anna") == {}
    assert superuser.get(link).status_code == 404
    told_of = AccessAuditEntry.objects.order_by("at").values_list("verb", "target_id", "reason")
    assert [*told_of] == [
        ("roles.give", "anna", "she is on call"),
        ("roles.take", "anna", "her week is over"),
    ]


def test_an_admin_of_one_cluster_sees_and_gives_what_is_his(sign_in):
    client = sign_in("admin", "alpha")
    users = get_user_model().objects
    for name, cluster in (("anna", "alpha"), ("bela", "beta")):
        user = users.create_user(name)
        UserRole.objects.create(user=user, cluster_id=cluster, role="viewer")
    page = content(client.get("/admin/governance/"))
    assert "anna" in page
    assert "bela" not in page
    assert "beta" not in page
    assert "Access audit" not in page
    form = {"sort": "user", "name": "anna", "role": "admin", "reason": "x"}
    for cluster in ("beta", "*", "nowhere"):
        refused = client.post("/admin/governance/roles/give/", {**form, "cluster": cluster})
        assert refused.status_code == 400, cluster
    other = UserRole.objects.get(user__username="bela")
    for role_id in (f"user-{other.pk}", "user-999999", "dog-1", "user-x"):
        path = f"/admin/governance/roles/{role_id}/take/"
        assert client.post(path, {"reason": "x"}).status_code == 404, role_id
    # A grant that he has not is none of his to give.
    kinds = {**form, "cluster": "alpha", "granted_kinds": ["shell"]}
    assert client.post("/admin/governance/roles/give/", kinds).status_code == 400
    assert granted("anna") == {"alpha": "viewer"}
    assert (
        client.post("/admin/governance/roles/give/", {**form, "cluster": "alpha"}).status_code
        == 302
    )
    assert granted("anna") == {"alpha": "admin"}
    assert client.get("/admin/governance/audit/").status_code == 403
    assert client.get("/admin/governance/audit.csv").status_code == 403


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_rules_nowhere_sees_none_of_it(sign_in, role):
    client = sign_in(role)
    assert b"Governance" not in client.get("/admin/").content
    key, _ = create_key("ci", "viewer", ["alpha"])
    paths = ["", "roles/give/", "keys/", "keys/new/", f"keys/{key.public_id}/revoke/", "audit/"]
    for path in paths:
        assert client.get(f"/admin/governance/{path}").status_code == 403, path
        if path:
            assert client.post(f"/admin/governance/{path}", {"reason": "x"}).status_code == 403
    assert ApiKey.objects.get().revoked_at is None


# -- Keys ------------------------------------------------------------------------------------------


def test_a_leaked_key_is_revoked_with_three_clicks(superuser):
    _, text = create_key("ci", "admin", ["*"])
    page = content(superuser.get("/admin/governance/keys/"))  # 1: the link
    assert text not in page
    link = re.search(r'href="([^"]*/revoke/)"', page)[1]
    question = content(superuser.get(link))  # 2: "Revoke…"
    assert "refused from now on, for ever" in question
    assert superuser.post(link, {"reason": ""}).status_code == 400
    assert find_principal(text) is not None
    done = superuser.post(link, {"reason": "it is in a log"})  # 3: "Revoke the key"
    assert done["Location"] == "/admin/governance/keys/"
    assert find_principal(text) is None
    entry = AccessAuditEntry.objects.get()
    assert (entry.verb, entry.target_id, entry.reason) == ("keys.revoke", "ci", "it is in a log")
    assert (entry.actor, entry.surface) == ("user:root", "admin")
    page = content(superuser.get("/admin/governance/keys/"))
    assert "revoked" in page
    assert link not in page


def test_a_key_is_made_and_its_text_is_shown_once(superuser):
    form = {"name": "shop", "owner": "shop team", "role": "operator", "clusters": ["alpha", "beta"]}
    form |= {"ends": "30", "addresses": "10.0.0.0/8 192.0.2.17"}
    response = superuser.post("/admin/governance/keys/new/", form)
    assert "no-store" in response["Cache-Control"]
    text = re.search(r"ym_[0-9a-f]{16}_[0-9a-f]{64}", content(response))[0]
    principal = find_principal(text)
    assert dict(principal.roles) == {"alpha": "operator", "beta": "operator"}
    key = ApiKey.objects.get()
    assert (key.owner, key.addresses) == ("shop team", ["10.0.0.0/8", "192.0.2.17/32"])
    assert 29 <= (key.expires_at - timezone.now()).days <= 30
    for path in ("keys/", "audit/", ""):
        assert text not in content(superuser.get(f"/admin/governance/{path}"))
    # The same name again makes no other one.
    assert superuser.post("/admin/governance/keys/new/", form).status_code == 400
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\x07b"},
        {"role": "king"},
        {"clusters": ["nowhere"]},
        {"clusters": []},
        {"addresses": "not-an-address"},
        {"granted_kinds": ["python"]},
    ],
)
def test_a_key_that_cannot_be_is_refused(superuser, wrong):
    form = {"name": "shop", "role": "viewer", "clusters": ["alpha"], **wrong}
    response = superuser.post("/admin/governance/keys/new/", form)
    assert response.status_code == 400
    assert not ApiKey.objects.exists()


def test_a_key_is_rotated_and_the_old_text_is_good_for_a_while(superuser):
    key, text = create_key("ci", "viewer", ["alpha"])
    path = f"/admin/governance/keys/{key.public_id}/rotate/"
    assert superuser.get(path).status_code == 200
    response = superuser.post(path, {"grace": "3600"})
    fresh = re.search(r"ym_[0-9a-f]{16}_[0-9a-f]{64}", content(response))[0]
    assert "no-store" in response["Cache-Control"]
    assert fresh != text
    assert find_principal(text) is not None
    assert find_principal(fresh) is not None
    superuser.post(path, {"grace": "0"})
    assert find_principal(fresh) is None
    assert superuser.post(path, {"grace": "-5"}).status_code == 400
    ApiKey.objects.all().revoke()  # type: ignore[attr-defined]
    assert superuser.post(path, {"grace": "0"}).status_code == 400


def test_keys_of_other_clusters_are_not_there_for_an_admin_of_one(sign_in):
    client = sign_in("admin", "alpha")
    own, _ = create_key("mine", "viewer", ["alpha"])
    both, _ = create_key("shared", "viewer", ["alpha", "beta"])
    other, _ = create_key("theirs", "viewer", ["beta"])
    page = content(client.get("/admin/governance/keys/"))
    assert "mine" in page
    assert "shared" in page
    assert "theirs" not in page
    # Of the other cluster not even the role is told.
    assert "beta" not in page
    revoke = "/admin/governance/keys/{}/revoke/"
    assert client.post(revoke.format(other.public_id), {"reason": "x"}).status_code == 404
    assert client.post(revoke.format("0" * 16), {"reason": "x"}).status_code == 404
    assert client.post(revoke.format(both.public_id), {"reason": "x"}).status_code == 403
    assert client.post(revoke.format(own.public_id), {"reason": "x"}).status_code == 302
    valid = ApiKey.objects.all().valid()  # type: ignore[attr-defined]
    assert {key.name for key in valid} == {"shared", "theirs"}


def test_keys_are_found_by_state_and_listed_at_one_cost(superuser, queries):
    for number in range(3):
        create_key(f"key-{number}", "viewer", ["alpha"])
    with queries() as few:
        superuser.get("/admin/governance/keys/")
    for number in range(3, 20):
        create_key(f"key-{number}", "viewer", ["alpha", "beta"])
    ApiKey.objects.filter(name="key-7").revoke()  # type: ignore[attr-defined]
    with queries() as many:
        superuser.get("/admin/governance/keys/")
    assert len(many) == len(few) <= 15
    page = content(superuser.get("/admin/governance/keys/?state=revoked"))
    assert "key-7" in page
    assert "key-8" not in page


# -- All of it -------------------------------------------------------------------------------------


def test_the_access_audit_filters_and_comes_as_csv(superuser):
    for name in ("anna", "bela"):
        AccessAuditEntry.objects.create(
            actor="user:root",
            verb="keys.create",
            target_type="api_key",
            target_id=name,
            reason="=1",
        )
    page = content(superuser.get("/admin/governance/audit/?target_id=anna"))
    assert "anna" in page
    assert "bela" not in page
    answer = superuser.get("/admin/governance/audit.csv?target_id=anna")
    text = b"".join(answer.streaming_content).decode()
    assert "'=1" in text
    assert "bela" not in text


@pytest.mark.once
def test_no_name_of_a_person_group_or_key_becomes_markup(superuser):
    nasty = nasty_texts()
    paths = ("", "?sort=group", "?sort=key", "keys/", "audit/")
    seen = []
    for texts in (nasty, ["x" * len(text) for text in nasty]):
        with transaction.atomic():
            users = [
                get_user_model()(username=f"{text[:140]}{number}")
                for number, text in enumerate(texts)
            ]
            get_user_model().objects.bulk_create(users)
            Group.objects.bulk_create(
                Group(name=f"{text[:140]}{number}") for number, text in enumerate(texts)
            )
            ApiKey.objects.bulk_create(
                ApiKey(
                    name=f"{text[:90]}{number}",
                    owner=text[:100],
                    public_id=f"{number:016d}",
                    digest=b"",
                    addresses=[text],
                )
                for number, text in enumerate(texts)
            )
            made = [
                AccessAuditEntry(
                    actor=text[:200],
                    verb="x",
                    target_type="y",
                    target_id=text[:200],
                    reason=text,
                    before={text: text},
                    after={text: 1},
                )
                for text in texts
            ]
            AccessAuditEntry.objects.bulk_create(made)
            seen.append(
                [
                    Skeleton(superuser.get(f"/admin/governance/{path}").content.decode())
                    for path in paths
                ]
            )
            transaction.set_rollback(True)
    for path, with_it, without in zip(paths, *seen, strict=True):
        assert not with_it.elements - without.elements, path
        for target in with_it.targets:
            assert target.strip().lower().partition(":")[0] not in ("javascript", "data"), path
