"""manage.py users"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest
from django.contrib.auth import authenticate, get_user_model

from authn.models import AccessAuditEntry
from authn.passwords import find_principal
from authn.users import principal_of
from tests.processes import ROOT, manage, worker_environment

pytestmark = pytest.mark.usefixtures("alpha")
PASSWORD = "correct horse battery"
NEXT = "another horse battery"


@pytest.fixture
def users(run, monkeypatch):
    """Run it with this on stdin."""

    def run_users(*words, stdin=PASSWORD + "\n"):
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        typed = io.TextIOWrapper(io.BytesIO(data), errors="surrogateescape")
        monkeypatch.setattr(sys, "stdin", typed)
        return run("users", *words)

    return run_users


def anna():
    return get_user_model().objects.get(username="anna")


def create(users, *words):
    done = users("create", "anna", "--password-stdin", *words, "-o", "json")
    assert done.code == 0, done.err
    return done.json


def test_a_user_is_made_with_a_role_and_signs_in(users):
    told = create(users, *("--role", "operator", "--cluster", "alpha", "--grant", "shell"))
    assert told["roles"] == [{"cluster": "alpha", "role": "operator", "granted_kinds": ["shell"]}]
    assert (told["is_active"], told["is_superuser"], told["may_sign_in"]) == (True, False, True)
    caller = find_principal("anna", PASSWORD, "192.0.2.1")
    assert (caller.role_on("alpha"), caller.role_on("beta")) == ("operator", None)
    assert authenticate(username="anna", password=PASSWORD) == anna()


def test_a_name_is_stored_as_the_screen_looks_for_it(users):
    """Else nobody could sign in with it, and two users would look the same."""
    assert users("create", "\N{LATIN SMALL LIGATURE FI}ona", "--password-stdin").code == 0
    assert authenticate(username="fiona", password=PASSWORD) is not None
    assert users("deactivate", "\N{LATIN SMALL LIGATURE FI}ona").code == 0


def test_it_is_in_the_audit_as_what_the_screen_does(users, admin_client):
    create(users, "--role", "viewer", "--all-clusters")
    [row] = AccessAuditEntry.objects.all()
    assert (row.verb, row.target_type, row.target_id) == ("users.create", "user", "anna")
    assert row.actor.startswith("cli:") and row.after["roles"] == {"*": ["viewer"]}
    form = {"username": "bert", "password1": PASSWORD, "password2": PASSWORD}
    form |= {"cluster_roles-TOTAL_FORMS": "0", "cluster_roles-INITIAL_FORMS": "0"}
    assert admin_client.post("/admin/auth/user/add/", form).status_code == 302
    other = AccessAuditEntry.objects.get(target_id="bert")
    assert (other.verb, other.target_type) == (row.verb, row.target_type)
    assert other.after | {"username": "anna", "roles": row.after["roles"]} == row.after


def test_another_password_ends_the_one_before(users):
    create(users)
    done = users("password", "anna", "--password-stdin", stdin=NEXT)
    assert done.code == 0, done.err
    assert find_principal("anna", PASSWORD, "192.0.2.1") is None
    assert find_principal("anna", NEXT, "192.0.2.1") is not None
    row = AccessAuditEntry.objects.get(verb="users.change")
    assert (row.target_id, row.after) == ("anna", {"changed": ["password"]})


def test_who_is_deactivated_is_kept_out_until_he_is_let_in_again(users, client):
    create(users, "--role", "admin", "--cluster", "alpha")
    client.force_login(anna())
    assert client.get("/admin/alpha/").status_code == 200
    for _ in range(2):
        assert users("deactivate", "anna", "-o", "json").json["is_active"] is False
    assert principal_of(anna()) is None
    assert find_principal("anna", PASSWORD, "192.0.2.1") is None
    assert client.get("/admin/alpha/").status_code == 302
    assert users("activate", "anna").code == 0
    assert find_principal("anna", PASSWORD, "192.0.2.1") is not None
    rows = AccessAuditEntry.objects.filter(verb="users.change").order_by("at", "id")
    told = [(row.before, row.after) for row in rows]
    out, in_ = {"is_active": False}, {"is_active": True}
    assert told == [(in_, out), (out, in_)]


def test_users_are_listed_with_their_roles(users):
    create(users, *("--role", "viewer", "--cluster", "alpha", "--api-only"))
    [one] = users("list", "-o", "json").json["items"]
    assert (one["name"], one["may_sign_in"], one["groups"]) == ("anna", False, [])
    assert "viewer on alpha" in users("list").out


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("create", "anna", "--password-stdin"), PASSWORD, 4),
        (("create", "bert"), PASSWORD, 2),
        (("create", "bert", "--password-stdin"), "", 2),
        (("create", "bert", "--password-stdin"), "short", 2),
        (("create", "bert", "--password-stdin"), "iloveyou", 2),
        (("create", "bert", "--password-stdin"), "x" * 1025, 2),
        (("create", "bert", "--password-stdin"), "two\nlines of text", 2),
        (("create", "bert", "--password-stdin"), b"correct horse \xff", 2),
        (("create", "bert\udcff", "--password-stdin"), PASSWORD, 2),
        (("create", "\N{MATHEMATICAL BOLD SMALL A}nna", "--password-stdin"), PASSWORD, 4),
        (("create", "bert\0", "--password-stdin"), PASSWORD, 2),
        (("create", "a b", "--password-stdin"), PASSWORD, 2),
        (("create", "bert", "--password-stdin", "--role", "viewer"), PASSWORD, 2),
        (("create", "bert", "--password-stdin", "--cluster", "alpha"), PASSWORD, 2),
        (("create", "bert", "--password-stdin", "--grant", "shell"), PASSWORD, 2),
        (
            ("create", "bert", "--password-stdin", "--role", "viewer", "--cluster", "nowhere"),
            PASSWORD,
            3,
        ),
        (("create", "bert", "--password", "iloveyou"), PASSWORD, 2),
        (("password", "anna"), PASSWORD, 2),
        (("password", "bert", "--password-stdin"), PASSWORD, 3),
        (("deactivate", "bert"), "", 3),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_done(users, words, stdin, code):
    create(users)
    before = anna().password
    done = users(*words, stdin=stdin)
    assert done.code == code, done.err
    assert get_user_model().objects.count() == 1 and anna().password == before
    assert AccessAuditEntry.objects.count() == 1
    assert len(stdin) < 6 or str(stdin) not in done.err + done.out


def test_a_password_is_nowhere_to_be_read(users):
    create(users, "--role", "viewer", "--cluster", "alpha")
    users("password", "anna", "--password-stdin", stdin=NEXT)
    rows = AccessAuditEntry.objects.values_list("before", "after", "reason", "filter")
    told = f"{[*rows]} {users('list', '-o', 'json').out}"
    assert PASSWORD not in told and NEXT not in told and anna().password not in told


def test_it_is_a_command_of_its_own_process(transactional_db):
    """Where nobody can be asked it says what to say."""
    done = manage("users", "create", "anna", env=worker_environment())
    assert done.returncode == 2
    assert "--password-stdin" in done.stderr


@pytest.mark.parametrize("typed", [b"\x04", b"caf\xe9 du monde\n"])
def test_at_a_terminal_what_is_no_password_is_told_of(transactional_db, typed):
    """Nothing at all, and bytes that are no text."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "users", "create", "anna"],
        cwd=ROOT,
        env=worker_environment(),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    shown, asked = b"", 0
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(terminal, 4096):
            shown += part
            # What is typed before it asks is thrown away.
            while asked < shown.count(b"Password: ") + shown.count(b"Again: "):
                os.write(terminal, typed)
                asked += 1
    os.close(terminal)
    assert process.wait(60) == 2, shown
    assert b"Traceback" not in shown and b"password" in shown
    assert not get_user_model().objects.exists()
