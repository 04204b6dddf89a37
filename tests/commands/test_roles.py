"""manage.py roles"""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from authn.keys import create_key
from authn.models import AccessAuditEntry
from authn.rights import rights_of
from authn.users import principal_of

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def anna(db):
    user = get_user_model().objects.create_user("anna", password="x")
    Group.objects.create(name="mailers").user_set.add(user)
    return user


def give(run, *words):
    done = run("roles", "give", *words, "-o", "json")
    assert done.code == 0, done.err
    return done.json


def test_a_role_is_given_changed_listed_and_taken(run, anna):
    told = give(run, "user", "anna", "--role", "viewer", "--cluster", "alpha")
    assert told == {
        "sort": "user",
        "name": "anna",
        "roles": [{"cluster": "alpha", "role": "viewer", "granted_kinds": []}],
    }
    give(run, "user", "anna", "--role", "admin", "--cluster", "alpha", "--grant", "shell")
    assert principal_of(anna).role_on("alpha") == "admin"
    assert principal_of(anna).kinds_granted_on("alpha") == {"shell"}
    give(run, "user", "anna", "--role", "viewer", "--all-clusters")
    listed = run("roles", "list", "user", "anna", "-o", "json").json["roles"]
    assert [(one["cluster"], one["role"]) for one in listed] == [
        ("*", "viewer"),
        ("alpha", "admin"),
    ]
    assert run("roles", "take", "user", "anna", "--cluster", "alpha").code == 0
    assert principal_of(anna).role_on("alpha") == "viewer"
    assert run("roles", "take", "user", "anna", "--cluster", "alpha").code == 4


def test_the_same_role_again_is_no_deed(run, anna):
    for _ in range(2):
        give(run, "group", "mailers", "--role", "viewer", "--cluster", "alpha")
    assert AccessAuditEntry.objects.count() == 1


def test_a_group_gives_its_role_to_those_who_are_in_it(run, anna):
    assert principal_of(anna).role_on("alpha") is None
    give(run, "group", "mailers", "--role", "operator", "--cluster", "alpha", "--grant", "shell")
    caller = principal_of(anna)
    assert (caller.role_on("alpha"), caller.role_on("beta")) == ("operator", None)
    assert caller.kinds_granted_on("alpha") == {"shell"}
    # The higher one counts, whichever of them has it; grants add up.
    give(run, "user", "anna", "--role", "viewer", "--cluster", "alpha", "--grant", "container")
    caller = principal_of(anna)
    assert caller.role_on("alpha") == "operator"
    assert caller.kinds_granted_on("alpha") == {"shell", "container"}
    # Also where nobody is on the line.
    assert rights_of("user:anna", "jobs.enqueue", "alpha").is_allowed
    anna.groups.clear()
    assert not rights_of("user:anna", "jobs.enqueue", "alpha").is_allowed


def test_the_rights_of_a_group_are_read_in_one_question(run, anna, django_assert_num_queries):
    give(run, "group", "mailers", "--role", "operator", "--cluster", "alpha")
    with django_assert_num_queries(1):
        principal_of(anna)


def test_a_key_has_one_role_on_a_cluster(run):
    create_key("ci", "viewer", ["alpha"])
    told = give(run, "key", "ci", "--role", "operator", "--cluster", "alpha")
    assert [one["role"] for one in told["roles"]] == ["operator"]
    assert rights_of("key:ci", "jobs.enqueue", "alpha").is_allowed


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("give", "user", "nobody", "--role", "viewer", "--cluster", "alpha"), 3),
        (("give", "group", "a\0b", "--role", "viewer", "--cluster", "alpha"), 3),
        (("give", "user", "anna", "--role", "king", "--cluster", "alpha"), 2),
        (("give", "user", "anna", "--role", "viewer", "--cluster", "gamma"), 2),
        (("give", "user", "anna", "--role", "viewer"), 2),
        (("give", "user", "anna", "--role", "viewer", "--cluster", "alpha", "--grant", "x"), 2),
        (("give", "planet", "anna", "--role", "viewer", "--cluster", "alpha"), 2),
    ],
)
def test_what_makes_no_sense_is_refused(run, anna, words, code):
    assert run("roles", *words).code == code
    assert not AccessAuditEntry.objects.exists()
