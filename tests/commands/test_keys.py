"""`manage.py keys`."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from authn.keys import find_principal
from authn.models import ApiKey

ALL = ("--role", "admin", "--all-clusters")


def test_a_key_is_printed_once_and_works(run):
    done = run("keys", "create", "--name", "ann", "--role", "operator", "--cluster", "alpha")
    assert done.code == 0, done.err
    principal = find_principal(done.out.strip())
    assert principal is not None
    assert (principal.role_on("alpha"), principal.role_on("beta")) == ("operator", None)
    assert done.out.strip() not in run("keys", "list").out + run("keys", "list", "-o", "json").out


def test_a_key_may_be_for_all_clusters_with_a_grant(run):
    done = run("keys", "create", "--name", "ann", *ALL, "--grant", "shell", "-o", "json")
    principal = find_principal(done.json["key"])
    assert principal is not None
    assert principal.role_on("beta") == "admin"
    assert "shell" in principal.kinds_granted_on("beta")


def test_a_key_may_be_for_some_clusters(run):
    words = ("--role", "viewer", "--cluster", "alpha", "--cluster", "beta")
    done = run("keys", "create", "--name", "ann", *words, "-o", "json")
    assert {role["cluster"] for role in done.json["roles"]} == {"alpha", "beta"}


def test_a_key_may_end(run):
    run("keys", "create", "--name", "ann", *ALL, "--expires", "30d")
    left = ApiKey.objects.get().expires_at - timezone.now()
    assert timedelta(days=29) < left <= timedelta(days=30)
    run("keys", "create", "--name", "bob", *ALL, "--expires", "2090-01-01T00:00:00Z")
    assert ApiKey.objects.get(name="bob").expires_at.year == 2090


def test_a_revoked_key_is_refused_from_then_on(run):
    key = run("keys", "create", "--name", "ann", *ALL).out.strip()
    assert run("keys", "revoke", "ann").code == 2
    assert find_principal(key) is not None
    assert run("keys", "revoke", "ann", "--yes").code == 0
    assert find_principal(key) is None
    assert run("keys", "revoke", "ann", "--yes").code == 4
    assert run("keys", "revoke", "bob", "--yes").code == 3
    assert "revoked" in run("keys", "list").out


def test_a_name_is_used_once(run):
    run("keys", "create", "--name", "ann", *ALL)
    assert run("keys", "create", "--name", "ann", *ALL).code == 4
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--name", "ann", "--role", "king", "--all-clusters"), 2),
        (("--name", "ann", "--role", "viewer"), 2),
        (("--name", "ann", "--role", "viewer", "--cluster", "alpha", "--all-clusters"), 2),
        (("--name", "ann", "--role", "viewer", "--cluster", "gamma"), 3),
        (("--name", "ann", *ALL, "--grant", "python"), 2),
        (("--name", "ann", *ALL, "--expires", "2001-01-01T00:00:00Z"), 2),
        (("--name", "ann", *ALL, "--expires", "never"), 2),
        (("--name", "", *ALL), 2),
        (("--name", "x" * 101, *ALL), 2),
        (("--name", "a\nb", *ALL), 2),
        (ALL, 2),
    ],
)
def test_bad_input_makes_no_key(run, words, code):
    done = run("keys", "create", *words)
    assert (done.code, done.out) == (code, "")
    assert ApiKey.objects.count() == 0
