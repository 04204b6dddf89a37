"""`manage.py keys`."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.utils import timezone

from authn.keys import digest_of, find_principal
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
    refused = run("keys", "revoke", "ann")
    assert refused.code == 2
    assert "Nothing was done" in refused.err and "say --yes" in refused.err
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


@pytest.mark.once
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
        (("--name", "ann", *ALL, "--owner", "x" * 101), 2),
        (("--name", "ann", *ALL, "--owner", "a\nb"), 2),
        (("--name", "ann", *ALL, "--from", "10.0.0.1/8"), 2),
        (("--name", "ann", *ALL, "--from", "everywhere"), 2),
        (ALL, 2),
    ],
)
def test_bad_input_makes_no_key(run, words, code):
    done = run("keys", "create", *words)
    assert (done.code, done.out) == (code, "")
    assert ApiKey.objects.count() == 0


def test_a_key_has_an_owner_and_places(run):
    words = ("--owner", "the build team", "--from", "10.0.0.0/8", "--from", "192.0.2.1")
    done = run("keys", "create", "--name", "ann", *ALL, *words, "-o", "json")
    assert done.json["owner"] == "the build team"
    assert done.json["addresses"] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert done.json["last_used_at"] is None
    assert find_principal(done.json["key"], "10.1.1.1") is not None
    assert find_principal(done.json["key"], "192.0.2.2") is None
    listed = run("keys", "list", "-o", "json").json["items"][0]
    assert listed["last_used_at"] is not None
    assert "the build team" in run("keys", "list").out


def test_a_rotated_key_is_printed_once(run):
    old = run("keys", "create", "--name", "ann", *ALL).out.strip()
    done = run("keys", "rotate", "ann", "--grace", "1h", "-o", "json")
    assert done.code == 0, done.err
    assert find_principal(done.json["key"]) is not None
    assert find_principal(old) is not None
    assert done.json["previous_until"] is not None
    new = run("keys", "rotate", "ann", "--grace", "0s").out.strip()
    assert find_principal(new) is not None
    assert find_principal(done.json["key"]) is None
    assert new not in run("keys", "list", "-o", "json").out


@pytest.mark.parametrize(
    ("words", "code"), [(("bob",), 3), (("ann", "--grace", "91d"), 2), (("ann", "--grace", "x"), 2)]
)
def test_what_cannot_be_rotated_stays_as_it_is(run, words, code):
    key = run("keys", "create", "--name", "ann", *ALL).out.strip()
    assert run("keys", "rotate", *words).code == code
    assert find_principal(key) is not None
    assert ApiKey.objects.get().rotated_at is None
    run("keys", "revoke", "ann", "--yes")
    assert run("keys", "rotate", "ann").code == 4


def test_the_digest_of_a_key_is_what_the_auth_file_holds(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("some-key\n"))
    assert run("keys", "digest").out.strip() == digest_of("some-key").hex()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("keys", "digest").code == 2
